//! The server: everything put together, run, and stopped. With `ceiling` the only module that sees everything.

use std::convert::Infallible;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

mod hosting;
mod losses;
mod opening;
mod recorded;
mod signals;
mod windows;

use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use crate::config::{EXIT_CONFIGURATION, Settings, Traces};
use crate::engine::Engine;
use crate::engine::cache::Cache;
use crate::engine::loading::{Host, ModelSource};
use crate::engine::session::Runtime;
use crate::experiments::receipts::Receipts;
use crate::http::App;
use crate::http::admin_guard::AdminHosts;
use crate::http::auth::Keys;
use crate::http::body::BodyMemory;
use crate::http::connection::Front;
use crate::http::rate_limit::RateLimits;
use crate::http::response_budget::ResponseBudget;
use crate::http::serve::{End, Ended, serve};
use crate::http::shadow::{self, Shadows};
use crate::http::standstill::{self, BEAT, Standstill};
use crate::http::tls::{self, Tls};
use crate::listeners::{Bound, Listeners};
use crate::metrics::Metrics;
use crate::registry::keeper::Following;
use crate::registry::{Registry, Snapshot};
use crate::shutdown::{FileSignals, Shutdown};
use crate::telemetry::spans::Spans;
use crate::text::policy::TextPolicy;
use crate::{ceiling, descriptors, http, onnx, registry, summary};
pub(crate) use hosting::host;
pub use hosting::rules;

/// Longest wait for runs, loads and worker threads once the requests are over.
const WORKER_END: Duration = Duration::from_millis(500);
/// How long before the end of the grace time requests without an answer are told that there will be none.
const LAST_WORDS: Duration = Duration::from_secs(1);
/// Connections to the admin listener at a time.
const ADMIN_CONNECTIONS: usize = 32;
/// Time for the admin listener's own end: it answers until everything else has ended.
const ADMIN_GRACE: Duration = Duration::from_millis(500);

/// More threads than this do not help HTTP: one serves about 100,000 small requests a second.
const MAX_HTTP_THREADS: usize = 16;

/// Why a server did not start, or did not end well.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// Something that the operator can change: exit code 64.
    #[error("{0}")]
    Configuration(String),
    /// The same of several options, a sentence each.
    #[error("{}", .0.join("; "))]
    Options(Vec<String>),
    /// Anything else: exit code 1.
    #[error("{0}")]
    Failed(String),
}

impl RunError {
    /// What went wrong, one sentence for each thing.
    #[must_use]
    pub fn sentences(&self) -> &[String] {
        match self {
            Self::Configuration(sentence) | Self::Failed(sentence) => std::slice::from_ref(sentence),
            Self::Options(sentences) => sentences,
        }
    }

    /// The exit code of a process that ends with it.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Configuration(_) | Self::Options(_) => EXIT_CONFIGURATION,
            Self::Failed(_) => 1,
        }
    }
}

/// Which models a server has.
pub(crate) enum Content {
    /// These.
    Only(Vec<ModelSource>),
    /// Those that are recorded, to which these are added: the operator's own.
    Recorded(Vec<ModelSource>),
}

/// A server that is ready to run: everything that can be wrong with its configuration was found.
pub struct Server {
    app: Arc<App>,
    sources: Vec<ModelSource>,
    followed: Vec<Following>,
    host: Host,
    tls: Option<Tls>,
    settings: Settings,
}

impl Server {
    /// Prepares a server that runs its models on ONNX Runtime.
    ///
    /// # Errors
    /// [`RunError`] in one sentence.
    pub fn prepare(settings: &Settings) -> Result<Self, RunError> {
        let runtime = onnx::OnnxRuntime::for_server(settings).map_err(RunError::Configuration)?;
        Self::with_runtime(settings, Arc::new(runtime))
    }

