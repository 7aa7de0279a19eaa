//! What ONNX Runtime is started with: its library, threads, and where models run.

use std::fmt;
use std::path::PathBuf;

/// Where models are to run.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Device {
    /// On the first GPU if it can be used, else on the cores.
    #[default]
    Auto,
    /// On the cores.
    Cpu,
    /// On these GPUs and nowhere else.
    Cuda(Vec<u32>),
}

impl fmt::Display for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Auto => f.write_str("auto"),
            Self::Cpu => f.write_str("cpu"),
            Self::Cuda(gpus) => {
                let numbers: Vec<String> = gpus.iter().map(u32::to_string).collect();
                write!(f, "cuda:{}", numbers.join(","))
            }
        }
    }
}

/// Where models run, checked.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct DeviceSettings {
    /// Where they are to run.
    pub device: Device,
    /// Most bytes on a GPU for the runs of a model, if there is a limit.
    pub gpu_memory_limit: Option<u64>,
    /// GPUs may round float32 to TF32.
    pub gpu_tf32: bool,
    /// Directory of the libraries of CUDA and cuDNN, if named.
    pub cuda_libraries: Option<PathBuf>,
}

/// What ONNX Runtime is started with.
#[derive(Debug, Clone)]
pub struct RuntimeSettings {
    /// The library, if named.
    pub library: Option<PathBuf>,
    /// Threads of one run.
    pub threads_per_batch: usize,
    /// Where models run.
    pub devices: DeviceSettings,
    /// Directory for the traces of runs on GPUs.
    pub profile_dir: PathBuf,
}
