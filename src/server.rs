//! The server: everything put together, run, and stopped. With `ceiling` the only module that sees everything.

use std::convert::Infallible;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

mod accept_when_ready;
mod drift_timer;
mod engine_setup;
mod file_signals;
mod gpu_failure;
mod registry_setup;

use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use crate::config::{EXIT_CONFIGURATION, ServerSettings, TraceSettings};
use crate::engine::Engine;
use crate::engine::backend::Backend;
use crate::engine::cache::Cache;
use crate::engine::load_context::LoadContext;
use crate::engine::model_source::ModelSource;
use crate::experiments::receipts::ReceiptKeyring;
use crate::http::App;
use crate::http::accept_loop::{StopOutcome, StopSignals, serve};
use crate::http::admin_guard::AdminHosts;
use crate::http::auth::ApiKeys;
use crate::http::body::BodyMemory;
use crate::http::connection::ConnectionHandler;
use crate::http::process_stall::{self, HEARTBEAT_INTERVAL, StallDetector};
use crate::http::rate_limit::RateLimits;
use crate::http::response_budget::ResponseBudget;
use crate::http::shadow_traffic::{self, ShadowQueue};
use crate::http::tls::{self, WatchedTlsConfig};
use crate::listeners::{BoundListener, Listeners};
use crate::metrics::Metrics;
use crate::registry::service::AliasSubscription;
use crate::registry::{Registry, Snapshot};
use crate::shutdown::{FileSignals, Shutdown};
use crate::telemetry::spans::SpanTracer;
use crate::text::policy::TextPolicy;
use crate::{fd_limit, http, log_summary, memory_budget, onnx, registry};
pub(crate) use engine_setup::load_context;
pub use engine_setup::scheduler_config;

/// Longest wait for runs, loads and worker threads once the requests are over.
const WORKER_STOP_TIMEOUT: Duration = Duration::from_millis(500);
/// How long before the end of the grace time requests without an answer are told that there will be none.
const ABORT_LEAD_TIME: Duration = Duration::from_secs(1);
/// Connections to the admin listener at a time.
const MAX_ADMIN_CONNECTIONS: usize = 32;
/// Time for the admin listener's own end: it answers until everything else has ended.
const ADMIN_GRACE_PERIOD: Duration = Duration::from_millis(500);

/// More threads than this do not help HTTP: one serves about 100,000 small requests a second.
const MAX_HTTP_THREADS: usize = 16;

/// Why a server did not start, or did not end well.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    /// Something that the operator can change: exit code 64.
    #[error("{0}")]
    Configuration(String),
    /// The same of several options, a sentence each.
    #[error("{}", .0.join("; "))]
    ConfigurationList(Vec<String>),
    /// Anything else: exit code 1.
    #[error("{0}")]
    Runtime(String),
}

impl ServerError {
    /// What went wrong, one sentence for each thing.
    #[must_use]
    pub fn messages(&self) -> &[String] {
        match self {
            Self::Configuration(sentence) | Self::Runtime(sentence) => std::slice::from_ref(sentence),
            Self::ConfigurationList(sentences) => sentences,
        }
    }

    /// The exit code of a process that ends with it.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Configuration(_) | Self::ConfigurationList(_) => EXIT_CONFIGURATION,
            Self::Runtime(_) => 1,
        }
    }
}

/// Which models a server has.
pub(crate) enum ModelSet {
    /// These.
    Fixed(Vec<ModelSource>),
    /// Those that are recorded, to which these are added: the operator's own.
    Registry(Vec<ModelSource>),
}

/// A server that is ready to run: everything that can be wrong with its configuration was found.
pub struct Server {
    app: Arc<App>,
    sources: Vec<ModelSource>,
    subscriptions: Vec<AliasSubscription>,
    load_context: LoadContext,
    tls: Option<WatchedTlsConfig>,
    settings: ServerSettings,
}

impl Server {
    /// Prepares a server that runs its models on ONNX Runtime.
    ///
    /// # Errors
    /// [`ServerError`] in one sentence.
    pub fn prepare(settings: &ServerSettings) -> Result<Self, ServerError> {
        let runtime = onnx::OnnxRuntime::from_settings(settings).map_err(ServerError::Configuration)?;
        Self::with_runtime(settings, Arc::new(runtime))
    }

