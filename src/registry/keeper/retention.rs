//! Deletes feedback that is older than its retention.

use std::time::Duration;

use super::Keeper;
use crate::clock;
use crate::registry::database::ChangeError;

/// Rows of a transaction: others who tell something wait for it.
const AT_A_TIME: u32 = 500;
/// Time between two transactions, for those who wait.
const BREATH: Duration = Duration::from_millis(20);
/// Shortest and longest time between two looks.
const OFTEN: Duration = Duration::from_millis(500);
const SELDOM: Duration = Duration::from_mins(10);

impl Keeper {
    /// Deletes feedback that is older than its retention, a little at a time, until it is told to stop.
    pub async fn delete_old_feedback(&self) {
        let Some(retention) = self.place.retention else { return };
        let pause = (retention / 10).clamp(OFTEN, SELDOM);
        // What an earlier process deleted may be in the log as well.
        let mut is_in_log = true;
        loop {
            if self.stale_for().is_none()
                && let Err(error) = self.delete_once(retention, &mut is_in_log).await
            {
                tracing::warn!(%error, "old feedback was not deleted: it is tried again");
            }
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = self.stop.cancelled() => return,
            }
        }
    }

    /// Deletes what is too old now. `is_in_log` stays true as long as the database's log may hold what was deleted.
    async fn delete_once(&self, retention: Duration, is_in_log: &mut bool) -> Result<(), ChangeError> {
        let deleted = self.delete_older_than(retention, is_in_log).await?;
        if *is_in_log {
            let _alone = self.telling.lock().await;
            *is_in_log = !self.place.database.empty_log().await?;
        }
        if deleted > 0 {
            let older_than = humantime::format_duration(retention).to_string();
            tracing::info!(deleted, older_than, "feedback older than --feedback-retention was deleted");
        }
        Ok(())
    }

    /// The answers of which nothing is kept any more.
    async fn delete_older_than(&self, retention: Duration, is_in_log: &mut bool) -> Result<u64, ChangeError> {
        let oldest = clock::since_1970(clock::now()).saturating_sub(retention);
        let oldest = i64::try_from(oldest.as_micros()).unwrap_or(i64::MAX);
        let mut deleted = 0;
        loop {
            let some = {
                let _alone = self.telling.lock().await;
                self.place.database.delete_feedback(oldest, AT_A_TIME).await?
            };
            self.place.host.metrics.feedback_deleted(some.answers);
            deleted += some.answers;
            *is_in_log |= some.answers + some.earlier > 0;
            if !some.more || self.stop.is_cancelled() {
                return Ok(deleted);
            }
            tokio::time::sleep(BREATH).await;
        }
    }
}
