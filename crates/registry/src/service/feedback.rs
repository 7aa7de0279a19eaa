//! Keeps what is told of earlier answers: in the database, or on disk until that answers.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use predictd_platform::clock;
use tokio::task::spawn_blocking;
use tokio::time::timeout;

use super::error::RegistryError;
use super::registry_service::RegistryService;
use crate::database::ChangeError;
use crate::database::feedback::FeedbackPageLimit;
use crate::feedback::{FeedbackRecord, FeedbackWriteOutcome};
use crate::spool::SpoolSegment;

/// How often it is looked whether something waits.
const SPOOL_CHECK_INTERVAL: Duration = Duration::from_millis(500);
/// When it is tried again where that failed.
const SPOOL_RETRY_INTERVAL: Duration = Duration::from_secs(2);
/// Longest wait for those who tell the database something before: a database that answers and does not write holds
/// no request up for long, since there is the disk.
const FEEDBACK_LOCK_TIMEOUT: Duration = Duration::from_secs(2);
/// Kept in one transaction, at most.
const MAX_FEEDBACK_BATCH: usize = 500;

/// What became of something that was told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FeedbackOutcome {
    /// It is in the database.
    Stored(FeedbackWriteOutcome),
    /// It waits on disk until the database answers.
    Spooled,
}

impl RegistryService {
    /// A time for something that is told now, in microseconds since 1970: no two have the same.
    pub fn next_feedback_timestamp(&self) -> i64 {
        let now = clock::since_unix_epoch(clock::now());
        let now = i64::try_from(now.as_micros()).unwrap_or(i64::MAX);
        let later = |last: i64| Some(now.max(last + 1));
        let before = self.last_feedback_timestamp.fetch_update(Ordering::Relaxed, Ordering::Relaxed, later);
        now.max(before.unwrap_or_default() + 1)
    }

    /// Keeps what was told, in its order.
    ///
    /// # Errors
    /// [`RegistryError::Storage`] and [`RegistryError::Spool`] if neither the database nor the disk takes it. A part may have been kept: to tell all of it
    /// once more does no harm.
    pub async fn store_feedback(
        self: Arc<Self>,
        told: Vec<FeedbackRecord>,
    ) -> Result<Vec<FeedbackOutcome>, RegistryError> {
        let mut all = Vec::with_capacity(told.len());
        for some in told.chunks(MAX_FEEDBACK_BATCH) {
            self.database_fault().map_or(Ok(()), Err)?;
            let alone = timeout(FEEDBACK_LOCK_TIMEOUT, self.feedback_lock.lock()).await.ok();
            if alone.is_some() && self.database_downtime().is_none() {
                match self.deps.database.insert_new_feedback(some).await {
                    Ok(kept) => {
                        all.extend(kept.into_iter().map(FeedbackOutcome::Stored));
                        continue;
                    }
                    Err(error) => {
                        // What is kept where a restart does not look for it waits nowhere.
                        self.database_fault().map_or(Ok(()), Err)?;
                        tracing::warn!(%error, "database write failed; feedback spooled to disk");
                    }
                }
            }
            drop(alone);
            let keeper = Arc::clone(&self);
            let some = some.to_vec();
            let waits = some.len();
            spawn_blocking(move || keeper.deps.spool.append(&some)).await??;
            all.extend(std::iter::repeat_n(FeedbackOutcome::Spooled, waits));
        }
        for told in &all {
            self.deps.load_context.metrics.record_feedback(told.name());
        }
        Ok(all)
    }

    /// What was told after this place, in its order, as much as `page` holds; true if there may be more.
    ///
    /// # Errors
    /// If the database does not answer.
    pub async fn list_feedback(
        &self,
        model: Option<&str>,
        after: (i64, &str),
        page: FeedbackPageLimit,
    ) -> Result<(Vec<FeedbackRecord>, bool), ChangeError> {
        Ok(self.deps.database.list_feedback(model, after, page).await?)
    }

    /// Bytes of feedback that wait for the database.
    #[must_use]
    pub fn spooled_bytes(&self) -> u64 {
        self.deps.spool.size_bytes()
    }

    /// Hands over what waits, whenever the database answers, until it is told to stop. It may take long: a task that follows
    /// changes does not wait for it.
    pub async fn run_spool_drain(self: Arc<Self>) {
        loop {
            if self.deps.spool.has_pending()
                && self.database_epoch.lock().is_some()
                && self.database_downtime().is_none()
            {
                self.drain_spool().await;
            }
            tokio::select! {
                // What could not be handed over is not tried again at once.
                () = tokio::time::sleep(if self.deps.spool.has_pending() { SPOOL_RETRY_INTERVAL } else { SPOOL_CHECK_INTERVAL }) => {}
                () = self.stop.cancelled() => return,
            }
        }
    }

    async fn drain_spool(self: &Arc<Self>) {
        let keeper = Arc::clone(self);
        let waiting = match spawn_blocking(move || keeper.deps.spool.take_segments()).await {
            Ok(Ok(waiting)) => waiting,
            Ok(Err(error)) => return self.log_drain_failure(&error),
            Err(error) => return self.log_drain_failure(&error),
        };
        for file in waiting {
            match self.drain_segment(file).await {
                Ok(0) => {}
                Ok(told) => tracing::info!(told, "spooled feedback stored in the database"),
                // The next file may be a good one.
                Err(error) => self.log_drain_failure(&*error),
            }
            if self.database_downtime().is_some() || self.stop.is_cancelled() {
                return self.deps.spool.mark_pending();
            }
        }
    }

    fn log_drain_failure(&self, error: &dyn std::fmt::Display) {
        tracing::warn!(%error, "spooled feedback could not be stored; retrying");
        self.deps.spool.mark_pending();
    }

    async fn drain_segment(&self, mut file: SpoolSegment) -> Result<usize, Box<dyn std::error::Error + Send + Sync>> {
        let mut told = 0;
        loop {
            let read = spawn_blocking(move || file.read_batch(MAX_FEEDBACK_BATCH).map(|next| (file, next)));
            let (rest, next) = read.await??;
            file = rest;
            if next.is_empty() {
                spawn_blocking(|| file.delete()).await??;
                return Ok(told);
            }
            let _alone = self.feedback_lock.lock().await;
            self.deps.database.insert_spooled_feedback(&next).await?;
            told += next.len();
        }
    }
}

impl FeedbackOutcome {
    /// A word for it, in answers and metrics.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Stored(FeedbackWriteOutcome::New) => "stored",
            Self::Stored(FeedbackWriteOutcome::Corrected) => "corrected",
            Self::Stored(FeedbackWriteOutcome::Unchanged | FeedbackWriteOutcome::Superseded) => "unchanged",
            Self::Spooled => "waiting",
        }
    }
}
