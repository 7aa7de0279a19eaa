//! The server: everything put together, run, and stopped. With `memory_budget` the only module that sees everything.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::{Duration, Instant};

mod accept_when_ready;
mod assembly;
mod drain;
mod drift_timer;
mod engine_setup;
mod file_signals;
mod gpu_failure;
mod registry_setup;
mod startup_load;

use predictd_engine::Engine;
use predictd_engine::backend::Backend;
use predictd_engine::cache::Cache;
use predictd_engine::execution_group::ExecutionGroup;
use predictd_experiments::receipts::ReceiptKeyring;
use predictd_http::App;
use predictd_http::accept_loop::{StopOutcome, StopSignals, serve};
use predictd_http::connection::ConnectionHandler;
use predictd_http::listeners::{Listener, Listeners};
use predictd_http::process_stall::{self, HEARTBEAT_INTERVAL};
use predictd_http::response_budget::{ADMIN_BUDGET_BYTES, ResponseBudget};
use predictd_http::state::{AppState, ModelState, TelemetryState};
use predictd_http::tls::{self, WatchedTlsConfig};
use predictd_http::watched_keys::WatchedKeys;
use predictd_inference::feedback_service::FeedbackService;
use predictd_inference::{InferenceService, shadow_traffic};
use predictd_metrics::Metrics;
use predictd_onnx::OnnxRuntime;
use predictd_registry::models_directory;
use predictd_telemetry::spans::SpanTracer;
use predictd_text::policy::TextPolicy;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use crate::config::ServerSettings;
use crate::error::ServerError;
use crate::shutdown::{FileSignals, Shutdown};
use crate::{fd_limit, log_summary, memory_budget};
use accept_when_ready::open_when_ready;
pub(crate) use assembly::{ModelSet, models_option_error};
use assembly::{access_state, limit_state, open_models};
use drain::Drain;
pub(crate) use engine_setup::load_context;
pub use engine_setup::scheduler_config;
use gpu_failure::{run_time_limit, stop_on_gpu_failure};
use startup_load::StartupLoad;

/// Longest wait for runs, loads and worker threads once the requests are over.
const WORKER_STOP_TIMEOUT: Duration = Duration::from_millis(500);
/// Connections to the admin listener at a time.
const MAX_ADMIN_CONNECTIONS: usize = 32;
/// Time for the admin listener's own end: it answers until everything else has ended.
const ADMIN_GRACE_PERIOD: Duration = Duration::from_millis(500);

/// More threads than this do not help HTTP: one serves about 100,000 small requests a second.
const MAX_HTTP_THREADS: usize = 16;

/// A server that is ready to run: everything that can be wrong with its configuration was found.
pub struct Server {
    app: App,
    load: StartupLoad,
    tls: Option<WatchedTlsConfig>,
}

impl Server {
    /// Prepares a server that runs its models on ONNX Runtime.
    ///
    /// # Errors
    /// [`ServerError`] in one sentence.
    pub fn prepare(settings: &ServerSettings) -> Result<Self, ServerError> {
        let runtime = OnnxRuntime::from_settings(&settings.onnx_runtime).map_err(ServerError::Configuration)?;
        Self::with_runtime(settings, Arc::new(runtime))
    }

    /// Prepares a server that runs its models on `runtime`.
    ///
    /// # Errors
    /// [`ServerError`] in one sentence.
    pub fn with_runtime(settings: &ServerSettings, runtime: Arc<dyn Backend>) -> Result<Self, ServerError> {
        let sources = models_directory::find_models(&settings.models_dir)
            .map_err(|error| models_option_error(settings, &error))?;
        Self::with_models(settings, runtime, ModelSet::Registry(sources))
    }

