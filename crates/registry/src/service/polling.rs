//! What everything that polls has in common.

use std::time::Duration;

/// Something that looks again and again.
pub(super) trait Poller {
    /// Looks once. Returns the pause before the next look.
    fn poll(&mut self) -> impl Future<Output = Duration> + Send;
}
