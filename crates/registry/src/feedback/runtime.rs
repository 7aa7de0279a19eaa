//! Feedback on the registry's thread, with a queue of its own: changes of models and feedback do not delay each other.

use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;

use super::retention::FeedbackRetention;
use super::spool_drain::SpoolDrain;
use super::store::FeedbackStore;
use super::{FeedbackRecord, FeedbackWriteOutcome};
use crate::database::feedback::FeedbackPageLimit;
use crate::error::RegistryError;
use crate::polling::poll_until;
use crate::task_queue::TaskQueue;

/// Stores and reads feedback. What was begun goes on to its end when its client has left.
pub struct FeedbackRuntime {
    store: Arc<FeedbackStore>,
    tasks: TaskQueue,
    /// Ends the loops.
    stop: CancellationToken,
}

impl FeedbackRuntime {
    /// Starts on `runtime`, without which tasks fail: drains the spool, and deletes feedback older than `retention`.
    #[must_use]
    pub fn start(store: Arc<FeedbackStore>, retention: Option<Duration>, runtime: Handle) -> Self {
        let stop = CancellationToken::new();
        runtime.spawn(poll_until(stop.clone(), SpoolDrain { feedback: Arc::clone(&store), stop: stop.clone() }));
        if let Some(retention) = retention {
            let feedback = Arc::clone(&store);
            let retention = FeedbackRetention { feedback, retention, is_in_log: true, stop: stop.clone() };
            runtime.spawn(poll_until(stop.clone(), retention));
        }
        Self { store, tasks: TaskQueue::new(runtime), stop }
    }

    /// A time for feedback that comes now, in microseconds since 1970: no two have the same.
    #[must_use]
    pub fn next_timestamp(&self) -> i64 {
        self.store.next_timestamp()
    }

    /// Stores feedback, in its order: once this says so, it is in the database or synced on disk.
    ///
    /// # Errors
    /// Those of [`FeedbackStore::store`], and [`RegistryError::Busy`].
    pub async fn store(&self, records: Vec<FeedbackRecord>) -> Result<Vec<FeedbackWriteOutcome>, RegistryError> {
        let store = Arc::clone(&self.store);
        self.tasks.run(async move { store.store(&records).await }).await
    }

    /// Feedback after this time and id, in its order, as much as `page` holds; true if there may be more.
    ///
    /// # Errors
    /// If the database does not answer, and [`RegistryError::Busy`].
    pub async fn list(
        &self,
        model: Option<String>,
        (reported_at, id): (i64, String),
        page: FeedbackPageLimit,
    ) -> Result<(Vec<FeedbackRecord>, bool), RegistryError> {
        let store = Arc::clone(&self.store);
        self.tasks.run(async move { Ok(store.list(model.as_deref(), (reported_at, &id), page).await?) }).await
    }

    /// Cancels the loops, waits for the tasks under way, and takes no more. Closing the pool waits for the loops' last transactions.
    pub async fn drain(&self) {
        self.stop.cancel();
        self.tasks.drain().await;
    }
}

#[cfg(test)]
mod tests {
    use super::super::spool::FeedbackSpool;
    use super::*;
    use crate::database::{Database, sqlite_url};
    use crate::feedback::tests::sample_feedback;
    use predictd_metrics::Metrics;

    #[tokio::test]
    async fn feedback_stored_while_changes_fill_their_queue_and_caller_has_left() {
        let data = tempfile::tempdir().unwrap();
        let database = Database::connect_lazy(&sqlite_url(&data.path().join("test.db")).unwrap()).unwrap();
        database.mark_down();
        let metrics = Arc::new(Metrics::new().unwrap());
        let store = Arc::new(FeedbackStore::new(database, FeedbackSpool::new(data.path()), metrics));
        let feedback = FeedbackRuntime::start(Arc::clone(&store), None, Handle::current());

        let changes = TaskQueue::new(Handle::current());
        let mut pending = Vec::new();
        let is_full = loop {
            let mut change = Box::pin(changes.run(std::future::pending::<Result<(), _>>()));
            match futures_util::poll!(&mut change) {
                std::task::Poll::Pending => pending.push(change),
                std::task::Poll::Ready(refused) => break matches!(refused, Err(RegistryError::Busy)),
            }
        };
        assert!(is_full);
        assert_eq!(feedback.store(vec![sample_feedback(1)]).await.unwrap(), [FeedbackWriteOutcome::Spooled]);
        let one = store.spooled_bytes();
        assert!(one > 0);

        let mut left = Box::pin(feedback.store(vec![sample_feedback(1)]));
        assert!(futures_util::poll!(&mut left).is_pending());
        drop(left);
        feedback.drain().await;
        assert_eq!(store.spooled_bytes(), 2 * one);
        assert!(matches!(feedback.store(vec![sample_feedback(1)]).await, Err(RegistryError::Busy)));
    }
}
