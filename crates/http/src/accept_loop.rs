//! A listener: connections are accepted, bounded, and ended when the server stops.

use std::future::poll_fn;
use std::io::ErrorKind;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::Poll;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::connection::ConnectionHandler;
use crate::listeners::{ClientStream, Listener};

/// Pause after a failed accept: without file descriptors left the next one fails at once too.
const ACCEPT_RETRY_DELAY: Duration = Duration::from_millis(100);
/// How long the listener waits for a free slot before it ends idle connections.
const SLOT_PRESSURE_INTERVAL: Duration = Duration::from_millis(20);
/// Between two log lines about failed accepts.
const ACCEPT_ERROR_LOG_INTERVAL: Duration = Duration::from_secs(10);

/// When and how a listener ends.
#[derive(Debug)]
pub struct StopSignals {
    /// Accept no more connections; finish the requests in flight.
    pub drain: CancellationToken,
    /// Time for requests in flight to finish.
    pub drain_timeout: Duration,
    /// Stop now.
    pub abort: CancellationToken,
}

/// How a listener ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StopOutcome {
    /// All complete requests were answered; connections of silent clients were closed.
    Drained,
    /// So many complete requests got no answer.
    Unanswered(usize),
    /// The abort signal came.
    Aborted,
}

/// Serves at most `max_connections` connections at a time until `stop`.
pub async fn serve(
    listener: Listener,
    handler: ConnectionHandler,
    max_connections: usize,
    stop: StopSignals,
) -> StopOutcome {
    let slots = Arc::new(Semaphore::new(max_connections));
    let connections = TaskTracker::new();
    tokio::select! {
        () = stop.drain.cancelled() => {}
        () = accept_connections(&listener, &handler, &slots, &connections) => {}
        () = stop.abort.cancelled() => return StopOutcome::Aborted,
    }
    // Clients in the backlog connected before the drain.
    while let Ok(slot) = Arc::clone(&slots).try_acquire_owned() {
        let accepted = poll_fn(|cx| Poll::Ready(listener.poll_accept(cx))).await;
        let Poll::Ready(Ok(client)) = accepted else { break };
        spawn_connection(&connections, &handler, client, slot);
    }
    drop(listener);
    tracing::info!(listener = handler.name, "listener closed");
    finish_connections(&connections, &handler, &stop).await
}

/// Waits until all requests in flight are answered, or the drain timeout passes.
async fn finish_connections(connections: &TaskTracker, handler: &ConnectionHandler, stop: &StopSignals) -> StopOutcome {
    handler.shutdown.cancel();
    connections.close();
    tokio::select! {
        () = connections.wait() => return StopOutcome::Drained,
        () = sleep(stop.drain_timeout) => {}
        () = stop.abort.cancelled() => return StopOutcome::Aborted,
    }
    let clients = connections.len();
    tracing::warn!(listener = handler.name, clients, "grace period expired; closing unfinished connections");
    match handler.unanswered_requests.load(Ordering::Relaxed) {
        0 => StopOutcome::Drained,
        unanswered => StopOutcome::Unanswered(unanswered),
    }
}

/// Accepts connections until it is dropped.
async fn accept_connections(
    listener: &Listener,
    handler: &ConnectionHandler,
    slots: &Arc<Semaphore>,
    connections: &TaskTracker,
) {
    let mut last_logged: Option<Instant> = None;
    loop {
        // Without a free slot, clients wait in the listener's backlog, and idle connections end for them.
        let slot = loop {
            if let Ok(Ok(slot)) = timeout(SLOT_PRESSURE_INTERVAL, Arc::clone(slots).acquire_owned()).await {
                break slot;
            }
            handler.slot_pressure.notify_waiters();
        };
        match poll_fn(|cx| listener.poll_accept(cx)).await {
            Ok(client) => spawn_connection(connections, handler, client, slot),
            // The client disconnected before it was accepted.
            Err(error) if matches!(error.kind(), ErrorKind::ConnectionAborted | ErrorKind::ConnectionReset) => {}
            Err(error) => {
                if last_logged.is_none_or(|logged_at| logged_at.elapsed() > ACCEPT_ERROR_LOG_INTERVAL) {
                    tracing::warn!(%error, "connection accept failed");
                    last_logged = Some(Instant::now());
                }
                sleep(ACCEPT_RETRY_DELAY).await;
            }
        }
    }
}

fn spawn_connection(
    connections: &TaskTracker,
    handler: &ConnectionHandler,
    (stream, peer): (ClientStream, IpAddr),
    slot: OwnedSemaphorePermit,
) {
    let connection = handler.clone().serve(stream, peer);
    _ = connections.spawn(async move {
        connection.await;
        drop(slot);
    });
}
