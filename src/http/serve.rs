//! A listener: connections are accepted, bounded, and ended when the server stops.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::time::Instant;
use tokio_util::task::TaskTracker;

use super::connection::Front;
use crate::shutdown::Shutdown;

/// Pause after a failed accept: without file descriptors left the next one fails at once too.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Between two log lines about failed accepts.
const COMPLAINT_PAUSE: Duration = Duration::from_secs(10);

/// Times of a shutdown.
#[derive(Debug, Clone, Copy)]
pub struct Stopping {
    /// Between "not ready" and the end of accepting.
    pub drain_delay: Duration,
    /// For requests in work to finish after that.
    pub grace: Duration,
}

/// How a listener ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// Everybody was answered who could be: clients that did not take part were cut off.
    Well,
    /// So many complete requests got no answer.
    Unanswered(usize),
    /// It was told to stop at once.
    AtOnce,
}

/// Serves at most `max_connections` connections at a time until `shutdown`.
pub async fn serve(
    listener: TcpListener,
    front: Front,
    max_connections: usize,
    shutdown: &Shutdown,
    stopping: Stopping,
) -> Ended {
    let slots = Arc::new(Semaphore::new(max_connections));
    let connections = TaskTracker::new();
    let draining = async {
        shutdown.soft.cancelled().await;
        front.app.draining.store(true, Ordering::Relaxed);
        tracing::info!("the server was told to stop: it is not ready any more");
        tokio::time::sleep(stopping.drain_delay).await;
    };
    let accepting = async {
        let mut complained: Option<Instant> = None;
        loop {
            // Waits while all slots are taken: clients wait in the listener's backlog.
            let Ok(slot) = Arc::clone(&slots).acquire_owned().await else { return };
            match listener.accept().await {
                Ok((stream, peer)) => {
                    let connection = front.clone().serve(stream, peer);
                    _ = connections.spawn(async move {
                        connection.await;
                        drop(slot);
                    });
                }
                Err(error) => {
                    if complained.is_none_or(|at| at.elapsed() > COMPLAINT_PAUSE) {
                        tracing::warn!(%error, "connections cannot be accepted");
                        complained = Some(Instant::now());
                    }
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    };
    tokio::select! {
        () = draining => {}
        () = accepting => {}
        () = shutdown.hard.cancelled() => return Ended::AtOnce,
    }
    drop(listener);
    tracing::info!("no connections are accepted any more");
    front.close.cancel();
    connections.close();
    tokio::select! {
        () = connections.wait() => return Ended::Well,
        () = tokio::time::sleep(stopping.grace) => {}
        () = shutdown.hard.cancelled() => return Ended::AtOnce,
    }
    let clients = connections.len();
    tracing::warn!(clients, "the time to stop is over: clients that did not send or take all of it are cut off");
    match front.working.load(Ordering::Relaxed) {
        0 => Ended::Well,
        unanswered => Ended::Unanswered(unanswered),
    }
}
