//! Waits for what must happen.

use std::thread;
use std::time::{Duration, Instant};

/// Waits for something that must happen, however long a busy machine takes over it.
pub(crate) async fn wait_until(what: &str, holds: impl Fn() -> bool) {
    let end = Instant::now() + Duration::from_secs(20);
    while !holds() {
        assert!(Instant::now() < end, "not within 20 seconds: {what}");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

/// Waits for something that must happen, however long a busy machine takes over it.
pub(crate) fn block_until(what: &str, holds: impl Fn() -> bool) {
    let end = Instant::now() + Duration::from_secs(30);
    while !holds() {
        assert!(Instant::now() < end, "not within 30 seconds: {what}");
        thread::sleep(Duration::from_millis(2));
    }
}
