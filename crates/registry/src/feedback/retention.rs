//! Deletes feedback that is older than its retention.

use std::sync::Arc;
use std::time::Duration;

use predictd_platform::clock;
use tokio_util::sync::CancellationToken;

use super::store::FeedbackStore;
use crate::database::ChangeError;
use crate::polling::Poller;

/// Rows of a transaction: new feedback waits for it.
const MAX_DELETE_BATCH: u32 = 500;
/// Time between two transactions, for the feedback that waits.
const DELETE_BATCH_PAUSE: Duration = Duration::from_millis(20);
/// Shortest and longest time between two deletions.
const MIN_RETENTION_INTERVAL: Duration = Duration::from_millis(500);
const MAX_RETENTION_INTERVAL: Duration = Duration::from_mins(10);

/// Deletes feedback that is too old.
pub(super) struct FeedbackRetention {
    pub(super) feedback: Arc<FeedbackStore>,
    /// The age from which feedback is deleted.
    pub(super) retention: Duration,
    /// The database's log may hold deleted feedback, of this process or an earlier one.
    pub(super) is_in_log: bool,
    /// Ends it after a transaction.
    pub(super) stop: CancellationToken,
}

impl Poller for FeedbackRetention {
    async fn poll(&mut self) -> Duration {
        if self.feedback.database.downtime().is_none()
            && let Err(error) = self.delete_expired().await
        {
            tracing::warn!(%error, "deletion of expired feedback failed; retrying");
        }
        (self.retention / 10).clamp(MIN_RETENTION_INTERVAL, MAX_RETENTION_INTERVAL)
    }
}

impl FeedbackRetention {
    async fn delete_expired(&mut self) -> Result<(), ChangeError> {
        let oldest = clock::since_unix_epoch(clock::now()).saturating_sub(self.retention);
        let oldest = i64::try_from(oldest.as_micros()).unwrap_or(i64::MAX);
        let mut deleted = 0;
        loop {
            let batch = self.feedback.delete_older(oldest, MAX_DELETE_BATCH).await?;
            self.feedback.metrics.record_feedback_deletion(batch.answers);
            deleted += batch.answers;
            self.is_in_log |= batch.answers + batch.corrections > 0;
            if !batch.has_more || self.stop.is_cancelled() {
                break;
            }
            tokio::time::sleep(DELETE_BATCH_PAUSE).await;
        }
        if self.is_in_log {
            self.is_in_log = !self.feedback.truncate_wal().await?;
        }
        if deleted > 0 {
            let older_than = humantime::format_duration(self.retention).to_string();
            tracing::info!(deleted, older_than, "expired feedback deleted");
        }
        Ok(())
    }
}
