//! When the data listener takes connections.

use std::time::Duration;

use predictd_http::accept_loop::{StopOutcome, StopSignals};
use predictd_http::listeners::{DataListener, Listener};
use predictd_registry::Registry;
use tokio_util::sync::CancellationToken;

use crate::error::ServerError;

/// The data listener, open. If it is closed, it is opened once the server is ready; how the server ended, if it did
/// before that.
pub(super) async fn open_when_ready(
    entrance: DataListener,
    registry: &Registry,
    loaded: &CancellationToken,
    end: &StopSignals,
) -> Result<Result<Listener, StopOutcome>, ServerError> {
    const READY_POLL_INTERVAL: Duration = Duration::from_millis(5);
    let closed = !entrance.is_open();
    let ready = async {
        let mut told = false;
        while !registry.snapshot().is_ready() {
            if loaded.is_cancelled() && !std::mem::replace(&mut told, true) {
                tracing::error!("data listener stays closed; default model could not be loaded");
            }
            tokio::time::sleep(READY_POLL_INTERVAL).await;
        }
    };
    if closed {
        tokio::select! {
            () = ready => {}
            () = end.drain.cancelled() => return Ok(Err(StopOutcome::Drained)),
            () = end.abort.cancelled() => return Ok(Err(StopOutcome::Aborted)),
        }
    }
    let address = entrance.to_string();
    let listener = entrance.open().map_err(|error| ServerError::Runtime(format!("--listen {address}: {error}")))?;
    if closed {
        tracing::info!(%address, "data listener opened");
    }
    Ok(Ok(listener))
}
