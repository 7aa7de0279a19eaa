//! The CUDA provider: its libraries, its options, and whether a GPU can be used.

use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::Duration;

use ort::editor::{Graph, Model, Node, ONNX_DOMAIN, Opset};
use ort::environment::Environment;
use ort::ep::cuda::{CUDA_DYLIBS, CUDNN_DYLIBS, ConvAlgorithmSearch};
use ort::ep::{ArenaExtendStrategy, CUDA, ExecutionProvider, ExecutionProviderDispatch};
use ort::session::builder::SessionBuilder;
use ort::util::preload_dylib;
use ort::value::{Outlet, Shape, SymbolicDimensions, Tensor, TensorElementType, ValueType};

use super::device_choice::explain_error;
use crate::runtime_settings::DeviceSettings;

/// As profiles name it.
pub(super) const CUDA_PROVIDER: &str = "CUDAExecutionProvider";
/// Rows and columns of the matrices that a GPU must multiply to be used.
const MATRIX_SIZE: u8 = 32;
/// Time for that: the first use of a GPU loads its libraries.
const GPU_TEST_TIMEOUT: Duration = Duration::from_secs(30);
/// Version of the ONNX operators that they are multiplied with.
const OPSET_VERSION: u32 = 17;

/// A GPU to make a session on.
#[derive(Clone, Copy)]
pub(super) struct GpuTarget<'a> {
    pub(super) device_id: u32,
    pub(super) devices: &'a DeviceSettings,
}

/// True if the library was built with the provider. Whether a GPU can be used is another question.
pub(super) fn is_built_in() -> bool {
    CUDA::is_available().unwrap_or(false)
}

/// The provider on one GPU. Registering it fails where it cannot be had: nothing falls back in silence.
///
/// Nodes that only compute shapes stay on the cores, where the library wants them: so the library's own ban of that
/// (`disable_cpu_ep_fallback`) would refuse nearly every model, and what runs where is measured instead.
pub(super) fn provider(GpuTarget { device_id, devices }: GpuTarget<'_>) -> ExecutionProviderDispatch {
    let mut cuda = CUDA::default()
        .with_device_id(i32::try_from(device_id).unwrap_or(i32::MAX))
        // The largest runs come early, at load: blocks of twice the size would be left half empty.
        .with_arena_extend_strategy(ArenaExtendStrategy::SameAsRequested)
        // Lengths differ from run to run: a search for each would cost more than it finds.
        .with_conv_algorithm_search(ConvAlgorithmSearch::Default)
        .with_tf32(devices.gpu_tf32);
    if let Some(limit) = devices.gpu_memory_limit {
        cuda = cuda.with_memory_limit(usize::try_from(limit).unwrap_or(usize::MAX));
    }
    cuda.build().error_on_failure()
}

/// Why a GPU cannot be used, if so: it has to multiply two matrices, and soon.
pub(super) fn test_gpu(environment: &Environment, device_id: u32, devices: &DeviceSettings) -> Result<(), String> {
    let environment = environment.clone();
    let devices = devices.clone();
    run_with_timeout(GPU_TEST_TIMEOUT, move || test_matmul(&environment, GpuTarget { device_id, devices: &devices }))
}

/// What is found on another thread in so much time. A driver that hangs cannot be ended, but it holds up no other thread.
fn run_with_timeout(limit: Duration, work: impl FnOnce() -> Result<(), String> + Send + 'static) -> Result<(), String> {
    let (done, found) = mpsc::sync_channel(1);
    let thread = std::thread::Builder::new().name("predictd-try-gpu".to_owned());
    // Nobody listens any more once the time is over.
    let started = thread.spawn(move || done.send(work()).ok());
    started.map_err(|error| format!("no thread could be started: {error}"))?;
    found.recv_timeout(limit).unwrap_or_else(|error| match error {
        RecvTimeoutError::Timeout => Err(format!("it does not multiply two matrices within {} s", limit.as_secs())),
        RecvTimeoutError::Disconnected => Err("the attempt to use it panicked".to_owned()),
    })
}

fn test_matmul(environment: &Environment, on: GpuTarget<'_>) -> Result<(), String> {
    let options =
        SessionBuilder::new(environment).and_then(|builder| Ok(builder.with_execution_providers([provider(on)])?));
    let product = options.and_then(|options| matmul(&options)).map_err(|error| explain_error(error.message()))?;
    if product.iter().all(|&cell| (cell - f32::from(MATRIX_SIZE)).abs() < 0.01) {
        return Ok(());
    }
    Err("it multiplies two matrices wrongly".to_owned())
}

/// The product of two matrices of ones, by a session with these options.
fn matmul(options: &SessionBuilder) -> ort::Result<Vec<f32>> {
    let mut graph = Graph::new()?;
    graph.set_inputs([matrix("a"), matrix("b")])?;
    graph.set_outputs([matrix("c")])?;
    graph.add_node(Node::new("MatMul", ONNX_DOMAIN, "product", ["a", "b"], ["c"], [])?)?;
    let mut model = Model::new([Opset::new(ONNX_DOMAIN, OPSET_VERSION)?])?;
    model.set_graph(graph)?;
    let mut session = model.into_session(options)?;
    let outputs = session.run(ort::inputs!["a" => ones()?, "b" => ones()?])?;
    let product = outputs.get("c").ok_or_else(|| ort::Error::new("the product is not there"))?;
    Ok(product.try_extract_tensor::<f32>()?.1.to_vec())
}