    /// Prepares a server of these models. The keys for receipts are opened once nothing else is wrong.
    pub(crate) fn with_models(
        settings: &ServerSettings,
        runtime: Arc<dyn Backend>,
        models: ModelSet,
    ) -> Result<Self, ServerError> {
        let keys = WatchedKeys::open(&settings.access).map_err(ServerError::Configuration)?;
        let metrics = Arc::new(Metrics::new().map_err(ServerError::runtime)?);
        metrics.system.set_data_directory(&settings.data_dir);
        let tls = settings
            .tls
            .as_ref()
            .map(|files| tls::open(files, &metrics))
            .transpose()
            .map_err(ServerError::Configuration)?;
        let traces = settings.traces.as_ref();
        let spans = traces.map(|traces| SpanTracer::start(&traces.endpoint, traces.sampling_share)).transpose();
        let spans = spans.map_err(|error| ServerError::Configuration(format!("--otlp-endpoint: {error}")))?;
        let load_context = load_context(settings, runtime, Arc::clone(&metrics))?;
        let subscriptions = registry_setup::alias_subscriptions(&settings.mlflow)?;
        let (models, sources) = open_models(settings, models, &load_context)?;
        let receipts = Arc::new(open_receipt_keys(settings, &models)?);
        let cache = Cache::new(memory_budget::cache_bytes(settings)).map_err(ServerError::runtime)?;
        let engine =
            Engine::new(settings.limits.max_inflight_items, settings.max_queue_wait, cache, Arc::clone(&metrics));
        let feedback = FeedbackService {
            receipts: Arc::clone(&receipts),
            registry: Arc::clone(&models.registry),
            text_policy: TextPolicy { markup: settings.text_defaults.markup, allowed_characters: None },
            metrics: Arc::clone(&metrics),
            runtime: models
                .registry_runtime
                .as_ref()
                .map(|runtime| runtime.start_feedback(settings.feedback_retention)),
        };
        let inference = InferenceService::new(engine, Arc::clone(&models.registry), receipts, Arc::clone(&metrics));
        let app = AppState {
            models: Arc::new(models),
            inference: Arc::new(inference),
            feedback: Arc::new(feedback),
            access: Arc::new(access_state(settings, keys)),
            limits: Arc::new(limit_state(settings, &metrics)),
            telemetry: Arc::new(TelemetryState { metrics, spans, server_timing: settings.server_timing }),
        };
        let load = StartupLoad { sources, subscriptions, load_context, settings: settings.clone() };
        Ok(Self { app: app.into(), load, tls })
    }

    /// The state that handlers work with.
    #[must_use]
    pub fn app(&self) -> &App {
        &self.app
    }

    /// Has files read or opened again when a signal asks for it, from now on. Must be called where tasks run.
    pub fn watch_file_signals(&self, signals: FileSignals) {
        tokio::spawn(file_signals::watch_file_signals(signals, self.app.clone(), self.tls.clone()));
    }

    /// Loads the models and answers requests on `listeners` until `shutdown`.
    ///
    /// Requests are answered from the start: with 503 for a model that is still being loaded.
    ///
    /// # Errors
    /// [`ServerError::Runtime`] if requests that could have been answered were not.
    pub async fn run(self, listeners: Listeners, shutdown: &Shutdown) -> Result<(), ServerError> {
        let admin_stop = CancellationToken::new();
        let mut admin = self.start_admin_listener(listeners.admin, admin_stop.clone()).map_err(ServerError::runtime)?;
        let Self { app, load, tls } = self;
        let backend = Arc::clone(&load.load_context.backend);
        let gpu_group = load.load_context.gpu_group.clone();
        let gpu_failure = gpu_group.gpu_failure.clone();
        let _background_tasks = spawn_background_tasks(&app, &load.settings, gpu_group, shutdown);
        let drain = Drain::new(&load.settings);
        let mut load = load.start(&app, shutdown.drain.clone());
        let handler = ConnectionHandler::new("data", predictd_http::router(app.clone()), &app, tls);
        let loaded = load.ended.clone();
        let stop_signals = drain.stop_signals(shutdown);
        let serve_data = async {
            let max_connections = fd_limit::raise_fd_limit(app.limits.requests.max_connections);
            match open_when_ready(listeners.data, &app.models.registry, &loaded, &stop_signals).await? {
                Ok(listener) => stop_result(serve(listener, handler, max_connections, stop_signals).await),
                Err(outcome) => stop_result(outcome),
            }
        };
        let result = tokio::select! {
            result = serve_data => result,
            never = drain.run(&app, shutdown) => match never {},
            error = load.fatal_error() => Err(error),
            // Half a server is worse than none: its supervisor restarts it.
            _ = &mut admin => Err(ServerError::Runtime("the admin listener ended by itself".to_owned())),
        };
        // The task of a load that has ended must not be polled again.
        if result.is_ok() && !load.task.is_finished() {
            // Nothing is loaded any more: at most the model whose load had begun.
            tokio::select! {
                _ = &mut load.task => {}
                () = shutdown.abort.cancelled() => {}
                () = tokio::time::sleep(drain.time_left()) => {}
            }
        }
        stop_models(&app, &*backend, load.task).await;
        if !shutdown.abort.is_cancelled() {
            let app = app.clone();
            tokio::task::spawn_blocking(move || app.telemetry.spans.as_ref().map(SpanTracer::shutdown)).await.ok();
        }
        result?;
        if let Some(sentence) = gpu_failure.reason() {
            return Err(ServerError::Runtime(sentence.to_owned()));
        }
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
        listener: Listener,
        stop: CancellationToken,
    ) -> std::io::Result<oneshot::Receiver<()>> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let budget = ResponseBudget::new(ADMIN_BUDGET_BYTES, &self.app.telemetry.metrics);
        let routes = predictd_http::admin_router(self.app.clone(), Arc::clone(&budget));
        let handler = ConnectionHandler { budget, ..ConnectionHandler::new("admin", routes, &self.app, None) };
        let app = self.app.clone();
        let (end_sender, end_receiver) = oneshot::channel();
        let stop_signals =
            StopSignals { drain: stop, drain_timeout: ADMIN_GRACE_PERIOD, abort: CancellationToken::new() };
        std::thread::Builder::new().name("predictd-admin".to_owned()).spawn(move || {
            let served: std::io::Result<()> = runtime.block_on(async {
                let listener = listener.into_current_runtime()?;
                tokio::select! {
                    _ = serve(listener, handler, MAX_ADMIN_CONNECTIONS, stop_signals) => {}
                    never = record_heartbeats(&app) => match never {},
                }
                Ok(())
            });
            if let Err(error) = served {
                tracing::error!(%error, "admin listener failed");
            }
            // Also dropped, and so noticed, if this thread panics.
            end_sender.send(()).ok();
        })?;
        Ok(end_receiver)
    }
}