    /// Prepares a server that runs its models on `runtime`.
    ///
    /// # Errors
    /// [`ServerError`] in one sentence.
    pub fn with_runtime(settings: &ServerSettings, runtime: Arc<dyn Backend>) -> Result<Self, ServerError> {
        let sources = registry::models_directory::find_models(&settings.models_dir)
            .map_err(|error| models_option_error(settings, &error))?;
        let path = &settings.receipt_key_file;
        let wrong = |error| ServerError::Configuration(format!("--receipt-keys {}: {error}", path.display()));
        Self::with_models(settings, runtime, ModelSet::Registry(sources), || ReceiptKeyring::open(path).map_err(wrong))
    }

    /// Prepares a server of these models, with keys for receipts that are opened once nothing else is wrong.
    pub(crate) fn with_models(
        settings: &ServerSettings,
        runtime: Arc<dyn Backend>,
        content: ModelSet,
        receipts: impl FnOnce() -> Result<ReceiptKeyring, ServerError>,
    ) -> Result<Self, ServerError> {
        let keys = ApiKeys::open(settings).map_err(ServerError::Configuration)?;
        let metrics = Arc::new(Metrics::new().map_err(|error| ServerError::Runtime(error.to_string()))?);
        metrics.system.set_data_directory(&settings.data_dir);
        let tls = settings
            .tls
            .as_ref()
            .map(|files| tls::open(files, &metrics))
            .transpose()
            .map_err(ServerError::Configuration)?;
        let start = |traces: &TraceSettings| SpanTracer::start(&traces.endpoint, traces.sampling_share);
        let spans = settings.traces.as_ref().map(start).transpose();
        let spans = spans.map_err(|error| ServerError::Configuration(format!("--otlp-endpoint: {error}")))?;
        let host = load_context(settings, runtime, Arc::clone(&metrics))?;
        let followed = registry_setup::alias_subscriptions(&settings.mlflow)?;
        let (registry, keeping, sources) = match content {
            ModelSet::Fixed(sources) => {
                let registry = Registry::from_sources(&sources, settings.default_model.as_deref());
                (Arc::new(registry.map_err(|error| models_option_error(settings, &error))?), None, sources)
            }
            ModelSet::Registry(sources) => {
                let keeping = registry_setup::open_registry(settings, host.clone(), sources)?;
                (Arc::clone(keeping.service().registry()), Some(keeping), Vec::new())
            }
        };
        let receipts = receipts()?;
        let cache = Cache::new(memory_budget::cache_bytes(settings))
            .map_err(|error| ServerError::Runtime(error.to_string()))?;
        let (most, longest) = (settings.limits.max_inflight_items, settings.max_queue_wait);
        let app = App {
            engine: Engine::new(most, longest, cache, Arc::clone(&metrics)),
            registry,
            registry_runtime: keeping,
            shadow_queue: ShadowQueue::default(),
            receipts,
            keys,
            rate_limits: RateLimits::new(settings.rate_limit),
            admin_hosts: AdminHosts::from_settings(settings),
            cors_origins: settings.cors_origins.clone(),
            trusted_proxies: settings.trusted_proxies.clone(),
            limits: settings.limits,
            text_policy: TextPolicy { markup: settings.text_defaults.markup, allowed_characters: None },
            body_memory: BodyMemory::new(&settings.limits),
            response_budget: ResponseBudget::new(memory_budget::response_memory(settings), &metrics),
            client_timeouts: settings.client_timeouts,
            metrics: Arc::clone(&metrics),
            draining: AtomicBool::new(false),
            server_timing: settings.server_timing,
            spans,
            stall_detector: StallDetector::default(),
        };
        Ok(Self {
            app: Arc::new(app),
            sources,
            subscriptions: followed,
            load_context: host,
            tls,
            settings: settings.clone(),
        })
    }

    /// The state that handlers work with.
    #[must_use]
    pub fn app(&self) -> &Arc<App> {
        &self.app
    }

    /// Has files read or opened again when a signal asks for it, from now on. Must be called where tasks run.
    pub fn watch_file_signals(&self, signals: FileSignals) {
        tokio::spawn(file_signals::watch_file_signals(signals, Arc::clone(&self.app), self.tls.clone()));
    }

