//! Where models run: on the cores, or on GPUs.

use std::path::PathBuf;

use clap::builder::BoolishValueParser;
use predictd_onnx::runtime_settings::{Device, DeviceSettings};

use super::parsers::{is_set, path_parser};

/// Highest number of a GPU.
const MAX_GPU_INDEX: u32 = 63;
/// Least memory on a GPU that can be worked with.
const MIN_GPU_MEMORY_BYTES: u64 = 64 << 20;

/// Options of where models run.
#[derive(Debug, Default, clap::Args)]
pub struct DeviceArgs {
    /// Where models run: auto (on the first GPU if it can be used), cpu, cuda, or cuda:N,M (these GPUs, and nowhere else: the server does not start if it cannot).
    #[arg(long, env = "PREDICTD_DEVICE", default_value = "auto", value_parser = parse_device, value_name = "WHERE")]
    pub device: Device,

    /// Most memory on a GPU for the runs of each model, weights included, in bytes; 0: no limit.
    #[arg(long, env = "PREDICTD_GPU_MEMORY_LIMIT", default_value_t = 0, value_name = "BYTES")]
    pub gpu_memory_limit: u64,

    /// Let GPUs round float32 to 10 bits of fraction in matrix products (TF32): faster, and answers differ more from those of a CPU.
    #[arg(
        long,
        env = "PREDICTD_GPU_TF32",
        value_parser = BoolishValueParser::new(),
        num_args = 0..=1,
        require_equals = true,
        value_name = "BOOL"
    )]
    pub gpu_tf32: bool,

    /// Directory of the libraries of CUDA and cuDNN, or of NVIDIA's wheels [default: nvidia/ beside ONNX Runtime, then the system's].
    #[arg(long, env = "PREDICTD_CUDA_LIBRARIES", value_name = "DIR", value_parser = path_parser())]
    pub cuda_libraries: Option<PathBuf>,
}

/// Checks what was typed.
///
/// # Errors
/// What is wrong with it, a sentence with the option's name.
pub(super) fn resolve_devices(args: &DeviceArgs) -> Result<DeviceSettings, String> {
    let limit = args.gpu_memory_limit;
    if limit != 0 && limit < MIN_GPU_MEMORY_BYTES {
        return Err(format!("--gpu-memory-limit {limit} is neither 0 nor {MIN_GPU_MEMORY_BYTES} or more"));
    }
    let cuda_libraries = args.cuda_libraries.clone().filter(is_set);
    if let Some(path) = cuda_libraries.as_deref().filter(|path| !path.is_dir()) {
        return Err(format!("--cuda-libraries {}: there is no such directory", path.display()));
    }
    Ok(DeviceSettings {
        device: args.device.clone(),
        gpu_memory_limit: Some(limit).filter(|&limit| limit > 0),
        gpu_tf32: args.gpu_tf32,
        cuda_libraries,
    })
}

/// Container files set variables to nothing to mean "not set".
pub(crate) fn parse_device(typed: &str) -> Result<Device, String> {
    match typed {
        "" | "auto" => return Ok(Device::Auto),
        "cpu" => return Ok(Device::Cpu),
        "cuda" => return Ok(Device::Cuda(vec![0])),
        _ => {}
    }
    let numbers = typed.strip_prefix("cuda:").ok_or("this is none of auto, cpu, cuda and cuda:N,M")?;
    let mut gpus = Vec::new();
    for number in numbers.split(',') {
        // Each may be named in full.
        let number = number.strip_prefix("cuda:").unwrap_or(number);
        let gpu =
            number.parse().ok().filter(|&gpu: &u32| gpu <= MAX_GPU_INDEX && number.bytes().all(|b| b.is_ascii_digit()));
        let gpu = gpu.ok_or_else(|| format!("{number:?} is no number of a GPU: 0 to {MAX_GPU_INDEX}"))?;
        if gpus.contains(&gpu) {
            return Err(format!("GPU {gpu} is named twice"));
        }
        gpus.push(gpu);
    }
    Ok(Device::Cuda(gpus))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parse_device_valid_accepted() {
        for (typed, found, shown) in [
            ("", Device::Auto, "auto"),
            ("auto", Device::Auto, "auto"),
            ("cpu", Device::Cpu, "cpu"),
            ("cuda", Device::Cuda(vec![0]), "cuda:0"),
            ("cuda:0", Device::Cuda(vec![0]), "cuda:0"),
            ("cuda:3,1", Device::Cuda(vec![3, 1]), "cuda:3,1"),
            ("cuda:0,cuda:1", Device::Cuda(vec![0, 1]), "cuda:0,1"),
        ] {
            assert_eq!(parse_device(typed).as_ref(), Ok(&found), "{typed}");
            assert_eq!(found.to_string(), shown);
        }
    }

    #[test]
    fn parse_device_invalid_error_names_part() {
        for (typed, word) in [
            ("gpu", "none of auto"),
            ("CUDA", "none of auto"),
            ("cuda0", "none of auto"),
            ("cuda:", "\"\" is no number"),
            ("cuda:x", "\"x\" is no number"),
            ("cuda:-1", "\"-1\" is no number"),
            ("cuda:+1", "\"+1\" is no number"),
            ("cuda:64", "\"64\" is no number"),
            ("cuda:0,", "\"\" is no number"),
            ("cuda:0, 1", "\" 1\" is no number"),
            ("cuda:1,1", "named twice"),
        ] {
            let error = parse_device(typed).unwrap_err();
            assert!(error.contains(word), "{typed}: {error}");
        }
    }

    fn device_args(limit: u64, cuda_libraries: Option<PathBuf>) -> DeviceArgs {
        DeviceArgs { gpu_memory_limit: limit, cuda_libraries, ..DeviceArgs::default() }
    }

    #[test]
    fn device_settings_bad_limit_or_directory_refused() {
        assert_eq!(resolve_devices(&device_args(0, Some(PathBuf::new()))), Ok(DeviceSettings::default()));
        assert_eq!(resolve_devices(&device_args(1 << 30, None)).unwrap().gpu_memory_limit, Some(1 << 30));
        assert!(resolve_devices(&device_args(1, None)).unwrap_err().starts_with("--gpu-memory-limit 1 "));
        assert!(
            resolve_devices(&device_args(0, Some("/nowhere".into())))
                .unwrap_err()
                .contains("--cuda-libraries /nowhere")
        );
    }
}