    /// Prepares a server that runs its models on `runtime`.
    ///
    /// # Errors
    /// [`RunError`] in one sentence.
    pub fn with_runtime(settings: &Settings, runtime: Arc<dyn Runtime>) -> Result<Self, RunError> {
        let sources = registry::directory::find(&settings.models).map_err(|error| in_models(settings, &error))?;
        let path = &settings.receipt_keys;
        let wrong = |error| RunError::Configuration(format!("--receipt-keys {}: {error}", path.display()));
        Self::of(settings, runtime, Content::Recorded(sources), || Receipts::open(path).map_err(wrong))
    }

    /// Prepares a server of these models, with keys for receipts that are opened once nothing else is wrong.
    pub(crate) fn of(
        settings: &Settings,
        runtime: Arc<dyn Runtime>,
        content: Content,
        receipts: impl FnOnce() -> Result<Receipts, RunError>,
    ) -> Result<Self, RunError> {
        let keys = Keys::open(settings).map_err(RunError::Configuration)?;
        let metrics = Arc::new(Metrics::new().map_err(|error| RunError::Failed(error.to_string()))?);
        metrics.machine.look_at(&settings.data_dir);
        let tls = settings
            .tls
            .as_ref()
            .map(|files| tls::open(files, &metrics))
            .transpose()
            .map_err(RunError::Configuration)?;
        let start = |traces: &Traces| Spans::start(&traces.endpoint, traces.share);
        let spans = settings.traces.as_ref().map(start).transpose();
        let spans = spans.map_err(|error| RunError::Configuration(format!("--otlp-endpoint: {error}")))?;
        let host = host(settings, runtime, Arc::clone(&metrics))?;
        let followed = recorded::followed(&settings.mlflow)?;
        let (registry, keeping, sources) = match content {
            Content::Only(sources) => {
                let registry = Registry::of(&sources, settings.default_model.as_deref());
                (Arc::new(registry.map_err(|error| in_models(settings, &error))?), None, sources)
            }
            Content::Recorded(sources) => {
                let keeping = recorded::open(settings, host.clone(), sources)?;
                (Arc::clone(keeping.keeper().registry()), Some(keeping), Vec::new())
            }
        };
        let receipts = receipts()?;
        let cache = Cache::new(ceiling::cache_bytes(settings)).map_err(|error| RunError::Failed(error.to_string()))?;
        let (most, longest) = (settings.limits.max_inflight_texts, settings.max_wait);
        let app = App {
            engine: Engine::new(most, longest, cache, Arc::clone(&metrics)),
            registry,
            keeping,
            shadows: Shadows::default(),
            receipts,
            keys,
            rate_limits: RateLimits::new(settings.rate_limit),
            admin_hosts: AdminHosts::of(settings),
            cors_origins: settings.cors_origins.clone(),
            trusted_proxies: settings.trusted_proxies.clone(),
            limits: settings.limits,
            text_policy: TextPolicy { markup: settings.texts.markup, allowed: None },
            body_memory: BodyMemory::new(&settings.limits),
            responses: ResponseBudget::new(ceiling::response_memory(settings), &metrics),
            patience: settings.patience,
            metrics: Arc::clone(&metrics),
            draining: AtomicBool::new(false),
            server_timing: settings.server_timing,
            spans,
            standstill: Standstill::default(),
        };
        Ok(Self { app: Arc::new(app), sources, followed, host, tls, settings: settings.clone() })
    }

    /// The state that handlers work with.
    #[must_use]
    pub fn app(&self) -> &Arc<App> {
        &self.app
    }

    /// Has files read or opened again when a signal asks for it, from now on. Must be called where tasks run.
    pub fn follow(&self, signals: FileSignals) {
        tokio::spawn(signals::follow(signals, Arc::clone(&self.app), self.tls.clone()));
    }

