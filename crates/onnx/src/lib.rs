//! ONNX Runtime: the only module that imports `ort`.
//!
//! The library is loaded at run time. One environment serves the process; its telemetry is
//! off. Sessions of one graph share their weights: ONNX Runtime shares packed weights only
//! between sessions that were also given the same initializers, so both are handed to each.
//!
//! - `device_choice`: which device is used, and what is said about it (pure); `cuda`: the provider and its libraries
//! - `placement_policy`: where a graph runs (pure); `gpu_probe`: whether a graph runs on a GPU, measured
//! - `profile_trace`: what ran where (pure); `profile_dir`: where that is written
//! - `session_factory`: what sessions are made from; `weights`: their constants; `session`: one of them
//! - `graph_scan`: checks a graph file; `proto`: its messages; `graph`, `external_data`, `division_check`: parts of the scan
//! - `graph_analysis`, `graph_info`: what a graph file says
//! - `io_schema`: what a graph takes and gives; `input_schema`, `output_schema`: which inputs and outputs that are
//! - `input_tensors`, `output_reader`: the tensors of a run
//! - `run_watchdog`: ends what takes too long; `library`, `ort_messages`: the library, and what it says

mod cuda;
mod device_choice;
mod division_check;
mod external_data;
mod gpu_probe;
mod graph;
mod graph_analysis;
mod graph_info;
mod graph_scan;
mod input_schema;
mod input_tensors;
mod io_schema;
mod library;
mod ort_messages;
mod output_reader;
mod output_schema;
mod placement_policy;
mod profile_dir;
mod profile_trace;
pub mod proto;
mod run_watchdog;
pub mod runtime_settings;
mod scan_error;
mod session;
mod session_factory;
mod weights;

