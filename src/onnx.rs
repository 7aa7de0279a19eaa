//! ONNX Runtime: the only module that imports `ort`.
//!
//! The library is loaded at run time. One environment serves the process; its telemetry is
//! off. Sessions of one graph share their weights: ONNX Runtime shares packed weights only
//! between sessions that were also given the same initializers, so both are handed to each.
//!
//! - `device`: which device is used, and what is said about it (pure); `cuda`: the provider and its libraries
//! - `decision`: where a graph runs (pure)
//! - `placing`: whether a graph runs on a GPU, measured; `profile`: what ran where (pure); `folder`: where that is written
//! - `source`: what sessions are made from; `weights`: their constants; `session`: one of them
//! - `scan`: reads a graph file; `wire`, `graph`, `external`, `constants`: its parts; `analysis`, `facts`: what it says
//! - `schema`: what a graph takes and gives; `input_schema`, `output_schema`: which inputs and outputs that are
//! - `inputs`, `read_output`: the tensors of a run
//! - `watchdog`: ends what takes too long; `library`, `messages`: the library, and what it says

mod analysis;
mod constants;
mod cuda;
mod decision;
mod device;
mod external;
mod facts;
mod folder;
mod graph;
mod input_schema;
mod inputs;
mod library;
mod messages;
mod output_schema;
mod placing;
mod profile;
mod read_output;
mod scan;
mod schema;
mod session;
mod source;
mod watchdog;
mod weights;
mod wire;

use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use ort::environment::Environment;
use ort::logging::LogLevel;
use ort::session::builder::PrepackedWeights;
use parking_lot::Mutex;

use crate::clock;
use crate::config::{Device, Devices, Settings};
use crate::engine::placement::{OnGpu as Measured, Placement};
use crate::engine::session::{Graph, GraphFacts, Runtime, Session};
use crate::text::manifest::{Manifest, ManifestError, ModelDevice};
use crate::text::signature::{GraphInput, Signature};
use decision::{Decided, decide};
use device::Chosen;
use messages::{explain, log};
use scan::Scan;
use schema::Schema;
use session::{OnnxSession, Reading, Runs};
use source::{OnGpu, Source};
use watchdog::{UnderWay, Watchdog};
use weights::{read_external, shared_tensors};

/// Operators that measure a whole batch to scale it: a text's scores then depend on its neighbours.
const BATCH_DEPENDENT: [&str; 3] = ["DynamicQuantizeLinear", "DynamicQuantizeMatMul", "DynamicQuantizeLSTM"];

/// ONNX Runtime allows one environment per process, ever.
static ENVIRONMENT: OnceLock<(Environment, Arc<Watchdog>)> = OnceLock::new();
static STARTING: Mutex<()> = Mutex::new(());

/// The loaded library.
pub struct OnnxRuntime {
    environment: Environment,
    under_way: UnderWay,
    share_weights: bool,
    threads: usize,
    spin: bool,
    gpus: Option<Arc<Gpus>>,
    /// Why no GPU is used, where one was looked for.
    fallback: Option<String>,
}

/// The GPUs that models run on.
struct Gpus {
    numbers: Vec<u32>,
    /// What does not run there does not run.
    strict: bool,
    devices: Devices,
    /// Where the record of a run may be written.
    places: Vec<PathBuf>,
}

impl OnnxRuntime {
    /// The runtime of a server with these settings: on the device that they name.
    ///
    /// # Errors
    /// As [`OnnxRuntime::start`]; or one sentence that tells why a GPU that is named cannot be used.
    pub fn for_server(settings: &Settings) -> Result<Self, String> {
        let runtime = Self::start(settings.onnxruntime.as_deref())?;
        let mut runtime = runtime.with_threads(settings.runs.threads, settings.runs.spin);
        let devices = &settings.devices;
        let has_provider = devices.wanted != Device::Cpu && cuda::is_built_in();
        if has_provider {
            let library = library::find(settings.onnxruntime.as_deref())?;
            cuda::preload(devices.cuda_libraries.as_deref(), library.parent())?;
        }
        let try_gpu = |gpu| cuda::try_gpu(&runtime.environment, gpu, devices);
        match device::choose(&devices.wanted, has_provider, try_gpu)? {
            Chosen::Cores { fallback } => {
                if let Some(reason) = &fallback {
                    tracing::warn!(reason, "no GPU is used: models run on the cores");
                }
                runtime.fallback = fallback;
            }
            Chosen::Gpus { gpus: numbers, strict } => {
                tracing::info!(gpus = ?numbers, strict, "models run on GPUs");
                let (devices, places) = (devices.clone(), vec![settings.data_dir.clone(), std::env::temp_dir()]);
                folder::remove_leftovers(&places, clock::now());
                runtime.gpus = Some(Arc::new(Gpus { numbers, strict, devices, places }));
            }
        }
        Ok(runtime)
    }

