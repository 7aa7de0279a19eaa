//! `predictd bench`: which options suit a model on this machine, and how far the server is from what the engine can do.
//!
//! - [`args`]: its options
//! - [`texts`]: what is asked
//! - [`setup`]: which options are tried, and which are best (pure); `search`: in which order
//! - [`running`]: a real server in this process; [`clients`]: who asks it
//! - [`limit`]: the engine alone
//! - [`figures`]: from counts to figures (pure); [`machine`]: cores and processor time
//! - [`report`]: what is printed
//!
//! Every set-up is measured twice, the second time in the opposite order, and the limit in turns with the one that is
//! found: what the machine does beside it does not fall on one of them. One server is loaded at a time.

pub mod args;
pub mod clients;
pub mod figures;
pub mod limit;
pub mod machine;
pub mod report;
pub mod running;
mod search;
pub mod setup;
pub mod texts;

use std::io::Write;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;

use crate::RunError;
use crate::config::Settings;
use crate::descriptors::make_room;
use crate::engine::loading::ModelSource;
use crate::engine::session::Runtime;
use crate::onnx::OnnxRuntime;
use crate::registry::directory;
use crate::registry::version::Version;
use crate::server::in_models;
use crate::shutdown::Shutdown;
use crate::terminal::{escaped_json, escaped_lines};
use args::BenchCommand;
use limit::Bare;
use machine::{Cores, machine_time, process_time};
use report::{CostModel, Report, Subject};
use running::{Asked, Stage};
use search::Bench;
use setup::{on_gpus, sessions_and_threads};
use texts::Texts;

/// Time for runs to end when the benchmark is interrupted.
const END: Duration = Duration::from_millis(500);

fn interrupted() -> RunError {
    RunError::Failed("the benchmark was interrupted".to_owned())
}

fn on_output(error: &std::io::Error) -> RunError {
    RunError::Failed(format!("standard output: {error}"))
}

impl BenchCommand {
    /// Measures, and says on standard output what came of it.
    ///
    /// # Errors
    /// [`RunError`] in one sentence.
    pub fn run(&self) -> Result<(), RunError> {
        let settings = self.settings()?;
        let source = find(&settings, self.model.as_deref().filter(|name| !name.is_empty()))?;
        let failed = |error: std::io::Error| RunError::Failed(error.to_string());
        let signals = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("predictd-signals")
            .enable_all()
            .build()
            .map_err(failed)?;
        let stop = signals.block_on(async { Shutdown::on_signals() }).map_err(failed)?.soft;
        let runtime = OnnxRuntime::for_server(&settings).map_err(RunError::Configuration)?;
        let runtime: Arc<dyn Runtime> = Arc::new(runtime.with_threads(1, false));
        signals.spawn({
            let (stop, runtime) = (stop.clone(), Arc::clone(&runtime));
            async move {
                stop.cancelled().await;
                runtime.end(Instant::now() + END);
            }
        });
        // Both ends of every connection are in this process.
        _ = make_room(2 * usize::from(self.clients) + settings.limits.max_connections);
        let outcome = self.measure(settings, &source, &runtime, &stop);
        // The library takes the process down with it if its own end comes in the middle of a run.
        runtime.end(Instant::now() + END);
        // A run that was ended is an error too: why it was says more.
        if stop.is_cancelled() { Err(interrupted()) } else { outcome }
    }

    fn measure(
        &self,
        settings: Settings,
        source: &ModelSource,
        runtime: &Arc<dyn Runtime>,
        stop: &CancellationToken,
    ) -> Result<(), RunError> {
        let cores = Cores::find();
        let (on_cores, on_gpu) = (settings.runs.tokens, settings.runs.on_gpu.tokens);
        let usual = |gpus| match gpus {
            0 => sessions_and_threads(cores.usable, on_cores),
            _ => on_gpus(cores.usable, on_gpu),
        };
        let first = usual(runtime.gpus()).first().copied().ok_or_else(interrupted)?;
        let (limits, runs) = (settings.limits, settings.runs);
        let mut stage = Stage::new(settings, source.clone(), stop.clone());
        let mut model = Arc::clone(stage.server(first)?.model());
        // It may run on the cores although there are GPUs.
        let gpus = model.placement().gpus.len();
        let usual = usual(gpus);
        if gpus == 0 && runtime.gpus() > 0 {
            let first = usual.first().copied().ok_or_else(interrupted)?;
            model = Arc::clone(stage.server(first)?.model());
        }
        // Container files set variables to nothing to mean "not set".
        let file = self.texts.as_deref().filter(|path| !path.as_os_str().is_empty());
        let texts = Texts::find(file, model.pipeline(), limits.max_text_chars);
        let texts = texts.map_err(RunError::Configuration)?;
        let (clients, seconds) = (usize::from(self.clients), Duration::from_secs_f64(self.seconds));
        let asked = Asked::of(&texts.texts, clients);
        let subject = Subject {
            model: source.name.clone(),
            version: source.version.clone(),
            device: model.device().to_owned(),
            cores,
            texts: texts.summary.clone(),
            cost: CostModel::of(&model),
            shares_runs: model.shares_runs(),
            clients,
            seconds: self.seconds,
            latency_target_ms: self.latency_target.as_secs_f64() * 1e3,
        };
        self.say(&subject)?;
        let target = self.latency_target;
        let since = (Instant::now(), machine_time(), process_time());
        let most_rows = if gpus > 0 { runs.on_gpu.texts } else { runs.texts };
        let (on_gpus, stop) = (gpus > 0, stop.clone());
        let mut bench = Bench { stage, model, asked, most_rows, on_gpus, seconds, target, stop, since };
        let (tried, chosen) = bench.search(&usual, |tried| self.say(tried))?;
        let bare = Bare::open(runtime, source, if gpus > 0 { gpus } else { cores.usable });
        let bare = bare.map_err(|error| RunError::Configuration(error.to_string()))?;
        let found = bench.found(tried, chosen, bare, &texts.encoded)?;
        self.say(&found)?;
        if self.json {
            let json = serde_json::to_string(&Report { subject, found });
            let json = json.map_err(|error| RunError::Failed(error.to_string()))?;
            writeln!(std::io::stdout().lock(), "{}", escaped_json(&json)).map_err(|error| on_output(&error))?;
        }
        Ok(())
    }

    /// Says part of the answer to people.
    fn say(&self, part: &dyn std::fmt::Display) -> Result<(), RunError> {
        if self.json {
            return Ok(());
        }
        let mut out = std::io::stdout().lock();
        let part = part.to_string();
        write!(out, "{}", escaped_lines(&part)).and_then(|()| out.flush()).map_err(|error| on_output(&error))
    }
}

/// The version that would answer.
fn find(settings: &Settings, name: Option<&str>) -> Result<ModelSource, RunError> {
    let sources = directory::find(&settings.models).map_err(|error| in_models(settings, &error))?;
    let mut names: Vec<&str> = sources.iter().map(|source| source.name.as_str()).collect();
    names.sort_unstable();
    names.dedup();
    let none = "it holds no model: a model is a directory NAME/VERSION with a model.onnx in it";
    let first = names.first().copied().ok_or_else(|| in_models(settings, none))?;
    let wanted = name.unwrap_or(first);
    let versions = sources.iter().filter(|source| source.name == wanted);
    let newest = versions.max_by_key(|source| Version::new(&source.version)).cloned();
    newest.ok_or_else(|| {
        in_models(settings, &format!("it holds no model {wanted:?}; those it holds: {}", names.join(", ")))
    })
}
