//! When the data listener takes connections.

use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::RunError;
use crate::http::serve::{End, Ended};
use crate::listeners::{Entrance, Listener};
use crate::registry::Registry;

/// The data listener, open. If it is closed, it is opened once the server is ready; how the server ended, if it did
/// before that.
pub(super) async fn opened(
    entrance: Entrance,
    registry: &Registry,
    loaded: &CancellationToken,
    end: &End,
) -> Result<Result<Listener, Ended>, RunError> {
    const LOOK: Duration = Duration::from_millis(5);
    let closed = !entrance.is_open();
    let ready = async {
        let mut told = false;
        while !registry.snapshot().is_ready() {
            if loaded.is_cancelled() && !std::mem::replace(&mut told, true) {
                tracing::error!("no connections are accepted: the default model could not be loaded");
            }
            tokio::time::sleep(LOOK).await;
        }
    };
    if closed {
        tokio::select! {
            () = ready => {}
            () = end.stop.cancelled() => return Ok(Err(Ended::Well)),
            () = end.at_once.cancelled() => return Ok(Err(Ended::AtOnce)),
        }
    }
    let address = entrance.to_string();
    let listener = entrance.open().map_err(|error| RunError::Failed(format!("--listen {address}: {error}")))?;
    if closed {
        tracing::info!(%address, "connections are accepted");
    }
    Ok(Ok(listener))
}
