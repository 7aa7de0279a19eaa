//! Deletes feedback that is older than its retention.

use std::time::Duration;

use predictd_platform::clock;

use super::registry_service::RegistryService;
use crate::database::ChangeError;

/// Rows of a transaction: others who tell something wait for it.
const MAX_DELETE_BATCH: u32 = 500;
/// Time between two transactions, for those who wait.
const DELETE_BATCH_PAUSE: Duration = Duration::from_millis(20);
/// Shortest and longest time between two looks.
const MIN_RETENTION_INTERVAL: Duration = Duration::from_millis(500);
const MAX_RETENTION_INTERVAL: Duration = Duration::from_mins(10);

impl RegistryService {
    /// Deletes feedback that is older than its retention, a little at a time, until it is told to stop.
    pub async fn run_feedback_retention(&self) {
        let Some(retention) = self.deps.feedback_retention else { return };
        let pause = (retention / 10).clamp(MIN_RETENTION_INTERVAL, MAX_RETENTION_INTERVAL);
        // What an earlier process deleted may be in the log as well.
        let mut is_in_log = true;
        loop {
            if self.database_downtime().is_none()
                && let Err(error) = self.delete_expired_feedback(retention, &mut is_in_log).await
            {
                tracing::warn!(%error, "deletion of expired feedback failed; retrying");
            }
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = self.stop.cancelled() => return,
            }
        }
    }

    /// Deletes what is too old now. `is_in_log` stays true as long as the database's log may hold what was deleted.
    async fn delete_expired_feedback(&self, retention: Duration, is_in_log: &mut bool) -> Result<(), ChangeError> {
        let deleted = self.delete_feedback_older_than(retention, is_in_log).await?;
        if *is_in_log {
            let _alone = self.feedback_lock.lock().await;
            *is_in_log = !self.deps.database.truncate_wal().await?;
        }
        if deleted > 0 {
            let older_than = humantime::format_duration(retention).to_string();
            tracing::info!(deleted, older_than, "expired feedback deleted");
        }
        Ok(())
    }

    /// The answers of which nothing is kept any more.
    async fn delete_feedback_older_than(&self, retention: Duration, is_in_log: &mut bool) -> Result<u64, ChangeError> {
        let oldest = clock::since_unix_epoch(clock::now()).saturating_sub(retention);
        let oldest = i64::try_from(oldest.as_micros()).unwrap_or(i64::MAX);
        let mut deleted = 0;
        loop {
            let some = {
                let _alone = self.feedback_lock.lock().await;
                self.deps.database.delete_feedback(oldest, MAX_DELETE_BATCH).await?
            };
            self.deps.load_context.metrics.record_feedback_deletion(some.answers);
            deleted += some.answers;
            *is_in_log |= some.answers + some.corrections > 0;
            if !some.has_more || self.stop.is_cancelled() {
                return Ok(deleted);
            }
            tokio::time::sleep(DELETE_BATCH_PAUSE).await;
        }
    }
}
