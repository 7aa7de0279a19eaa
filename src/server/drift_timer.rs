//! Closes windows of drift whose time is over, where no more texts come that would.

use std::sync::Arc;
use std::time::Duration;

use predictd_engine::drift_monitor::DriftMonitor;
use predictd_registry::Registry;

/// How often it is looked.
const CLOSE_INTERVAL: Duration = Duration::from_secs(1);

/// Looks for ever.
pub(super) async fn close_due_windows(registry: Arc<Registry>) {
    loop {
        tokio::time::sleep(CLOSE_INTERVAL).await;
        registry
            .snapshot()
            .ready_models()
            .filter_map(|model| model.drift_monitor.as_ref())
            .for_each(DriftMonitor::close_window_if_due);
    }
}