/// The keys of the operator's own server; a server that only serves models of its own has keys that nothing outlasts.
fn open_receipt_keys(settings: &ServerSettings, models: &ModelState) -> Result<ReceiptKeyring, ServerError> {
    if models.registry_runtime.is_none() {
        return ReceiptKeyring::new_ephemeral().map_err(ServerError::runtime);
    }
    let path = &settings.receipt_key_file;
    ReceiptKeyring::open(path)
        .map_err(|error| ServerError::Configuration(format!("--receipt-keys {}: {error}", path.display())))
}

/// Records that the process runs, on the thread of the admin listener, which only a standstill of the whole process stops.
async fn record_heartbeats(app: &App) -> Infallible {
    loop {
        app.limits.stall_detector.record_heartbeat(Instant::now());
        tokio::time::sleep(HEARTBEAT_INTERVAL).await;
    }
}

/// Starts what runs beside the requests until it is dropped.
fn spawn_background_tasks(
    app: &App,
    settings: &ServerSettings,
    gpu_group: ExecutionGroup,
    shutdown: &Shutdown,
) -> [AbortOnDropHandle<()>; 5] {
    let metrics = &app.telemetry.metrics;
    [
        tokio::spawn(process_stall::monitor_event_loop_lag(Arc::clone(metrics))),
        tokio::spawn(stop_on_gpu_failure(gpu_group, run_time_limit(settings), shutdown.drain.clone())),
        tokio::spawn(shadow_traffic::run_queue(Arc::clone(&app.inference))),
        tokio::spawn(log_summary::log_summaries(
            Arc::clone(metrics),
            settings.log.summary_predictions,
            settings.log.summary_interval,
        )),
        tokio::spawn(drift_timer::close_due_windows(Arc::clone(&app.models.registry))),
    ]
    .map(AbortOnDropHandle::new)
}

/// Ends runs, loads and the registry, within [`WORKER_STOP_TIMEOUT`].
async fn stop_models(app: &App, backend: &dyn Backend, loading: JoinHandle<Result<(), String>>) {
    // The library takes the process down with it if its own end comes in the middle of a run or a load.
    let stop_deadline = Instant::now() + WORKER_STOP_TIMEOUT;
    app.models.begin_model_shutdown();
    backend.shut_down(stop_deadline);
    if !loading.is_finished() {
        tokio::time::timeout_at(stop_deadline.into(), loading).await.ok();
    }
    if let (Some(registry), Some(feedback)) = (&app.models.registry_runtime, &app.feedback.runtime) {
        registry_setup::stop_registry(registry, feedback, stop_deadline).await;
    }
    app.models.registry.close(stop_deadline);
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