    /// Finds and loads the library, with telemetry and chatter off.
    ///
    /// # Errors
    /// One sentence that names the library, what is wrong with it, and the cure.
    pub fn start(named: Option<&Path>) -> Result<Self, String> {
        let _one_at_a_time = STARTING.lock();
        if let Some((environment, watchdog)) = ENVIRONMENT.get() {
            return Ok(Self::of(environment, watchdog));
        }
        let path = library::find(named)?;
        let unusable =
            |reason: &str| format!("{} cannot be used as ONNX Runtime ({reason}): {}", path.display(), library::REMEDY);
        let builder = ort::init_from(&path).map_err(|error| unusable(&error.to_string()))?;
        let environment = builder
            .with_name("predictd")
            .with_telemetry(false)
            .with_logger(Arc::new(|level, _, _, _, message| log(level, message)))
            .build()
            .map_err(|error| unusable(&error.to_string()))?;
        environment.set_log_level(LogLevel::Warning);
        tracing::info!(library = %path.display(), "ONNX Runtime is loaded");
        let watchdog = Watchdog::start().map_err(|error| format!("no thread could be started: {error}"))?;
        let (environment, watchdog) = ENVIRONMENT.get_or_init(|| (environment, watchdog));
        Ok(Self::of(environment, watchdog))
    }

    fn of(environment: &Environment, watchdog: &Arc<Watchdog>) -> Self {
        Self {
            environment: environment.clone(),
            under_way: UnderWay::new(watchdog),
            share_weights: true,
            threads: 1,
            spin: false,
            gpus: None,
            fallback: None,
        }
    }

    /// The same runtime with so many threads for each run, which may wait busily for the next.
    #[must_use]
    pub fn with_threads(mut self, threads: usize, spin: bool) -> Self {
        (self.threads, self.spin) = (threads, spin);
        self
    }

    /// The same runtime with weights of its own for every session: for measuring what sharing saves.
    #[must_use]
    pub fn without_shared_weights(mut self) -> Self {
        self.share_weights = false;
        self
    }
}

impl Runtime for OnnxRuntime {
    fn open(&self, manifest: &mut Manifest) -> Result<Box<dyn Graph>, ManifestError> {
        let bytes = Arc::new(std::mem::take(&mut manifest.graph));
        let name = manifest.graph_name.clone();
        let error = |reason: String| ManifestError::new(&name, reason);
        let scan = scan::scan(&bytes).map_err(|e| error(e.to_string()))?;
        let source = self.source(&scan, Arc::clone(&bytes), manifest)?;
        let first = source.session().map_err(|e| error(explain(&e)))?;
        let schema = Schema::new(&scan, &first, manifest).map_err(&error)?;
        let mut facts = facts::of_file(&scan, &BATCH_DEPENDENT);
        facts.inputs = facts::ports(first.inputs());
        facts.outputs = facts::ports(first.outputs());
        let mut session = self.first_session(&source, first, schema.reading());
        let schema = schema.complete(&mut session, manifest).map_err(|e| error(format!("a first run failed: {e}")))?;
        let signature = schema.signature(session.reading.width, !facts.batch_dependent.is_empty());
        let placement = self.place(&source, &mut session, manifest)?;
        let reading = session.reading.clone();
        let mut graph =
            OnnxGraph { source, signature, facts, reading, name, first: Some(session), gpus: None, placement };
        if graph.placement.is_gpu() {
            // Nothing runs on the cores: their session and the weights that they would share are not needed.
            (graph.first, graph.source.initializers, graph.source.prepacked) = (None, Vec::new(), None);
            graph.gpus = self.gpus.clone().map(|gpus| (gpus, 0));
        }
        Ok(Box::new(graph))
    }

    fn gpus(&self) -> usize {
        self.gpus.as_ref().map_or(0, |gpus| gpus.numbers.len())
    }

    fn must_run_on(&self) -> Option<String> {
        let gpus = self.gpus.as_ref().filter(|gpus| gpus.strict)?;
        Some(format!("--device {}", gpus.devices.wanted))
    }

    fn end(&self, until: Instant) {
        self.under_way.end(until);
    }
}

impl OnnxRuntime {
    fn source(&self, scan: &Scan<'_>, bytes: Arc<Vec<u8>>, manifest: &Manifest) -> Result<Source, ManifestError> {
        let external = read_external(&scan.external, manifest)?;
        let mut initializers = Vec::new();
        if self.share_weights {
            let error = |e: ort::Error| ManifestError::new(&manifest.graph_name, e.to_string());
            initializers = shared_tensors(scan).map_err(error)?;
        }
        Ok(Source {
            environment: self.environment.clone(),
            under_way: self.under_way.clone(),
            threads: self.threads,
            spin: self.spin,
            prepacked: self.share_weights.then(PrepackedWeights::new),
            initializers,
            external,
            bytes,
        })
    }

