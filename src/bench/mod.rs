//! `predictd bench`: which options suit a model on this machine, and how far the server is from what the engine can do.
//!
//! - [`args`]: its options
//! - [`texts`]: what is asked
//! - [`setup_selection`]: which options are tried, and which are best (pure); [`trial_runner`]: in which order
//! - [`bench_server`]: a real server in this process; [`load_clients`]: its clients
//! - [`engine_limit`]: the engine alone
//! - [`measurement`]: from counts to figures (pure); [`machine`]: cores and processor time
//! - [`report`]: what is printed
//!
//! Every set-up is measured twice, the second time in the opposite order, and the limit in turns with the one that is
//! found: what the machine does beside it does not fall on one of them. One server is loaded at a time.

pub mod args;
pub mod bench_server;
pub mod engine_limit;
mod error;
pub mod load_clients;
pub mod machine;
pub mod measurement;
pub mod report;
pub mod setup_selection;
pub mod texts;
pub mod trial_runner;

use std::sync::Arc;
use std::time::{Duration, Instant};

use predictd_engine::backend::Backend;
use predictd_engine::model_source::ModelSource;
use predictd_onnx::OnnxRuntime;
use predictd_registry::models_directory;
use predictd_registry::version_name::VersionName;
use tokio_util::sync::CancellationToken;

use crate::ServerError;
use crate::config::parsers::is_set;
use crate::config::{BatchSettings, ServerSettings};
use crate::fd_limit::raise_fd_limit;
use crate::server::models_option_error;
use crate::shutdown::Shutdown;
use crate::terminal::{escape_lines, print, print_json};
use args::BenchCommand;
use bench_server::{ServerSlot, Workload};
use engine_limit::EngineBaseline;
use error::interrupted_error;
use machine::{Cores, machine_cpu_time, process_cpu_time};
use report::{BenchReport, BenchSubject, CostCoefficients};
use setup_selection::{Setup, cpu_setups, gpu_setups};
use texts::BenchTexts;
use trial_runner::Benchmark;

/// Time for runs to end when the benchmark is interrupted.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_millis(500);

impl BenchCommand {
    /// Measures, and says on standard output what came of it.
    ///
    /// # Errors
    /// [`ServerError`] in one sentence.
    pub fn run(&self) -> Result<(), ServerError> {
        let settings = self.settings()?;
        let source = find_source(&settings, self.model.as_deref().filter(|name| !name.is_empty()))?;
        let signals = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("predictd-signals")
            .enable_all()
            .build()
            .map_err(ServerError::runtime)?;
        let stop = signals.block_on(async { Shutdown::from_signals() }).map_err(ServerError::runtime)?.drain;
        let runtime = OnnxRuntime::from_settings(&settings.onnx_runtime).map_err(ServerError::Configuration)?;
        let runtime: Arc<dyn Backend> = Arc::new(runtime.with_threads(1));
        signals.spawn({
            let stop = stop.clone();
            let runtime = Arc::clone(&runtime);
            async move {
                stop.cancelled().await;
                runtime.shut_down(Instant::now() + SHUTDOWN_TIMEOUT);
            }
        });
        // Both ends of every connection are in this process.
        _ = raise_fd_limit(2 * usize::from(self.clients) + settings.limits.max_connections);
        let outcome = self.measure(settings, &source, &runtime, &stop);
        // The library takes the process down with it if its own end comes in the middle of a run.
        runtime.shut_down(Instant::now() + SHUTDOWN_TIMEOUT);
        // A run that was ended is an error too: why it was says more.
        if stop.is_cancelled() { Err(interrupted_error()) } else { outcome }
    }

    fn measure(
        &self,
        settings: ServerSettings,
        source: &ModelSource,
        runtime: &Arc<dyn Backend>,
        stop: &CancellationToken,
    ) -> Result<(), ServerError> {
        let cores = Cores::detect();
        let limits = settings.limits;
        let batching = settings.batching;
        let setups = usual_setups(runtime.gpu_count(), cores, &batching);
        let first = setups.first().copied().ok_or_else(interrupted_error)?;
        let mut stage = ServerSlot::new(settings, source.clone(), stop.clone());
        // It may run on the cores although there are GPUs: then the server is another one.
        let gpus = stage.server(first)?.model.placement.gpu_ids.len();
        let usual = usual_setups(gpus, cores, &batching);
        let first = usual.first().copied().ok_or_else(interrupted_error)?;
        let model = Arc::clone(&stage.server(first)?.model);
        let file = self.texts.as_deref().filter(is_set);
        let texts = BenchTexts::load(file, model.pipeline(), limits.max_text_chars);
        let texts = texts.map_err(ServerError::Configuration)?;
        let clients = usize::from(self.clients);
        let workload = Workload::new(&texts.texts, clients);
        let subject = BenchSubject {
            model: source.name.clone(),
            version: source.version.clone(),
            device: model.placement.device(),
            cores,
            texts: texts.summary,
            cost: CostCoefficients::from_model(&model),
            shares_runs: model.is_batchable(),
            clients,
            seconds: self.seconds,
            latency_target_ms: self.latency_target.as_secs_f64() * 1e3,
        };
        self.print_section(&subject)?;
        let mut bench = Benchmark {
            server_slot: stage,
            model,
            workload,
            max_rows: if gpus > 0 { batching.gpu_limits } else { batching.cpu_limits }.max_rows,
            uses_gpus: gpus > 0,
            measurement_time: Duration::from_secs_f64(self.seconds),
            latency_target: self.latency_target,
            stop: stop.clone(),
            started: (Instant::now(), machine_cpu_time(), process_cpu_time()),
        };
        let (tried, chosen) = bench.search(&usual, |tried| self.print_section(tried))?;
        let bare = EngineBaseline::open(runtime, source, if gpus > 0 { gpus } else { cores.usable });
        let bare = bare.map_err(|error| ServerError::Configuration(error.to_string()))?;
        let results = bench.measure_against_limit(tried, chosen, bare, &texts.encoded)?;
        self.print_section(&results)?;
        if self.output.json { print_json(&BenchReport { subject, results }) } else { Ok(()) }
    }

    /// Says part of the answer to people.
    fn print_section(&self, part: &dyn std::fmt::Display) -> Result<(), ServerError> {
        if self.output.json { Ok(()) } else { print(&escape_lines(&part.to_string())) }
    }
}

/// What to try first on so many GPUs, or on the cores.
fn usual_setups(gpus: usize, cores: Cores, batching: &BatchSettings) -> Vec<Setup> {
    match gpus {
        0 => cpu_setups(cores.usable, batching.cpu_limits.max_tokens),
        _ => gpu_setups(cores.usable, batching.gpu_limits.max_tokens),
    }
}

/// The version that would answer.
fn find_source(settings: &ServerSettings, name: Option<&str>) -> Result<ModelSource, ServerError> {
    let sources =
        models_directory::find_models(&settings.models_dir).map_err(|error| models_option_error(settings, &error))?;
    let mut names: Vec<&str> = sources.iter().map(|source| source.name.as_str()).collect();
    names.sort_unstable();
    names.dedup();
    let none = "it holds no model: a model is a directory NAME/VERSION with a model.onnx in it";
    let first = names.first().copied().ok_or_else(|| models_option_error(settings, none))?;
    let name_or_first = name.unwrap_or(first);
    let versions = sources.iter().filter(|source| source.name == name_or_first);
    let newest = versions.max_by_key(|source| VersionName::new(&source.version)).cloned();
    newest.ok_or_else(|| {
        let names = names.join(", ");
        models_option_error(settings, &format!("it holds no model {name_or_first:?}; those it holds: {names}"))
    })
}
