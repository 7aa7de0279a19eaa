//! Stores feedback: in the database, or on disk until that answers.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use predictd_metrics::Metrics;
use predictd_platform::clock;
use tokio::sync::Mutex;
use tokio::task::spawn_blocking;
use tokio::time::timeout;

use super::spool::FeedbackSpool;
use super::{FeedbackRecord, FeedbackWriteOutcome};
use crate::database::feedback::{FeedbackPageLimit, FeedbackTable};
use crate::database::retention::{DeletionCounts, delete_feedback, truncate_wal};
use crate::database::{ChangeError, Database};
use crate::error::RegistryError;

/// Longest wait for other feedback. A database that answers and does not write holds no request up for long: there is the
/// disk.
const FEEDBACK_LOCK_TIMEOUT: Duration = Duration::from_secs(2);
/// Most records of one transaction.
pub(super) const MAX_FEEDBACK_BATCH: usize = 500;

/// The feedback of this process and of others that share the database.
pub struct FeedbackStore {
    pub(super) database: Database,
    pub(super) metrics: Arc<Metrics>,
    pub(super) spool: Arc<FeedbackSpool>,
    /// One transaction at a time: they wait for each other anyway, and other queries need connections too.
    lock: Mutex<()>,
    /// The time of the latest feedback, in microseconds since 1970.
    last_timestamp: AtomicI64,
}

impl FeedbackStore {
    /// Feedback in a database, and in `spool` while that does not answer.
    #[must_use]
    pub fn new(database: Database, spool: FeedbackSpool, metrics: Arc<Metrics>) -> Self {
        Self { database, metrics, spool: Arc::new(spool), lock: Mutex::default(), last_timestamp: AtomicI64::new(0) }
    }

    /// A time for feedback that comes now, in microseconds since 1970: no two have the same.
    pub fn next_timestamp(&self) -> i64 {
        let now = clock::since_unix_epoch(clock::now());
        let now = i64::try_from(now.as_micros()).unwrap_or(i64::MAX);
        let before =
            self.last_timestamp.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |last| Some(now.max(last + 1)));
        now.max(before.unwrap_or_default() + 1)
    }

    pub(crate) fn last_timestamp(&self) -> i64 {
        self.last_timestamp.load(Ordering::Relaxed)
    }

    /// Stores feedback, in its order.
    ///
    /// # Errors
    /// [`RegistryError::Storage`] and [`RegistryError::Spool`] if neither the database nor the disk takes it. A part may be
    /// stored: to send all of it once more does no harm.
    pub async fn store(&self, records: &[FeedbackRecord]) -> Result<Vec<FeedbackWriteOutcome>, RegistryError> {
        let mut outcomes = Vec::with_capacity(records.len());
        for batch in records.chunks(MAX_FEEDBACK_BATCH) {
            self.database.database_fault().map_or(Ok(()), Err)?;
            if let Some(stored) = self.insert_new(batch).await? {
                outcomes.extend(stored);
                continue;
            }
            let spool = Arc::clone(&self.spool);
            let spooled = batch.to_vec();
            spawn_blocking(move || spool.append(&spooled)).await??;
            outcomes.extend(std::iter::repeat_n(FeedbackWriteOutcome::Spooled, batch.len()));
        }
        for outcome in &outcomes {
            self.metrics.record_feedback(outcome.name());
        }
        Ok(outcomes)
    }

    /// Stores feedback in the database; none if that does not take it now.
    async fn insert_new(&self, batch: &[FeedbackRecord]) -> Result<Option<Vec<FeedbackWriteOutcome>>, RegistryError> {
        let Ok(_lock) = timeout(FEEDBACK_LOCK_TIMEOUT, self.lock.lock()).await else { return Ok(None) };
        if self.database.downtime().is_some() {
            return Ok(None);
        }
        match FeedbackTable(&self.database).insert_new(batch).await {
            Ok(stored) => Ok(Some(stored)),
            Err(error) => {
                // A restart would not look for a spool where the directory is lost.
                self.database.database_fault().map_or(Ok(()), Err)?;
                tracing::warn!(%error, "database write failed; feedback spooled to disk");
                Ok(None)
            }
        }
    }

    /// Stores feedback from the spool in the database: all of it or none.
    pub(super) async fn insert_spooled(&self, batch: &[FeedbackRecord]) -> Result<(), ChangeError> {
        let _lock = self.lock.lock().await;
        FeedbackTable(&self.database).insert_spooled(batch).await?;
        Ok(())
    }

    /// Feedback after this time and id, in its order, as much as `page` holds; true if there may be more.
    ///
    /// # Errors
    /// If the database does not answer.
    pub async fn list(
        &self,
        model: Option<&str>,
        after: (i64, &str),
        page: FeedbackPageLimit,
    ) -> Result<(Vec<FeedbackRecord>, bool), ChangeError> {
        Ok(FeedbackTable(&self.database).list(model, after, page).await?)
    }

    /// Deletes feedback of at most `most` answers from before a time, in microseconds since 1970.
    pub(super) async fn delete_older(&self, oldest: i64, most: u32) -> Result<DeletionCounts, ChangeError> {
        let _lock = self.lock.lock().await;
        delete_feedback(&self.database, oldest, most).await
    }

    /// Removes deleted feedback from the database's log; false if another connection is in the way.
    pub(super) async fn truncate_wal(&self) -> Result<bool, ChangeError> {
        let _lock = self.lock.lock().await;
        truncate_wal(&self.database).await
    }

    /// Bytes of feedback that wait for the database.
    #[must_use]
    pub fn spooled_bytes(&self) -> u64 {
        self.spool.size_bytes()
    }
}