    fn first_session(&self, source: &Source, session: ort::session::Session, reading: Reading) -> OnnxSession {
        OnnxSession { session, reading, runs: source.runs(), under_way: self.under_way.clone() }
    }

    /// Where a graph runs. `cores` is a session of it on the cores.
    fn place(&self, source: &Source, cores: &mut OnnxSession, manifest: &Manifest) -> Result<Placement, ManifestError> {
        let error = |reason: String| ManifestError::new(&manifest.graph_name, reason);
        if manifest.options.device == Some(ModelDevice::Cpu) {
            return Ok(Placement::cores(None));
        }
        let takes_text = matches!(cores.reading.input, GraphInput::Texts { .. });
        let Some(gpus) = &self.gpus else {
            // What no GPU would run lacks none.
            return Ok(Placement::cores(self.fallback.clone().filter(|_| !takes_text)));
        };
        let Some(&gpu) = gpus.numbers.first() else { return Ok(Placement::cores(None)) };
        let on = OnGpu { gpu, devices: &gpus.devices };
        let model = manifest.graph_directory.display();
        let measured = placing::place(source, on, cores, &gpus.places);
        match decide(measured, gpus.strict, takes_text) {
            Ok(Decided::OnGpu(measured)) => {
                let Measured { nodes, memory, run, run_on_core, difference, .. } = &measured;
                if run > run_on_core {
                    tracing::warn!(%model, gpu, "a run takes longer on the GPU than on one core");
                }
                tracing::info!(
                    %model,
                    gpu,
                    ?nodes,
                    memory_mib = memory.map(|bytes| bytes >> 20),
                    run_ms = run.as_secs_f64() * 1e3,
                    run_on_core_ms = run_on_core.as_secs_f64() * 1e3,
                    largest_difference = difference,
                    "the model runs on the GPU: it was measured there"
                );
                Ok(Placement { gpus: gpus.numbers.clone(), fallback: None, measured: Some(measured) })
            }
            Ok(Decided::Slower(measured)) => {
                let (run, run_on_core) = (measured.run.as_secs_f64() * 1e3, measured.run_on_core.as_secs_f64() * 1e3);
                let told = "a run takes longer on the GPU than on one core: the model runs on the cores";
                tracing::warn!(%model, gpu, run_ms = run, run_on_core_ms = run_on_core, "{told}");
                Ok(Placement { measured: Some(measured), ..Placement::default() })
            }
            Ok(Decided::OnCores) => Ok(Placement::cores(None)),
            Ok(Decided::Fallback(reason)) => {
                tracing::warn!(%model, reason, "the model does not run on the GPU: it runs on the cores");
                Ok(Placement::cores(Some(reason)))
            }
            Err(reason) => {
                let wanted = &gpus.devices.wanted;
                let cure = "to let it run on the cores, write device = \"cpu\" into its model.toml";
                let sentence = format!("--device {wanted}: {model} does not run on GPU {gpu}: {reason}; {cure}");
                Err(error(format!("it does not run on GPU {gpu}: {reason}")).refused(sentence))
            }
        }
    }
}

struct OnnxGraph {
    source: Source,
    signature: Signature,
    facts: GraphFacts,
    reading: Reading,
    name: String,
    first: Option<OnnxSession>,
    /// The GPUs, and how many sessions were made on them.
    gpus: Option<(Arc<Gpus>, usize)>,
    placement: Placement,
}

impl Graph for OnnxGraph {
    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn facts(&self) -> GraphFacts {
        self.facts.clone()
    }

    fn placement(&self) -> Placement {
        self.placement.clone()
    }

    fn session(&mut self) -> Result<Box<dyn Session>, ManifestError> {
        if let Some(first) = self.first.take() {
            return Ok(Box::new(first));
        }
        let (session, runs) = match &mut self.gpus {
            Some((gpus, made)) => {
                let gpu = gpus.numbers.get(*made % gpus.numbers.len().max(1)).copied().unwrap_or_default();
                *made += 1;
                (self.source.session_on(OnGpu { gpu, devices: &gpus.devices }, None), Runs::OnGpu)
            }
            None => (self.source.session(), self.source.runs()),
        };
        let session = session.map_err(|error| ManifestError::new(&self.name, explain(&error)))?;
        let (reading, under_way) = (self.reading.clone(), self.source.under_way.clone());
        Ok(Box::new(OnnxSession { session, reading, runs, under_way }))
    }
}
