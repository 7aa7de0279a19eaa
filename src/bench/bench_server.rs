//! A real server in this process, for one model, that clients on loopback ask.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use predictd_engine::loaded_version::LoadedVersion;
use predictd_engine::model_source::ModelSource;
use predictd_http::listeners::Listeners;
use predictd_onnx::OnnxRuntime;
use predictd_registry::VersionState;
use tokio::runtime;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::error::interrupted_error;
use super::load_clients::{LoadClients, MeasurementPeriod, build_requests};
use super::machine::process_cpu_time;
use super::measurement::MeasurementCounts;
use super::setup_selection::Setup;
use crate::config::ServerSettings;
use crate::server::ModelSet;
use crate::shutdown::Shutdown;
use crate::{Server, ServerError, http_runtime};

/// Between two looks at whether something has come.
const POLL_INTERVAL: Duration = Duration::from_millis(2);
/// Time for everything to get warm, before it is measured.
const WARM_UP_TIME: Duration = Duration::from_millis(300);

/// A server that answers.
pub struct BenchServer {
    address: SocketAddr,
    /// The model that answers.
    pub model: Arc<LoadedVersion>,
    shutdown: Shutdown,
    stop: CancellationToken,
    task: JoinHandle<Result<(), ServerError>>,
    runtime: runtime::Runtime,
}

/// Starts servers of one model, one at a time.
pub struct ServerSlot {
    settings: ServerSettings,
    source: ModelSource,
    stop: CancellationToken,
    current: Option<(Setup, BenchServer)>,
}

impl ServerSlot {
    /// No server runs yet. `stop` ends all of it.
    #[must_use]
    pub fn new(settings: ServerSettings, source: ModelSource, stop: CancellationToken) -> Self {
        Self { settings, source, stop, current: None }
    }

    /// The server with this set-up: the one that runs, or another in its place.
    ///
    /// # Errors
    /// As [`BenchServer::start`].
    pub fn server(&mut self, setup: Setup) -> Result<&BenchServer, ServerError> {
        let running = match self.current.take() {
            Some((its, running)) if its == setup => running,
            other => {
                if let Some((_, running)) = other {
                    running.stop();
                }
                BenchServer::start(&self.settings, setup, &self.source, &self.stop)?
            }
        };
        Ok(&self.current.insert((setup, running)).1)
    }
}

impl Drop for ServerSlot {
    /// Stops the server that runs: a process must not end in the middle of its runs.
    fn drop(&mut self) {
        if let Some((_, running)) = self.current.take() {
            running.stop();
        }
    }
}

/// What the clients ask, and how many there are.
#[derive(Debug, Clone)]
pub struct Workload {
    /// Requests, ready to be sent.
    requests: Arc<[Vec<u8>]>,
    /// Clients at a time.
    pub clients: usize,
}

impl Workload {
    /// These texts, by so many clients.
    #[must_use]
    pub fn new(texts: &[String], clients: usize) -> Self {
        Self { requests: build_requests(texts), clients }
    }
}

impl BenchServer {
    /// Starts a server and waits until its model answers.
    ///
    /// # Errors
    /// [`ServerError`] if it cannot start, the model cannot be loaded, or `stop` came first.
    pub fn start(
        settings: &ServerSettings,
        setup: Setup,
        source: &ModelSource,
        stop: &CancellationToken,
    ) -> Result<Self, ServerError> {
        let mut settings = settings.clone();
        settings.workers = setup.workers;
        settings.onnx_runtime.threads_per_batch = setup.intra_op_threads;
        // There is one model: only one of the two counts.
        settings.batching.cpu_limits.max_tokens = setup.max_batch_tokens;
        settings.batching.gpu_limits.max_tokens = setup.max_batch_tokens;
        settings.batching.is_max_tokens_explicit = true;
        let onnx = OnnxRuntime::from_settings(&settings.onnx_runtime).map_err(ServerError::Configuration)?;
        let runtime = http_runtime(&settings).map_err(ServerError::runtime)?;
        let entered = runtime.enter();
        let server = Server::with_models(&settings, Arc::new(onnx), ModelSet::Fixed(vec![source.clone()]))?;
        let listeners = Listeners::bind(&settings.access).map_err(ServerError::Runtime)?;
        drop(entered);
        let address: SocketAddr = listeners.data.to_string().parse().map_err(ServerError::runtime)?;
        let registry = Arc::clone(&server.app().models.registry);
        // Whoever interrupts the benchmark does not wait for its requests.
        let shutdown = Shutdown { drain: CancellationToken::new(), abort: stop.clone() };
        let task = runtime.spawn({
            let shutdown = shutdown.clone();
            async move { server.run(listeners, &shutdown).await }
        });
        let loaded = loop {
            let snapshot = registry.snapshot();
            let mut states = snapshot.models.values().flat_map(|served| served.versions.values());
            match states.next() {
                Some(VersionState::Ready(model)) => break Ok(Arc::clone(model)),
                Some(VersionState::Failed(failure)) => {
                    let label = format!("{}/{}", source.name, source.version);
                    break Err(ServerError::Configuration(format!("{label}: {}", failure.reason)));
                }
                _ if stop.is_cancelled() || task.is_finished() => break Err(interrupted_error()),
                _ => std::thread::sleep(POLL_INTERVAL),
            }
        };
        match loaded {
            Ok(model) => Ok(Self { address, model, shutdown, stop: stop.clone(), task, runtime }),
            Err(error) => {
                shutdown.drain.cancel();
                // It ends because nothing was loaded.
                runtime.block_on(task).ok();
                runtime.shutdown_background();
                Err(error)
            }
        }
    }

    /// Lets clients ask, and counts for so long.
    ///
    /// # Errors
    /// [`ServerError::Runtime`] if a connection fails, or `stop` came first.
    pub fn measure(&self, workload: &Workload, time: Duration) -> Result<MeasurementCounts, ServerError> {
        let failed = |error: std::io::Error| ServerError::Runtime(format!("the clients cannot ask: {error}"));
        let begin = Instant::now() + WARM_UP_TIME.min(time);
        let window = MeasurementPeriod { begin, end: begin + time };
        let clients = LoadClients::start(self.address, &workload.requests, workload.clients, window, &self.stop)
            .map_err(failed)?;
        self.sleep_until(window.begin);
        let before = (process_cpu_time(), self.model.runner.metrics.batch_and_token_totals());
        self.sleep_until(window.end);
        let after = (process_cpu_time(), self.model.runner.metrics.batch_and_token_totals());
        let results = clients.finish();
        if self.stop.is_cancelled() {
            return Err(interrupted_error());
        }
        let results = results.map_err(failed)?;
        let [runs_before, tokens_before, padding_before] = before.1;
        let [runs, tokens, padding] = after.1;
        Ok(MeasurementCounts {
            time,
            cpu_time: after.0.saturating_sub(before.0).saturating_sub(results.client_cpu_time),
            runs: runs.saturating_sub(runs_before),
            tokens: tokens.saturating_sub(tokens_before),
            padding: padding.saturating_sub(padding_before),
            ..results
        })
    }

    fn sleep_until(&self, until: Instant) {
        while !self.stop.is_cancelled() {
            let remaining = until.saturating_duration_since(Instant::now());
            if remaining.is_zero() {
                return;
            }
            std::thread::sleep(remaining.min(10 * POLL_INTERVAL));
        }
    }

    /// Stops the server.
    pub fn stop(self) {
        self.shutdown.drain.cancel();
        // Its clients have left: what they asked last needs no answer.
        self.runtime.block_on(self.task).ok();
        self.runtime.shutdown_background();
    }
}