    /// Loads the models and answers requests on `listeners` until `shutdown`.
    ///
    /// Requests are answered from the start: with 503 for a model that is still being loaded.
    ///
    /// # Errors
    /// [`RunError::Failed`] if requests that could have been answered were not.
    pub async fn run(self, listeners: Listeners, shutdown: &Shutdown) -> Result<(), RunError> {
        let failed = |error: std::io::Error| RunError::Failed(error.to_string());
        let admin_stop = CancellationToken::new();
        let mut admin = self.start_admin(listeners.admin, admin_stop.clone()).map_err(failed)?;
        let (runtime, lost) = (Arc::clone(&self.host.runtime), self.host.gpus.lost.clone());
        let losses = losses::watch(self.host.gpus.clone(), losses::longest_run(&self.settings), shutdown.soft.clone());
        let (drain_delay, grace) = (self.settings.drain_delay, self.settings.grace);
        let (unfit, is_unfit) = oneshot::channel();
        let loaded = CancellationToken::new();
        let mut loading = tokio::spawn({
            let (app, sources, host, stop, settings) =
                (Arc::clone(&self.app), self.sources, self.host, shutdown.soft.clone(), self.settings.clone());
            let (followed, loaded, begun_with) = (self.followed, loaded.clone(), self.app.registry.snapshot());
            async move {
                // However it ends.
                let _loaded = loaded.drop_guard();
                let registry = Arc::clone(&app.registry);
                if let Some(keeping) = &app.keeping {
                    recorded::load(keeping, followed, &stop).await;
                } else {
                    let load = move || {
                        // Why one is not loaded is in the log and in its state.
                        sources.iter().filter(|_| !stop.is_cancelled()).for_each(|s| _ = registry.load(s, &host));
                    };
                    tokio::task::spawn_blocking(load).await.ok();
                }
                if let Err(sentence) = check_loaded(&settings, &begun_with, &app.registry) {
                    // Nobody listens any more if the server has stopped meanwhile.
                    unfit.send(sentence).ok();
                }
            }
        });
        let _lag = AbortOnDropHandle::new(tokio::spawn(standstill::watch_lag(Arc::clone(&self.app.metrics))));
        let _losses = AbortOnDropHandle::new(tokio::spawn(losses));
        let _shadows = AbortOnDropHandle::new(tokio::spawn(shadow::show(Arc::clone(&self.app))));
        let _summaries = AbortOnDropHandle::new(tokio::spawn(summary::log(
            Arc::clone(&self.app.metrics),
            self.settings.log.summaries,
        )));
        let _windows = AbortOnDropHandle::new(tokio::spawn(windows::close_when_due(Arc::clone(&self.app.registry))));
        let front = Front::new("data", http::router(Arc::clone(&self.app)), &self.app, self.tls);
        let connections = descriptors::make_room(self.app.limits.max_connections);
        let stop = CancellationToken::new();
        let stopped = OnceLock::new();
        let drain = async {
            shutdown.soft.cancelled().await;
            self.app.draining.store(true, Ordering::Relaxed);
            tracing::info!("the server was told to stop: it is not ready any more");
            tokio::time::sleep(drain_delay).await;
            stopped.get_or_init(Instant::now);
            stop.cancel();
            tokio::time::sleep(grace.saturating_sub(LAST_WORDS.min(grace / 4))).await;
            self.app.engine.give_up();
            self.app.responses.close();
            std::future::pending::<Infallible>().await
        };
        let end = End { stop: stop.clone(), grace, at_once: shutdown.hard.clone() };
        let served = async {
            match opening::opened(listeners.data, &self.app.registry, &loaded, &end).await? {
                Ok(listener) => outcome(serve(listener, front, connections, end).await),
                Err(ended) => outcome(ended),
            }
        };
        let ended = tokio::select! {
            ended = served => ended,
            never = drain => match never {},
            sentence = told(is_unfit) => Err(RunError::Configuration(sentence)),
            // Half a server is worse than none: whoever watches it starts it anew.
            _ = &mut admin => Err(RunError::Failed("the admin listener ended by itself".to_owned())),
        };
        if ended.is_ok() {
            // Nothing is loaded any more: at most the model whose load had begun.
            let left = stopped.get().map_or(Duration::ZERO, |at: &Instant| grace.saturating_sub(at.elapsed()));
            tokio::select! {
                _ = &mut loading => {}
                () = shutdown.hard.cancelled() => {}
                () = tokio::time::sleep(left) => {}
            }
        }
        // The library takes the process down with it if its own end comes in the middle of a run or a load.
        let rest = Instant::now() + WORKER_END;
        self.app.let_models_go();
        runtime.end(rest);
        if !loading.is_finished() {
            tokio::time::timeout_at(rest.into(), loading).await.ok();
        }
        if let Some(keeping) = &self.app.keeping {
            recorded::end(keeping, rest).await;
        }
        self.app.registry.close(rest);
        if !shutdown.hard.is_cancelled() {
            let app = Arc::clone(&self.app);
            tokio::task::spawn_blocking(move || app.spans.as_ref().map(Spans::end)).await.ok();
        }
        ended?;
        lost.known().map_or(Ok(()), |sentence| Err(RunError::Failed(sentence.to_owned())))?;
        if shutdown.hard.is_cancelled() {
            return outcome(Ended::AtOnce);
        }
        admin_stop.cancel();
        admin.await.ok();
        tracing::info!("the server has stopped");
        Ok(())
    }