use std::path::{self, Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use bytes::Bytes;
use ort::environment::Environment;
use ort::logging::LogLevel;
use ort::session::builder::PrepackedWeights;
use parking_lot::Mutex;
use predictd_engine::backend::{Backend, Graph, GraphInfo, Session};
use predictd_engine::placement_result::{GpuMeasurement, Placement};
use predictd_platform::clock;
use predictd_text::manifest::{Manifest, ManifestError, ModelDevice};
use predictd_text::signature::{GraphInput, Signature};

use crate::runtime_settings::{Device, DeviceSettings, RuntimeSettings};
use cuda::GpuTarget;
use device_choice::DeviceChoice;
use graph_scan::GraphScan;
use io_schema::IoSchema;
use ort_messages::{explain_load_error, log_message};
use placement_policy::decide_placement;
use run_watchdog::{Watchdog, WatchdogHandle};
use session::{ExecutionSite, IoSpec, OnnxSession};
use session_factory::SessionFactory;
use weights::{read_external_files, shared_tensors};

/// ONNX Runtime allows one environment per process, ever.
static ENVIRONMENT: OnceLock<(Environment, Arc<Watchdog>)> = OnceLock::new();
static START_LOCK: Mutex<()> = Mutex::new(());

/// The loaded library.
pub struct OnnxRuntime {
    environment: Environment,
    watchdog: WatchdogHandle,
    share_weights: bool,
    threads: usize,
    gpu_config: Option<Arc<GpuConfig>>,
    /// Why no GPU is used, where one was looked for.
    fallback_reason: Option<String>,
}

/// The GPUs that models run on.
struct GpuConfig {
    device_ids: Vec<u32>,
    /// What does not run there does not run.
    strict: bool,
    devices: DeviceSettings,
    /// Where the record of a run may be written.
    profile_parents: Vec<PathBuf>,
}

impl OnnxRuntime {
    /// The runtime of a server with these settings: on the device that they name.
    ///
    /// # Errors
    /// As [`OnnxRuntime::load`]; or one sentence that says why a named GPU cannot be used.
    pub fn from_settings(settings: &RuntimeSettings) -> Result<Self, String> {
        let runtime = Self::load(settings.library.as_deref())?;
        let mut runtime = runtime.with_threads(settings.threads_per_batch);
        let devices = &settings.devices;
        let has_provider = devices.device != Device::Cpu && cuda::is_built_in();
        if has_provider {
            let library = library::find_library(settings.library.as_deref())?;
            cuda::preload_libraries(devices.cuda_libraries.as_deref(), library.parent())?;
        }
        let try_gpu = |gpu| cuda::test_gpu(&runtime.environment, gpu, devices);
        match device_choice::choose_device(&devices.device, has_provider, try_gpu)? {
            DeviceChoice::Cpu { fallback_reason } => {
                if let Some(reason) = &fallback_reason {
                    tracing::warn!(reason, "GPU unavailable; models run on the CPU");
                }
                runtime.fallback_reason = fallback_reason;
            }
            DeviceChoice::Gpus { device_ids, strict } => {
                tracing::info!(gpus = ?device_ids, strict, "models run on GPUs");
                let devices = devices.clone();
                let profile_parents = vec![settings.profile_dir.clone(), std::env::temp_dir()];
                profile_dir::remove_stale(&profile_parents, clock::now());
                runtime.gpu_config = Some(Arc::new(GpuConfig { device_ids, strict, devices, profile_parents }));
            }
        }
        Ok(runtime)
    }

    /// Finds and loads the library, with telemetry and chatter off.
    ///
    /// # Errors
    /// One sentence that names the library, what is wrong with it, and the remedy.
    pub fn load(named: Option<&Path>) -> Result<Self, String> {
        let _one_at_a_time = START_LOCK.lock();
        if let Some((environment, watchdog)) = ENVIRONMENT.get() {
            return Ok(Self::from_environment(environment, watchdog));
        }
        let path = library::find_library(named)?;
        let builder = ort::init_from(&path).map_err(|error| unusable_library_error(&path, &error))?;
        let environment = builder
            .with_name("predictd")
            .with_telemetry(false)
            .with_logger(Arc::new(|level, _, _, _, message| log_message(level, message)))
            .build()
            .map_err(|error| unusable_library_error(&path, &error))?;
        environment.set_log_level(LogLevel::Warning);
        tracing::info!(library = %path.display(), "ONNX Runtime loaded");
        let watchdog = Watchdog::start().map_err(|error| format!("no thread could be started: {error}"))?;
        let (environment, watchdog) = ENVIRONMENT.get_or_init(|| (environment, watchdog));
        Ok(Self::from_environment(environment, watchdog))
    }

    fn from_environment(environment: &Environment, watchdog: &Arc<Watchdog>) -> Self {
        Self {
            environment: environment.clone(),
            watchdog: WatchdogHandle::new(watchdog),
            share_weights: true,
            threads: 1,
            gpu_config: None,
            fallback_reason: None,
        }
    }

    /// The same runtime with so many threads for each run.
    #[must_use]
    pub fn with_threads(mut self, threads: usize) -> Self {
        self.threads = threads;
        self
    }

    /// The same runtime with weights of its own for every session: for measuring what sharing saves.
    #[must_use]
    pub fn without_shared_weights(mut self) -> Self {
        self.share_weights = false;
        self
    }
}

fn unusable_library_error(path: &Path, reason: &dyn std::fmt::Display) -> String {
    format!("{} cannot be used as ONNX Runtime ({reason}): {}", path.display(), library::INSTALL_HINT)
}

impl Backend for OnnxRuntime {
    fn open(&self, manifest: &mut Manifest) -> Result<Box<dyn Graph>, ManifestError> {
        let bytes = Bytes::from(std::mem::take(&mut manifest.graph));
        let name = manifest.graph_name.clone();
        let error = |reason: String| ManifestError::new(&name, reason);
        let scan = graph_scan::scan_graph(bytes.clone()).map_err(|e| error(e.to_string()))?;
        let mut session_factory = self.session_factory(&scan, bytes, manifest)?;
        let session = session_factory.cpu_session().map_err(|e| error(explain_load_error(&e)))?;
        let schema = IoSchema::new(&scan, &session, manifest).map_err(&error)?;
        let info = graph_info::graph_info(&scan, &session);
        let mut session = OnnxSession {
            session,
            io_spec: schema.io_spec.clone(),
            execution_site: session_factory.execution_site(),
            watchdog: self.watchdog.clone(),
        };
        let signature = schema
            .complete(&mut session, manifest, !info.batch_dependent_operators.is_empty())
            .map_err(|e| error(format!("a first run failed: {e}")))?;
        let placement = self.place_graph(&session_factory, &mut session, manifest)?;
        let io_spec = session.io_spec.clone();
        let mut first_session = Some(session);
        let mut gpu_rotation = None;
        if placement.is_gpu() {
            // Nothing runs on the cores: their session and the weights that they would share are not needed.
            first_session = None;
            session_factory.initializers = Vec::new();
            session_factory.prepacked = None;
            gpu_rotation = self.gpu_config.clone().map(|gpus| (gpus, 0));
        }
        let graph =
            OnnxGraph { session_factory, signature, info, io_spec, name, first_session, gpu_rotation, placement };
        Ok(Box::new(graph))
    }

    fn gpu_count(&self) -> usize {
        self.gpu_config.as_ref().map_or(0, |gpus| gpus.device_ids.len())
    }

    fn requires_gpu(&self) -> bool {
        self.gpu_config.as_ref().is_some_and(|gpus| gpus.strict)
    }

    fn shut_down(&self, until: Instant) {
        self.watchdog.stop_all(until);
    }
}

impl OnnxRuntime {
    fn session_factory(
        &self,
        scan: &GraphScan,
        graph_bytes: Bytes,
        manifest: &Manifest,
    ) -> Result<SessionFactory, ManifestError> {
        let external_files = read_external_files(&scan.external_tensors, manifest)?;
        let mut initializers = Vec::new();
        if self.share_weights {
            initializers = shared_tensors(scan).map_err(|e| ManifestError::new(&manifest.graph_name, e.to_string()))?;
        }
        Ok(SessionFactory {
            environment: self.environment.clone(),
            watchdog: self.watchdog.clone(),
            threads: self.threads,
            prepacked: self.share_weights.then(PrepackedWeights::new),
            initializers,
            external_files,
            graph_bytes,
        })
    }

    /// Where a graph runs. `cores` is a session of it on the cores.
    fn place_graph(
        &self,
        source: &SessionFactory,
        cores: &mut OnnxSession,
        manifest: &Manifest,
    ) -> Result<Placement, ManifestError> {
        if manifest.options.device == Some(ModelDevice::Cpu) {
            return Ok(Placement::new_cpu(None));
        }
        let takes_text = matches!(cores.io_spec.input, GraphInput::Texts { .. });
        let Some(gpus) = &self.gpu_config else {
            // What no GPU would run lacks none.
            return Ok(Placement::new_cpu(self.fallback_reason.clone().filter(|_| !takes_text)));
        };
        let Some(&gpu) = gpus.device_ids.first() else { return Ok(Placement::new_cpu(None)) };
        let on = GpuTarget { device_id: gpu, devices: &gpus.devices };
        let measured = gpu_probe::probe_gpu(source, on, cores, &gpus.profile_parents);
        let placement = decide_placement(measured, &gpus.device_ids, gpus.strict, takes_text);
        let model = manifest.graph_directory.display();
        let placement = placement.map_err(|reason| {
            let remedy = "to let it run on the cores, write device = \"cpu\" into its model.toml";
            let sentence = format!("{model} does not run on GPU {gpu}: {reason}; {remedy}");
            let reason = format!("it does not run on GPU {gpu}: {reason}");
            ManifestError::new(&manifest.graph_name, reason).with_device_refusal(sentence)
        })?;
        log_placement(&model, gpu, &placement);
        Ok(placement)
    }
}

fn log_placement(model: &path::Display<'_>, gpu: u32, placement: &Placement) {
    match (&placement.gpu_measurement, &placement.fallback_reason) {
        (Some(measured), _) if placement.is_gpu() => log_gpu_placement(model, gpu, measured),
        (Some(measured), _) => tracing::warn!(
            %model,
            gpu,
            gpu_inference_ms = measured.gpu_run_time.as_secs_f64() * 1e3,
            cpu_inference_ms = measured.cpu_run_time.as_secs_f64() * 1e3,
            "GPU slower than one CPU core; model runs on the CPU"
        ),
        (None, Some(reason)) => {
            tracing::warn!(%model, reason, "model does not run on the GPU; model runs on the CPU");
        }
        (None, None) => {}
    }
}

fn log_gpu_placement(model: &path::Display<'_>, gpu: u32, measured: &GpuMeasurement) {
    if measured.gpu_run_time > measured.cpu_run_time {
        tracing::warn!(%model, gpu, "GPU slower than one CPU core");
    }
    tracing::info!(
        %model,
        gpu,
        nodes = ?measured.nodes_by_provider,
        memory_mib = measured.memory_bytes.map(|bytes| bytes >> 20),
        gpu_inference_ms = measured.gpu_run_time.as_secs_f64() * 1e3,
        cpu_inference_ms = measured.cpu_run_time.as_secs_f64() * 1e3,
        max_score_difference = measured.max_score_difference,
        "model placed on the GPU"
    );
}

struct OnnxGraph {
    session_factory: SessionFactory,
    signature: Signature,
    info: GraphInfo,
    io_spec: IoSpec,
    name: String,
    first_session: Option<OnnxSession>,
    /// The GPUs, and how many sessions were made on them.
    gpu_rotation: Option<(Arc<GpuConfig>, usize)>,
    placement: Placement,
}

impl Graph for OnnxGraph {
    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn info(&self) -> GraphInfo {
        self.info.clone()
    }

    fn placement(&self) -> Placement {
        self.placement.clone()
    }

    fn create_session(&mut self) -> Result<Box<dyn Session>, ManifestError> {
        if let Some(first) = self.first_session.take() {
            return Ok(Box::new(first));
        }
        let (session, execution_site) = match &mut self.gpu_rotation {
            Some((gpus, made)) => {
                let device_id = gpus.device_ids.get(*made % gpus.device_ids.len().max(1)).copied().unwrap_or_default();
                *made += 1;
                let on = GpuTarget { device_id, devices: &gpus.devices };
                (self.session_factory.gpu_session(on, None), ExecutionSite::Gpu)
            }
            None => (self.session_factory.cpu_session(), self.session_factory.execution_site()),
        };
        Ok(Box::new(OnnxSession {
            session: session.map_err(|error| ManifestError::new(&self.name, explain_load_error(&error)))?,
            io_spec: self.io_spec.clone(),
            execution_site,
            watchdog: self.session_factory.watchdog.clone(),
        }))
    }
}
