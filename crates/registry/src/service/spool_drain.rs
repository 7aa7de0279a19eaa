//! Moves feedback from the spool to the database.

use std::sync::Arc;
use std::time::Duration;

use tokio::task::spawn_blocking;

use super::feedback_store::{FeedbackStore, MAX_FEEDBACK_BATCH};
use super::polling::Poller;
use crate::spool::SpoolSegment;

const SPOOL_CHECK_INTERVAL: Duration = Duration::from_millis(500);
const SPOOL_RETRY_INTERVAL: Duration = Duration::from_secs(2);

/// Moves the spool to the database whenever that answers.
pub(super) struct SpoolDrain {
    pub(super) feedback: Arc<FeedbackStore>,
}

impl Poller for SpoolDrain {
    async fn poll(&mut self) -> Duration {
        if self.feedback.spool.has_pending() && self.feedback.context.database_downtime().is_none() {
            self.drain_spool().await;
        }
        if self.feedback.spool.has_pending() { SPOOL_RETRY_INTERVAL } else { SPOOL_CHECK_INTERVAL }
    }
}

impl SpoolDrain {
    async fn drain_spool(&self) {
        let spool = Arc::clone(&self.feedback.spool);
        let segments = match spawn_blocking(move || spool.take_segments()).await {
            Ok(segments) => segments,
            Err(error) => return self.log_drain_failure(&error),
        };
        for segment in segments {
            match self.drain_segment(segment).await {
                Ok(0) => {}
                Ok(stored) => tracing::info!(stored, "spooled feedback stored in the database"),
                // The next segment may be a good one.
                Err(error) => self.log_drain_failure(&*error),
            }
            if self.feedback.context.database_downtime().is_some() || self.feedback.context.stop.is_cancelled() {
                return self.feedback.spool.mark_pending();
            }
        }
    }

    fn log_drain_failure(&self, error: &dyn std::fmt::Display) {
        tracing::warn!(%error, "spooled feedback could not be stored; retrying");
        self.feedback.spool.mark_pending();
    }

    async fn drain_segment(
        &self,
        mut segment: SpoolSegment,
    ) -> Result<usize, Box<dyn std::error::Error + Send + Sync>> {
        let mut stored = 0;
        loop {
            let (rest, batch) =
                spawn_blocking(move || segment.read_batch(MAX_FEEDBACK_BATCH).map(|batch| (segment, batch))).await??;
            segment = rest;
            if batch.is_empty() {
                spawn_blocking(|| segment.delete()).await??;
                return Ok(stored);
            }
            self.feedback.insert_spooled(&batch).await?;
            stored += batch.len();
        }
    }
}
