//! When the data listener takes connections.

use std::time::Duration;

use predictd_http::accept_loop::{StopOutcome, StopSignals};
use predictd_http::listeners::{DataListener, Listener};
use predictd_registry::Registry;
use tokio_util::sync::CancellationToken;

use crate::error::ServerError;

/// Opens the data listener once the server is ready, if it is not open yet. Returns how the server stopped if it did
/// before that.
pub(super) async fn open_when_ready(
    listener: DataListener,
    registry: &Registry,
    loaded: &CancellationToken,
    stop: &StopSignals,
) -> Result<Result<Listener, StopOutcome>, ServerError> {
    const READY_POLL_INTERVAL: Duration = Duration::from_millis(5);
    let closed = !listener.is_open();
    let ready = async {
        let mut is_logged = false;
        while !registry.snapshot().is_ready() {
            if loaded.is_cancelled() && !std::mem::replace(&mut is_logged, true) {
                tracing::error!("data listener stays closed; default model could not be loaded");
            }
            tokio::time::sleep(READY_POLL_INTERVAL).await;
        }
    };
    if closed {
        tokio::select! {
            () = ready => {}
            () = stop.drain.cancelled() => return Ok(Err(StopOutcome::Drained)),
            () = stop.abort.cancelled() => return Ok(Err(StopOutcome::Aborted)),
        }
    }
    let address = listener.to_string();
    let listener = listener.open().map_err(|error| ServerError::Runtime(format!("--listen {address}: {error}")))?;
    if closed {
        tracing::info!(%address, "data listener opened");
    }
    Ok(Ok(listener))
}
