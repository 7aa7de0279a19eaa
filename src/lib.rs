//! `predictd` serves text models over HTTP: one binary, ONNX Runtime inside.
//!
//! # A request's way
//!
//! A connection is accepted in `http::serve`; layers give the request an id, count it and
//! refuse bad bodies; a handler turns JSON into checked types and asks the registry which
//! model version answers. The engine admits the texts (one permit each), tokenises them and
//! puts them into the model's queue. A worker thread, which owns its session, takes a text,
//! runs it and decides. The handler seals a receipt and answers.
//!
//! One direction, one thread boundary: the queue.
//!
//! # Code map
//!
//! - `main.rs`: parse, run, exit code
//! - [`cli`]: the command line; [`config`]: options, checked before anything starts
//! - [`telemetry`]: log lines; [`metrics`]: every metric; [`shutdown`]: signals
//! - [`http`]: routes, layers, wire types, errors
//! - [`engine`]: admission, queue, batching policy, run permits, workers
//! - [`text`]: manifest, tokenizer, tensors, heads: pure
//! - [`onnx`]: ONNX Runtime
//! - [`registry`]: models, versions, which of them answer
//! - [`experiments`]: receipts for predictions
//!
//! # Who may import whom
//!
//! `main` → `lib` (the only module that sees everything); `http` → `engine`, `registry`,
//! `experiments`; `registry` → `engine`; `engine` → `text`; `onnx` implements what
//! `engine::session` declares. `config`, `telemetry`, `metrics` and `shutdown` import nothing
//! of the crate and may be imported by all.
//!
//! # Invariants
//!
//! A test reads `src/` and checks them.
//!
//! - `ort` is imported in `onnx.rs` and under `onnx/` only, `tokenizers` in `text/tokenizer.rs` only.
//! - axum and status codes stay under `http/`.
//! - No clock, no lock, nothing async in `engine/batching.rs` and under `text/`.
//! - The environment is read in `config.rs` only.
//! - No unbounded channel. No `unsafe`.

pub mod cli;
pub mod config;
pub mod engine;
pub mod experiments;
pub mod http;
pub mod metrics;
pub mod onnx;
pub mod registry;
pub mod shutdown;
pub mod telemetry;
pub mod text;

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use tokio::net::TcpListener;

use config::Settings;
use engine::Engine;
use engine::gate::Gate;
use engine::model::{Host, ModelSource};
use engine::session::Runtime;
use experiments::receipts::Receipts;
use http::App;
use http::serve::Stopping;
use metrics::Metrics;
use registry::Registry;
use shutdown::Shutdown;

/// Longest wait for worker threads once all requests are answered.
const WORKER_END: Duration = Duration::from_secs(2);

/// Why a server did not start, or did not end well.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// Something that the operator can change: exit code 64.
    #[error("{0}")]
    Configuration(String),
    /// Anything else: exit code 1.
    #[error("{0}")]
    Failed(String),
}

/// A server that is ready to run: everything that can be wrong with its configuration was found.
pub struct Server {
    app: Arc<App>,
    sources: Vec<ModelSource>,
    host: Host,
    stopping: Stopping,
}

impl Server {
    /// Prepares a server that runs its models on ONNX Runtime.
    ///
    /// # Errors
    /// [`RunError`] in one sentence.
    pub fn prepare(settings: &Settings) -> Result<Self, RunError> {
        let runtime = onnx::OnnxRuntime::start(settings.onnxruntime.as_deref()).map_err(RunError::Configuration)?;
        Self::with_runtime(settings, Arc::new(runtime))
    }

    /// Prepares a server that runs its models on `runtime`.
    ///
    /// # Errors
    /// [`RunError`] in one sentence.
    pub fn with_runtime(settings: &Settings, runtime: Arc<dyn Runtime>) -> Result<Self, RunError> {
        let in_models =
            |error: String| RunError::Configuration(format!("--models {}: {error}", settings.models.display()));
        let sources = registry::directory::find(&settings.models).map_err(in_models)?;
        let registry = Registry::of(&sources, settings.default_model.as_deref()).map_err(in_models)?;
        let keys = &settings.receipt_keys;
        let receipts = Receipts::open(keys)
            .map_err(|error| RunError::Configuration(format!("--receipt-keys {}: {error}", keys.display())))?;
        let metrics = Arc::new(Metrics::new().map_err(|error| RunError::Failed(error.to_string()))?);
        let app = App {
            engine: Engine::new(settings.limits.max_inflight_texts, Arc::clone(&metrics)),
            registry: Arc::new(registry),
            receipts,
            limits: settings.limits,
            metrics: Arc::clone(&metrics),
            draining: AtomicBool::new(false),
        };
        let gate = Arc::new(Gate::new(settings.workers));
        let host = Host { runtime, gate, workers: settings.workers, texts: settings.texts, metrics };
        let stopping = Stopping { drain_delay: settings.drain_delay, grace: settings.grace };
        Ok(Self { app: Arc::new(app), sources, host, stopping })
    }

    /// The state that handlers work with.
    #[must_use]
    pub fn app(&self) -> &Arc<App> {
        &self.app
    }

    /// Loads the models and answers requests on `listener` until `shutdown`.
    ///
    /// Requests are answered from the start: with 503 for a model that is still being loaded.
    ///
    /// # Errors
    /// [`RunError::Failed`] if requests had to be cut off at the end.
    pub async fn run(self, listener: TcpListener, shutdown: &Shutdown) -> Result<(), RunError> {
        let loading = tokio::task::spawn_blocking({
            let (registry, sources, host, stop) =
                (Arc::clone(&self.app.registry), self.sources, self.host, shutdown.soft.clone());
            move || {
                for source in sources {
                    if !stop.is_cancelled() {
                        registry.load(&source, &host);
                    }
                }
            }
        });
        let router = http::router(Arc::clone(&self.app));
        let all_answered = http::serve::serve(listener, router, &self.app, shutdown, self.stopping).await;
        if !all_answered {
            let why =
                if shutdown.hard.is_cancelled() { "it was told to stop at once" } else { "the time to stop was over" };
            return Err(RunError::Failed(format!("{why}: some requests were not answered")));
        }
        // Nothing is loaded any more: at most the model whose load had begun.
        tokio::select! {
            _ = loading => {}
            () = shutdown.hard.cancelled() => {}
            () = tokio::time::sleep(self.stopping.grace) => {}
        }
        self.app.registry.close(Instant::now() + WORKER_END);
        tracing::info!("the server has stopped");
        Ok(())
    }
}
