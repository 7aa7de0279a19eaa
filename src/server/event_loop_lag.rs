//! Measures how late the threads are that serve requests.

use std::sync::Arc;
use std::time::Duration;

use predictd_metrics::Metrics;
use tokio::time::{Instant, sleep_until};

const SAMPLE_INTERVAL: Duration = Duration::from_millis(250);

/// Measures for ever.
pub(super) async fn monitor_event_loop_lag(metrics: Arc<Metrics>) {
    loop {
        let due = Instant::now() + SAMPLE_INTERVAL;
        sleep_until(due).await;
        metrics.system.record_event_loop_lag(due.elapsed());
    }
}
