//! Connections: accepted, bounded, served over HTTP/1.1, and ended when the server stops.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::ServiceExt;

use super::App;
use crate::shutdown::Shutdown;

/// Longest wait for a request's head on an open connection, the time between two requests included.
const HEAD_TIMEOUT: Duration = Duration::from_secs(75);
/// Pause after a failed accept: without file descriptors left the next one fails at once too.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Time for an answer to leave a connection that is being closed.
const FLUSH_TIME: Duration = Duration::from_millis(100);

/// Times of a shutdown.
#[derive(Debug, Clone, Copy)]
pub struct Stopping {
    /// Between "not ready" and the end of accepting.
    pub drain_delay: Duration,
    /// For requests in work to finish after that.
    pub grace: Duration,
}

/// Serves `router` until `shutdown`. False: requests were cut off.
pub async fn serve(
    listener: TcpListener,
    router: Router,
    app: &Arc<App>,
    shutdown: &Shutdown,
    stopping: Stopping,
) -> bool {
    let slots = Arc::new(Semaphore::new(app.limits.max_connections));
    let (connections, close) = (TaskTracker::new(), CancellationToken::new());
    let draining = async {
        shutdown.soft.cancelled().await;
        app.draining.store(true, Ordering::Relaxed);
        tracing::info!("the server was told to stop: it is not ready any more");
        tokio::time::sleep(stopping.drain_delay).await;
    };
    let accepting = async {
        loop {
            // Waits while all slots are taken: clients wait in the listener's backlog.
            let Ok(slot) = Arc::clone(&slots).acquire_owned().await else { return };
            match listener.accept().await {
                Ok((stream, _)) => {
                    _ = connections.spawn(connection(stream, slot, router.clone(), Arc::clone(app), close.clone()));
                }
                Err(error) => {
                    tracing::warn!(%error, "a connection could not be accepted");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    };
    tokio::select! {
        () = draining => {}
        () = accepting => {}
        () = shutdown.hard.cancelled() => return false,
    }
    drop(listener);
    close.cancel();
    connections.close();
    tokio::select! {
        () = connections.wait() => true,
        () = tokio::time::sleep(stopping.grace) => false,
        () = shutdown.hard.cancelled() => false,
    }
}

/// A request of one connection, from its head to its answer.
struct InWork(Arc<AtomicUsize>);

impl InWork {
    fn new(count: &Arc<AtomicUsize>) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(count))
    }
}

impl Drop for InWork {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

async fn connection(
    stream: TcpStream,
    slot: OwnedSemaphorePermit,
    router: Router,
    app: Arc<App>,
    close: CancellationToken,
) {
    app.metrics.connected();
    // Small answers must not wait for an acknowledgement of the one before.
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "a connection keeps Nagle's delay");
    }
    let in_work = Arc::new(AtomicUsize::new(0));
    let counted = {
        let in_work = Arc::clone(&in_work);
        tower::service_fn(move |request| {
            let (router, in_work) = (router.clone(), InWork::new(&in_work));
            async move {
                let response = router.oneshot(request).await;
                drop(in_work);
                response
            }
        })
    };
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(counted));
    let mut connection = std::pin::pin!(connection);
    let served = tokio::select! {
        served = &mut connection => served,
        () = close.cancelled() => {
            connection.as_mut().graceful_shutdown();
            loop {
                tokio::select! {
                    served = &mut connection => break served,
                    // A client that has not sent a whole head waits for nothing.
                    () = tokio::time::sleep(FLUSH_TIME), if in_work.load(Ordering::Relaxed) == 0 => break Ok(()),
                    // Looks again: a request may have been answered meanwhile.
                    () = tokio::time::sleep(2 * FLUSH_TIME) => {}
                }
            }
        }
    };
    if let Err(error) = served {
        // A client that leaves or talks nonsense: its business.
        tracing::debug!(%error, "a connection ended early");
    }
    app.metrics.disconnected();
    drop(slot);
}
