//! The loop of everything that polls.

use std::time::Duration;

use tokio_util::sync::CancellationToken;

/// Something that looks again and again.
pub(super) trait Poller {
    /// Looks once. Returns the pause before the next look.
    fn poll(&mut self) -> impl Future<Output = Duration> + Send;
}

/// Polls until `stop`.
pub(super) async fn poll_until_stopped(mut poller: impl Poller, stop: CancellationToken) {
    while !stop.is_cancelled() {
        let pause = poller.poll().await;
        stop.run_until_cancelled(tokio::time::sleep(pause)).await;
    }
}