    /// Loads the models and answers requests on `listeners` until `shutdown`.
    ///
    /// Requests are answered from the start: with 503 for a model that is still being loaded.
    ///
    /// # Errors
    /// [`ServerError::Runtime`] if requests that could have been answered were not.
    #[expect(clippy::too_many_lines, reason = "is split with its circle of imports")]
    pub async fn run(self, listeners: Listeners, shutdown: &Shutdown) -> Result<(), ServerError> {
        let failed = |error: std::io::Error| ServerError::Runtime(error.to_string());
        let admin_stop = CancellationToken::new();
        let mut admin = self.start_admin_listener(listeners.admin, admin_stop.clone()).map_err(failed)?;
        let (runtime, lost) = (Arc::clone(&self.load_context.backend), self.load_context.gpu_group.gpu_failure.clone());
        let losses = gpu_failure::stop_on_gpu_failure(
            self.load_context.gpu_group.clone(),
            gpu_failure::run_time_limit(&self.settings),
            shutdown.drain.clone(),
        );
        let (drain_delay, grace) = (self.settings.drain_delay, self.settings.drain_timeout);
        let (unfit, is_unfit) = oneshot::channel();
        let loaded = CancellationToken::new();
        let mut loading = tokio::spawn({
            let (app, sources, host, stop, settings) =
                (Arc::clone(&self.app), self.sources, self.load_context, shutdown.drain.clone(), self.settings.clone());
            let (followed, loaded, begun_with) = (self.subscriptions, loaded.clone(), self.app.registry.snapshot());
            async move {
                // However it ends.
                let _loaded = loaded.drop_guard();
                let registry = Arc::clone(&app.registry);
                if let Some(keeping) = &app.registry_runtime {
                    registry_setup::load_models(keeping, followed, &stop).await;
                } else {
                    let load = move || {
                        // Why one is not loaded is in the log and in its state.
                        sources.iter().filter(|_| !stop.is_cancelled()).for_each(|s| _ = registry.load(s, &host));
                    };
                    tokio::task::spawn_blocking(load).await.ok();
                }
                if let Err(sentence) = check_loaded_models(&settings, &begun_with, &app.registry) {
                    // Nobody listens any more if the server has stopped meanwhile.
                    unfit.send(sentence).ok();
                }
            }
        });
        let _lag =
            AbortOnDropHandle::new(tokio::spawn(process_stall::monitor_event_loop_lag(Arc::clone(&self.app.metrics))));
        let _losses = AbortOnDropHandle::new(tokio::spawn(losses));
        let _shadows = AbortOnDropHandle::new(tokio::spawn(shadow_traffic::run_queue(Arc::clone(&self.app))));
        let _summaries = AbortOnDropHandle::new(tokio::spawn(log_summary::log_summaries(
            Arc::clone(&self.app.metrics),
            self.settings.log.summary_schedule,
        )));
        let _windows =
            AbortOnDropHandle::new(tokio::spawn(drift_timer::close_due_windows(Arc::clone(&self.app.registry))));
        let front = ConnectionHandler::new("data", http::router(Arc::clone(&self.app)), &self.app, self.tls);
        let connections = fd_limit::raise_fd_limit(self.app.limits.max_connections);
        let stop = CancellationToken::new();
        let stopped = OnceLock::new();
        let drain = async {
            shutdown.drain.cancelled().await;
            self.app.draining.store(true, Ordering::Relaxed);
            tracing::info!("shutdown requested; draining");
            tokio::time::sleep(drain_delay).await;
            stopped.get_or_init(Instant::now);
            stop.cancel();
            tokio::time::sleep(grace.saturating_sub(ABORT_LEAD_TIME.min(grace / 4))).await;
            self.app.engine.abort();
            self.app.response_budget.close();
            std::future::pending::<Infallible>().await
        };
        let end = StopSignals { drain: stop.clone(), drain_timeout: grace, abort: shutdown.abort.clone() };
        let served = async {
            match accept_when_ready::open_when_ready(listeners.data, &self.app.registry, &loaded, &end).await? {
                Ok(listener) => stop_result(serve(listener, front, connections, end).await),
                Err(ended) => stop_result(ended),
            }
        };
        let ended = tokio::select! {
            ended = served => ended,
            never = drain => match never {},
            sentence = receive_or_pend(is_unfit) => Err(ServerError::Configuration(sentence)),
            // Half a server is worse than none: whoever watches it starts it anew.
            _ = &mut admin => Err(ServerError::Runtime("the admin listener ended by itself".to_owned())),
        };
        if ended.is_ok() {
            // Nothing is loaded any more: at most the model whose load had begun.
            let left = stopped.get().map_or(Duration::ZERO, |at: &Instant| grace.saturating_sub(at.elapsed()));
            tokio::select! {
                _ = &mut loading => {}
                () = shutdown.abort.cancelled() => {}
                () = tokio::time::sleep(left) => {}
            }
        }
        // The library takes the process down with it if its own end comes in the middle of a run or a load.
        let rest = Instant::now() + WORKER_STOP_TIMEOUT;
        self.app.begin_model_shutdown();
        runtime.shut_down(rest);
        if !loading.is_finished() {
            tokio::time::timeout_at(rest.into(), loading).await.ok();
        }
        if let Some(keeping) = &self.app.registry_runtime {
            registry_setup::stop_registry(keeping, rest).await;
        }
        self.app.registry.close(rest);
        if !shutdown.abort.is_cancelled() {
            let app = Arc::clone(&self.app);
            tokio::task::spawn_blocking(move || app.spans.as_ref().map(SpanTracer::shutdown)).await.ok();
        }
        ended?;
        lost.reason().map_or(Ok(()), |sentence| Err(ServerError::Runtime(sentence.to_owned())))?;
        if shutdown.abort.is_cancelled() {
            return stop_result(StopOutcome::Aborted);
        }
        admin_stop.cancel();
        admin.await.ok();
        tracing::info!("server stopped");
        Ok(())
    }

