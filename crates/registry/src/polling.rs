//! What everything that polls has in common.

use std::time::Duration;

use tokio_util::sync::CancellationToken;

/// Something that looks again and again.
pub(crate) trait Poller {
    /// Looks once. Returns the pause before the next look.
    fn poll(&mut self) -> impl Future<Output = Duration> + Send;
}

/// Polls until `stop`.
pub(crate) async fn poll_until(stop: CancellationToken, mut poller: impl Poller) {
    while !stop.is_cancelled() {
        let pause = poller.poll().await;
        stop.run_until_cancelled(tokio::time::sleep(pause)).await;
    }
}
