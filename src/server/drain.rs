//! How a server stops: it finishes what it has accepted, and accepts no more.

use std::convert::Infallible;
use std::sync::OnceLock;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use predictd_http::App;
use predictd_http::accept_loop::StopSignals;
use tokio_util::sync::CancellationToken;

use crate::config::ServerSettings;
use crate::shutdown::Shutdown;

/// How long before the end of the grace time requests without an answer are refused.
const ABORT_LEAD_TIME: Duration = Duration::from_secs(1);

/// The drain of the data listener.
pub(super) struct Drain {
    /// Time between the request to stop and the end of accepting connections.
    delay: Duration,
    /// Time for requests in work to finish.
    timeout: Duration,
    /// Ends the accepting of connections.
    stop: CancellationToken,
    /// When that was.
    stopped_at: OnceLock<Instant>,
}

impl Drain {
    pub(super) fn new(settings: &ServerSettings) -> Self {
        Self {
            delay: settings.drain_delay,
            timeout: settings.drain_timeout,
            stop: CancellationToken::new(),
            stopped_at: OnceLock::new(),
        }
    }

    /// When and how the data listener ends.
    pub(super) fn stop_signals(&self, shutdown: &Shutdown) -> StopSignals {
        StopSignals { drain: self.stop.clone(), drain_timeout: self.timeout, abort: shutdown.abort.clone() }
    }

    /// Waits for the request to stop, then drains. Never returns: the listener ends when its requests are answered.
    pub(super) async fn run(&self, app: &App, shutdown: &Shutdown) -> Infallible {
        shutdown.drain.cancelled().await;
        app.models.draining.store(true, Ordering::Relaxed);
        tracing::info!("shutdown requested; draining");
        tokio::time::sleep(self.delay).await;
        self.stopped_at.get_or_init(Instant::now);
        self.stop.cancel();
        tokio::time::sleep(self.timeout.saturating_sub(ABORT_LEAD_TIME.min(self.timeout / 4))).await;
        app.inference.engine.abort();
        app.limits.response_budget.close();
        std::future::pending().await
    }

    /// What is left of the time for requests to finish; nothing before the listener has stopped.
    pub(super) fn time_left(&self) -> Duration {
        self.stopped_at.get().map_or(Duration::ZERO, |stopped_at| self.timeout.saturating_sub(stopped_at.elapsed()))
    }
}