    /// Serves the admin listener on a thread of its own: it answers when all others are busy.
    fn start_admin_listener(
        &self,
        listener: BoundListener,
        stop: CancellationToken,
    ) -> std::io::Result<oneshot::Receiver<()>> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let budget = ResponseBudget::new_admin(&self.app.metrics);
        let routes = http::admin_router(Arc::clone(&self.app), Arc::clone(&budget));
        let front = ConnectionHandler::new("admin", routes, &self.app, None).with_budget(budget);
        let app = Arc::clone(&self.app);
        let (ended, end_seen) = oneshot::channel();
        let end = StopSignals { drain: stop, drain_timeout: ADMIN_GRACE_PERIOD, abort: CancellationToken::new() };
        let serve = move || {
            let served = runtime.block_on(async {
                let listener = listener.into_listener()?;
                // On this thread, which only a standstill of the whole process stops.
                let beat = async {
                    loop {
                        app.stall_detector.record_heartbeat(Instant::now());
                        tokio::time::sleep(HEARTBEAT_INTERVAL).await;
                    }
                };
                tokio::select! {
                    _ = serve(listener, front, MAX_ADMIN_CONNECTIONS, end) => {}
                    () = beat => {}
                }
                std::io::Result::Ok(())
            });
            if let Err(error) = served {
                tracing::error!(%error, "admin listener failed");
            }
            // Also dropped, and so noticed, if this thread panics.
            ended.send(()).ok();
        };
        std::thread::Builder::new().name("predictd-admin".to_owned()).spawn(serve)?;
        Ok(end_seen)
    }
}

/// What is said; nothing for ever if nobody says anything any more.
async fn receive_or_pend(said: oneshot::Receiver<String>) -> String {
    match said.await {
        Ok(sentence) => sentence,
        Err(_) => std::future::pending().await,
    }
}

/// Whether a server can go on with what was loaded. What came meanwhile ends no server.
fn check_loaded_models(settings: &ServerSettings, begun_with: &Snapshot, registry: &Registry) -> Result<(), String> {
    let loaded = registry.snapshot();
    loaded.fatal_load_failure(begun_with).map_or(Ok(()), |sentence| Err(sentence.to_owned()))?;
    memory_budget::check_budget(settings, loaded.ready_models())
}

pub(crate) fn models_option_error(settings: &ServerSettings, error: &str) -> ServerError {
    ServerError::Configuration(format!("--models {}: {error}", settings.models_dir.display()))
}

/// The threads that a server's connections and handlers run on.
///
/// # Errors
/// If the operating system gives no thread.
pub fn http_runtime(settings: &ServerSettings) -> std::io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread()
        // Runs have threads of their own, but cheap models are run on these.
        .worker_threads(settings.workers.min(MAX_HTTP_THREADS))
        .max_blocking_threads(settings.workers.max(2))
        .thread_name("predictd-http")
        .enable_all()
        .build()
}

fn stop_result(ended: StopOutcome) -> Result<(), ServerError> {
    let reason = match ended {
        StopOutcome::Drained => return Ok(()),
        StopOutcome::Unanswered(requests) => {
            format!("the time to stop was over: {requests} requests were not answered")
        }
        StopOutcome::Aborted => "it was told to stop at once: requests may be unanswered".to_owned(),
    };
    Err(ServerError::Runtime(reason))
}
