//! A real server in this process, for one model, that clients on loopback ask.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::runtime;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::clients::{Clients, Window, requests};
use super::figures::Counted;
use super::interrupted;
use super::machine::process_time;
use super::setup::Setup;
use crate::config::Settings;
use crate::engine::loading::ModelSource;
use crate::engine::model::Model;
use crate::experiments::receipts::Receipts;
use crate::onnx::OnnxRuntime;
use crate::registry::State;
use crate::server::Content;
use crate::shutdown::Shutdown;
use crate::{Listeners, RunError, Server, http_threads};

/// Between two looks at whether something has come.
const LOOK: Duration = Duration::from_millis(2);
/// Time for everything to get warm, before it is measured.
const WARM_UP: Duration = Duration::from_millis(300);

/// A server that answers.
pub struct Running {
    address: SocketAddr,
    model: Arc<Model>,
    shutdown: Shutdown,
    stop: CancellationToken,
    task: JoinHandle<Result<(), RunError>>,
    threads: runtime::Runtime,
}

/// Starts servers of one model, one at a time.
pub struct Stage {
    settings: Settings,
    source: ModelSource,
    stop: CancellationToken,
    current: Option<(Setup, Running)>,
}

impl Stage {
    /// No server runs yet. `stop` ends all of it.
    #[must_use]
    pub fn new(settings: Settings, source: ModelSource, stop: CancellationToken) -> Self {
        Self { settings, source, stop, current: None }
    }

    /// The server with this set-up: the one that runs, or another in its place.
    ///
    /// # Errors
    /// As [`Running::start`].
    pub fn server(&mut self, setup: Setup) -> Result<&Running, RunError> {
        let running = match self.current.take() {
            Some((its, running)) if its == setup => running,
            other => {
                if let Some((_, running)) = other {
                    running.stop();
                }
                Running::start(&self.settings, setup, &self.source, &self.stop)?
            }
        };
        Ok(&self.current.insert((setup, running)).1)
    }
}

impl Drop for Stage {
    /// Stops the server that runs: a process must not end in the middle of its runs.
    fn drop(&mut self) {
        if let Some((_, running)) = self.current.take() {
            running.stop();
        }
    }
}

/// What the clients ask, and how many there are.
#[derive(Debug, Clone)]
pub struct Asked {
    /// Requests, ready to be sent.
    requests: Arc<[Vec<u8>]>,
    /// Clients at a time.
    pub clients: usize,
}

impl Asked {
    /// These texts, by so many clients.
    #[must_use]
    pub fn of(texts: &[String], clients: usize) -> Self {
        Self { requests: requests(texts), clients }
    }
}

impl Running {
    /// Starts a server and waits until its model answers.
    ///
    /// # Errors
    /// [`RunError`] if it cannot start, the model cannot be loaded, or `stop` came first.
    pub fn start(
        settings: &Settings,
        setup: Setup,
        source: &ModelSource,
        stop: &CancellationToken,
    ) -> Result<Self, RunError> {
        let failed = |error: std::io::Error| RunError::Failed(error.to_string());
        let mut settings = settings.clone();
        (settings.workers, settings.runs.threads) = (setup.workers, setup.run_threads);
        let runtime = Arc::new(OnnxRuntime::for_server(&settings).map_err(RunError::Configuration)?);
        // There is one model: only one of the two counts.
        settings.runs.tokens = setup.max_run_tokens;
        (settings.runs.on_gpu.tokens, settings.runs.on_gpu.tokens_chosen) = (setup.max_run_tokens, true);
        let threads = http_threads(&settings).map_err(failed)?;
        let entered = threads.enter();
        let server =
            Server::of(&settings, runtime, Content::Only(vec![source.clone()]), || Receipts::unkept().map_err(failed))?;
        let listeners = Listeners::bind(&settings)?;
        drop(entered);
        let address = listeners.data.local_addr().map_err(failed)?;
        let registry = Arc::clone(&server.app().registry);
        // Whoever interrupts the benchmark does not wait for its requests.
        let shutdown = Shutdown { soft: CancellationToken::new(), hard: stop.clone() };
        let task = threads.spawn({
            let shutdown = shutdown.clone();
            async move { server.run(listeners, &shutdown).await }
        });
        let loaded = loop {
            let snapshot = registry.snapshot();
            let mut states = snapshot.models.values().flat_map(|served| served.versions.values());
            match states.next() {
                Some(State::Ready(model)) => break Ok(Arc::clone(model)),
                Some(State::Failed(failure)) => {
                    let label = format!("{}/{}", source.name, source.version);
                    break Err(RunError::Configuration(format!("{label}: {}", failure.reason)));
                }
                _ if stop.is_cancelled() || task.is_finished() => break Err(interrupted()),
                _ => std::thread::sleep(LOOK),
            }
        };
        match loaded {
            Ok(model) => Ok(Self { address, model, shutdown, stop: stop.clone(), task, threads }),
            Err(error) => {
                shutdown.soft.cancel();
                // It ends because nothing was loaded.
                threads.block_on(task).ok();
                threads.shutdown_background();
                Err(error)
            }
        }
    }

    /// The model that answers.
    #[must_use]
    pub fn model(&self) -> &Arc<Model> {
        &self.model
    }

    /// Lets clients ask, and counts for so long.
    ///
    /// # Errors
    /// [`RunError::Failed`] if a connection fails, or `stop` came first.
    pub fn measure(&self, asked: &Asked, time: Duration) -> Result<Counted, RunError> {
        let failed = |error: std::io::Error| RunError::Failed(format!("the clients cannot ask: {error}"));
        let begin = Instant::now() + WARM_UP.min(time);
        let window = Window { begin, end: begin + time };
        let clients =
            Clients::start(self.address, &asked.requests, asked.clients, window, &self.stop).map_err(failed)?;
        self.sleep_until(window.begin);
        let before = (process_time(), self.model.runs_and_tokens());
        self.sleep_until(window.end);
        let after = (process_time(), self.model.runs_and_tokens());
        let heard = clients.finish();
        if self.stop.is_cancelled() {
            return Err(interrupted());
        }
        let heard = heard.map_err(failed)?;
        let [runs, tokens, padding] = [0, 1, 2].map(|place| {
            let of = |counts: [u64; 3]| counts.get(place).copied().unwrap_or(0);
            of(after.1).saturating_sub(of(before.1))
        });
        Ok(Counted {
            time,
            latencies: heard.latencies,
            unanswered: heard.errors,
            cpu: after.0.saturating_sub(before.0).saturating_sub(heard.cpu),
            clients_cpu: heard.cpu,
            runs,
            tokens,
            padding,
        })
    }

    fn sleep_until(&self, until: Instant) {
        while !self.stop.is_cancelled() {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            std::thread::sleep(left.min(10 * LOOK));
        }
    }

    /// Stops the server.
    pub fn stop(self) {
        self.shutdown.soft.cancel();
        // Its clients have left: what they asked last needs no answer.
        self.threads.block_on(self.task).ok();
        self.threads.shutdown_background();
    }
}