/// A square matrix that goes into a graph or comes out.
fn matrix(name: &str) -> Outlet {
    let shape = Shape::new([i64::from(MATRIX_SIZE); 2]);
    let dimension_symbols = SymbolicDimensions::empty(2);
    Outlet::new(name, ValueType::Tensor { ty: TensorElementType::Float32, shape, dimension_symbols })
}

fn ones() -> ort::Result<Tensor<f32>> {
    let size = usize::from(MATRIX_SIZE);
    Tensor::from_array(([size, size], vec![1.0; size * size]))
}

/// Loads the libraries of CUDA and cuDNN in `chosen_dir`, or else in `runtime_dir`, the directory of ONNX Runtime. The
/// provider finds loaded libraries. The system finds those that neither directory has.
///
/// # Errors
/// One sentence, if none lies in `chosen_dir`.
pub(super) fn preload_libraries(chosen_dir: Option<&Path>, runtime_dir: Option<&Path>) -> Result<(), String> {
    if let Some(chosen_dir) = chosen_dir.filter(|chosen_dir| find_libraries(&library_dirs(chosen_dir)).is_empty()) {
        return Err(format!("--cuda-libraries {}: no library of CUDA or cuDNN lies there", chosen_dir.display()));
    }
    let folders: Vec<PathBuf> = chosen_dir.into_iter().chain(runtime_dir).flat_map(library_dirs).collect();
    for path in find_libraries(&folders) {
        match preload_dylib(&path) {
            Ok(()) => tracing::debug!(library = %path.display(), "CUDA library loaded"),
            // It may not be needed: the provider names what it lacks.
            Err(error) => tracing::warn!(library = %path.display(), %error, "CUDA library could not be loaded"),
        }
    }
    Ok(())
}

/// Where libraries may lie below a directory: in itself, or as NVIDIA's wheels have them (`nvidia/cudnn/lib`).
fn library_dirs(root: &Path) -> Vec<PathBuf> {
    let mut folders = vec![root.to_owned(), root.join("lib")];
    for wheels in [root.join("nvidia"), root.to_owned()] {
        let Ok(entries) = std::fs::read_dir(wheels) else { continue };
        let mut below: Vec<PathBuf> = entries.filter_map(|entry| Some(entry.ok()?.path().join("lib"))).collect();
        below.retain(|folder| folder.is_dir());
        below.sort_unstable();
        folders.extend(below);
    }
    folders
}

/// The libraries that lie in these folders, each before those that need it.
fn find_libraries(folders: &[PathBuf]) -> Vec<PathBuf> {
    let names = CUDA_DYLIBS.iter().chain(CUDNN_DYLIBS);
    let found = |name: &&str| folders.iter().map(|folder| folder.join(name)).find(|path| path.is_file());
    names.filter_map(found).filter_map(|path| std::path::absolute(path).ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gpu_test_hanging_driver_times_out() {
        let short = Duration::from_millis(50);
        let hangs = || {
            std::thread::sleep(Duration::from_secs(5));
            Ok(())
        };
        let start = std::time::Instant::now();
        assert_eq!(run_with_timeout(short, hangs), Err("it does not multiply two matrices within 0 s".to_owned()));
        assert!(start.elapsed() < Duration::from_secs(4));
        assert_eq!(run_with_timeout(GPU_TEST_TIMEOUT, || Ok(())), Ok(()));
        assert_eq!(run_with_timeout(GPU_TEST_TIMEOUT, || Err("it is gone".to_owned())), Err("it is gone".to_owned()));
        assert_eq!(
            run_with_timeout(GPU_TEST_TIMEOUT, || panic!("a test")),
            Err("the attempt to use it panicked".to_owned())
        );
    }

    #[test]
    fn gpu_test_on_cpu_multiplies_matrices() {
        let runtime = crate::OnnxRuntime::load(Some(std::path::Path::new("../../target/onnxruntime"))).unwrap();
        let product = matmul(&SessionBuilder::new(&runtime.environment).unwrap()).unwrap();
        assert_eq!(product.len(), usize::from(MATRIX_SIZE).pow(2));
        assert!(product.iter().all(|cell| (cell - 32.0).abs() < 1e-6));
    }

    fn library_names(root: &Path) -> Vec<String> {
        let name = |path: &PathBuf| path.file_name().unwrap().to_str().unwrap().to_owned();
        find_libraries(&library_dirs(root)).iter().map(name).collect()
    }

    #[test]
    fn cuda_libraries_in_wheel_layout_are_found() {
        let root = tempfile::tempdir().unwrap();
        for (folder, name) in
            [("nvidia/cudnn/lib", "libcudnn.so.9"), ("nvidia/cu13/lib", "libcublas.so.13"), ("lib", "libcudart.so.13")]
        {
            std::fs::create_dir_all(root.path().join(folder)).unwrap();
            std::fs::write(root.path().join(folder).join(name), "no library").unwrap();
        }
        assert_eq!(library_names(root.path()), ["libcudart.so.13", "libcublas.so.13", "libcudnn.so.9"]);
        assert_eq!(library_names(&root.path().join("nvidia")), ["libcublas.so.13", "libcudnn.so.9"]);
        // A file that is no library is logged and skipped.
        assert_eq!(preload_libraries(Some(root.path()), None), Ok(()));
    }

    #[test]
    fn cuda_libraries_missing_directory_is_rejected() {
        let empty = tempfile::tempdir().unwrap();
        assert!(preload_libraries(Some(empty.path()), None).unwrap_err().contains("no library of CUDA"));
        assert_eq!(preload_libraries(None, Some(empty.path())), Ok(()));
    }
}
