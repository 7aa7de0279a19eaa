//! A listener: connections are accepted, bounded, and ended when the server stops.

use std::future::poll_fn;
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::Poll;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::connection::Front;
use crate::listeners::{Connected, Listener};

/// Pause after a failed accept: without file descriptors left the next one fails at once too.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// How long the listener waits for a connection to end by itself before it asks those at rest to go.
const PRESSURE_PAUSE: Duration = Duration::from_millis(20);
/// Between two log lines about failed accepts.
const COMPLAINT_PAUSE: Duration = Duration::from_secs(10);

/// When and how a listener ends.
#[derive(Debug, Clone)]
pub struct End {
    /// Accept nothing more, finish what is in work.
    pub stop: CancellationToken,
    /// Time for requests in work to finish.
    pub grace: Duration,
    /// Stop now.
    pub at_once: CancellationToken,
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

/// Serves at most `max_connections` connections at a time until `end`.
pub async fn serve(listener: impl Into<Listener>, front: Front, max_connections: usize, end: End) -> Ended {
    let listener = listener.into();
    let slots = Arc::new(Semaphore::new(max_connections));
    let connections = TaskTracker::new();
    let accepting = async {
        let mut complained: Option<Instant> = None;
        loop {
            let slot = free_slot(&slots, &front).await;
            match poll_fn(|cx| listener.poll_accept(cx)).await {
                Ok((stream, peer)) => open(&connections, &front, (stream, peer), slot),
                // One client has left before it was accepted: the next one is fine.
                Err(error) if matches!(error.kind(), ErrorKind::ConnectionAborted | ErrorKind::ConnectionReset) => {}
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
        () = end.stop.cancelled() => {}
        () = accepting => {}
        () = end.at_once.cancelled() => return Ended::AtOnce,
    }
    // Who is in the backlog has connected while that was still right.
    while let Ok(slot) = Arc::clone(&slots).try_acquire_owned() {
        let waiting = poll_fn(|cx| Poll::Ready(listener.poll_accept(cx))).await;
        let Poll::Ready(Ok(client)) = waiting else { break };
        open(&connections, &front, client, slot);
    }
    drop(listener);
    tracing::info!(listener = front.name, "no connections are accepted any more");
    front.close.cancel();
    connections.close();
    tokio::select! {
        () = connections.wait() => return Ended::Well,
        () = tokio::time::sleep(end.grace) => {}
        () = end.at_once.cancelled() => return Ended::AtOnce,
    }
    let clients = connections.len();
    tracing::warn!(
        listener = front.name,
        clients,
        "the time to stop is over: clients that did not send or take all of it are cut off"
    );
    match front.working.load(Ordering::Relaxed) {
        0 => Ended::Well,
        unanswered => Ended::Unanswered(unanswered),
    }
}

fn open(connections: &TaskTracker, front: &Front, client: (Connected, SocketAddr), slot: OwnedSemaphorePermit) {
    let connection = front.clone().serve(client.0, client.1);
    _ = connections.spawn(async move {
        connection.await;
        drop(slot);
    });
}

/// Waits while all slots are taken: clients wait in the listener's backlog, and connections at rest are ended for them.
async fn free_slot(slots: &Arc<Semaphore>, front: &Front) -> OwnedSemaphorePermit {
    loop {
        if let Ok(Ok(slot)) = timeout(PRESSURE_PAUSE, Arc::clone(slots).acquire_owned()).await {
            return slot;
        }
        front.pressure.notify_waiters();
    }
}