    /// Serves the admin listener on a thread of its own: it answers when all others are busy.
    fn start_admin(&self, listener: Bound, stop: CancellationToken) -> std::io::Result<oneshot::Receiver<()>> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let budget = ResponseBudget::of_admin(&self.app.metrics);
        let routes = http::admin_router(Arc::clone(&self.app), Arc::clone(&budget));
        let front = Front::new("admin", routes, &self.app, None).within(budget);
        let app = Arc::clone(&self.app);
        let (ended, end_seen) = oneshot::channel();
        let end = End { stop, grace: ADMIN_GRACE, at_once: CancellationToken::new() };
        let serve = move || {
            let served = runtime.block_on(async {
                let listener = listener.listener()?;
                // On this thread, which only a standstill of the whole process stops.
                let beat = async {
                    loop {
                        app.standstill.beat(Instant::now());
                        tokio::time::sleep(BEAT).await;
                    }
                };
                tokio::select! {
                    _ = serve(listener, front, ADMIN_CONNECTIONS, end) => {}
                    () = beat => {}
                }
                std::io::Result::Ok(())
            });
            if let Err(error) = served {
                tracing::error!(%error, "the admin listener cannot be used");
            }
            // Also dropped, and so noticed, if this thread panics.
            ended.send(()).ok();
        };
        std::thread::Builder::new().name("predictd-admin".to_owned()).spawn(serve)?;
        Ok(end_seen)
    }
}

/// What is said; nothing for ever if nobody says anything any more.
async fn told(said: oneshot::Receiver<String>) -> String {
    match said.await {
        Ok(sentence) => sentence,
        Err(_) => std::future::pending().await,
    }
}

/// Whether a server can go on with what was loaded. What came meanwhile ends no server.
fn check_loaded(settings: &Settings, begun_with: &Snapshot, registry: &Registry) -> Result<(), String> {
    let loaded = registry.snapshot();
    loaded.refusal(begun_with).map_or(Ok(()), |sentence| Err(sentence.to_owned()))?;
    ceiling::check(settings, loaded.loaded())
}

pub(crate) fn in_models(settings: &Settings, error: &str) -> RunError {
    RunError::Configuration(format!("--models {}: {error}", settings.models.display()))
}

/// The threads that a server's connections and handlers run on.
///
/// # Errors
/// If the operating system gives no thread.
pub fn http_threads(settings: &Settings) -> std::io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread()
        // Runs have threads of their own, but cheap models are run on these.
        .worker_threads(settings.workers.min(MAX_HTTP_THREADS))
        .max_blocking_threads(settings.workers.max(2))
        .thread_name("predictd-http")
        .enable_all()
        .build()
}

fn outcome(ended: Ended) -> Result<(), RunError> {
    let reason = match ended {
        Ended::Well => return Ok(()),
        Ended::Unanswered(requests) => format!("the time to stop was over: {requests} requests were not answered"),
        Ended::AtOnce => "it was told to stop at once: requests may be unanswered".to_owned(),
    };
    Err(RunError::Failed(reason))
}
