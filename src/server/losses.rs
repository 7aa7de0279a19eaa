//! Ends the server where a GPU is lost: only a new process gets it back, or finds that it cannot be used.

use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::config::Settings;
use crate::engine::lane::Lane;

/// How often it is looked.
const LOOK: Duration = Duration::from_secs(1);
/// A run is told to end when nobody waits for it any more: it has gone on for a request's longest time then. This many
/// times that is too long.
const TOO_LONG: u32 = 2;

/// Stops the server once a GPU is lost: because it fails, which its workers tell, or because a run on it does not end. A
/// kernel that hangs cannot be stopped, and nothing else gets that GPU.
pub(super) fn watch(gpus: Lane, settings: &Settings, stop: CancellationToken) -> impl Future<Output = ()> + use<> {
    let longest = TOO_LONG * settings.limits.max_timeout;
    async move {
        let hangs = async {
            while gpus.gates.oldest_run().is_none_or(|time| time <= longest) {
                tokio::time::sleep(LOOK).await;
            }
            gpus.lost.tell("a GPU is lost: a run on it does not end".to_owned());
        };
        let reason = tokio::select! {
            reason = gpus.lost.told() => reason,
            () = hangs => gpus.lost.told().await,
        };
        tracing::error!(reason, "the server stops: whoever watches over it starts it anew");
        stop.cancel();
    }
}
