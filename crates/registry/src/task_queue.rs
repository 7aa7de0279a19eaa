//! A bounded number of tasks that go on to their end, even if their callers leave.

use std::sync::Arc;

use tokio::runtime::Handle;
use tokio::sync::Semaphore;

use super::error::RegistryError;

/// Most tasks of a queue that are under way or wait.
const MAX_PENDING_TASKS: u32 = 64;

/// Tasks on a runtime.
#[derive(Debug, Clone)]
pub(crate) struct TaskQueue {
    runtime: Handle,
    /// One for each task that goes on.
    permits: Arc<Semaphore>,
}

impl TaskQueue {
    pub(crate) fn new(runtime: Handle) -> Self {
        Self { runtime, permits: Arc::new(Semaphore::new(MAX_PENDING_TASKS as usize)) }
    }

    pub(crate) fn runtime(&self) -> &Handle {
        &self.runtime
    }

    /// Runs a task to its end, even if the caller leaves.
    ///
    /// # Errors
    /// What the task says, that it panicked, or [`RegistryError::Busy`] if the queue is full or has ended.
    pub(crate) async fn run<T: Send + 'static>(
        &self,
        task: impl Future<Output = Result<T, RegistryError>> + Send + 'static,
    ) -> Result<T, RegistryError> {
        let permit = Arc::clone(&self.permits).try_acquire_owned().map_err(|_| RegistryError::Busy)?;
        let task = self.runtime.spawn(async move {
            let _permit = permit;
            task.await
        });
        task.await?
    }

    /// Waits for the end of all tasks. The queue takes no more from now on.
    pub(crate) async fn drain(&self) {
        // From here on, no other task gets a permit.
        let _all_permits = self.permits.acquire_many(MAX_PENDING_TASKS).await;
        self.permits.close();
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::Notify;

    use super::*;

    #[tokio::test]
    async fn task_queue_drain_waits_for_task_whose_caller_left() {
        let queue = TaskQueue::new(Handle::current());
        let end = Arc::new(Notify::new());
        let mut left = Box::pin(queue.run({
            let end = Arc::clone(&end);
            async move {
                end.notified().await;
                Ok(())
            }
        }));
        assert!(futures_util::poll!(&mut left).is_pending());
        drop(left);
        let mut drain = Box::pin(queue.drain());
        assert!(futures_util::poll!(&mut drain).is_pending());
        assert!(matches!(queue.run(async { Ok(()) }).await, Err(RegistryError::Busy)));
        end.notify_one();
        drain.await;
        assert!(matches!(queue.run(async { Ok(()) }).await, Err(RegistryError::Busy)));
    }
}
