//! Reconciles whenever the state has changed, and retries failed loads.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::reconciler::{LoadReason, Reconciler};
use crate::polling::Poller;

const POLL_INTERVAL: Duration = Duration::from_millis(500);
/// Time to the first retry of failed loads, and longest time between two retries.
const MIN_RETRY_INTERVAL: Duration = Duration::from_secs(10);
const MAX_RETRY_INTERVAL: Duration = Duration::from_mins(10);

/// Follows the state while the database answers.
pub(super) struct ReconcileLoop {
    reconciler: Arc<Reconciler>,
    retry_at: Instant,
    retry_interval: Duration,
}

impl Poller for ReconcileLoop {
    async fn poll(&mut self) -> Duration {
        if self.reconciler.context.database_downtime().is_some() {
            return POLL_INTERVAL;
        }
        if self.reconciler.is_outdated() {
            self.reconciler.reconcile(LoadReason::Change).await;
            self.schedule_retry(MIN_RETRY_INTERVAL);
        } else if self.retry_at <= Instant::now() {
            // Files may have come since, or their MLflow server may be back.
            if self.reconciler.has_missing_versions() {
                self.reconciler.reconcile(LoadReason::Retry).await;
            }
            self.schedule_retry((self.retry_interval * 2).min(MAX_RETRY_INTERVAL));
        }
        POLL_INTERVAL
    }
}

impl ReconcileLoop {
    pub(super) fn new(reconciler: Arc<Reconciler>) -> Self {
        let retry_at = Instant::now() + MIN_RETRY_INTERVAL;
        Self { reconciler, retry_at, retry_interval: MIN_RETRY_INTERVAL }
    }

    fn schedule_retry(&mut self, interval: Duration) {
        self.retry_interval = interval;
        self.retry_at = Instant::now() + interval;
    }
}
