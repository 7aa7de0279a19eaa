//! The registry's services on a thread of their own: a change goes on to its end when its client has left.

use std::fs::File;
use std::sync::Arc;
use std::sync::mpsc::sync_channel;
use std::time::Duration;

use serde::de::DeserializeOwned;
use tokio::runtime::{Builder, Runtime};

use super::database::ChangeOutcome;
use super::error::RegistryError;
use super::feedback::runtime::FeedbackRuntime;
use super::service::{ChangeContext, RegistryServices, answer_once};
use super::task_queue::TaskQueue;

/// The services and their thread.
pub struct RegistryRuntime {
    services: Arc<RegistryServices>,
    tasks: TaskQueue,
    /// Taken when it ends.
    runtime: Option<Runtime>,
    /// No other process writes to the file of the database while this is open.
    _lock: Option<File>,
}

impl RegistryRuntime {
    /// Opens services on a thread of their own.
    ///
    /// # Errors
    /// One sentence.
    pub fn start(
        lock: Option<File>,
        open: impl Future<Output = Result<RegistryServices, String>> + Send + 'static,
    ) -> Result<Self, String> {
        let runtime =
            Builder::new_multi_thread().worker_threads(1).thread_name("predictd-registry").enable_all().build();
        let runtime = runtime.map_err(|error| error.to_string())?;
        let (opened, is_opened) = sync_channel(1);
        // The caller may be on a thread that runs tasks: it must not block there.
        runtime.spawn(async move { opened.send(open.await) });
        match is_opened.recv().unwrap_or_else(|_| Err("the work was given up".to_owned())) {
            Ok(services) => Ok(Self {
                services: Arc::new(services),
                tasks: TaskQueue::new(runtime.handle().clone()),
                runtime: Some(runtime),
                _lock: lock,
            }),
            Err(error) => {
                runtime.shutdown_background();
                Err(error)
            }
        }
    }

    /// The services.
    #[must_use]
    pub fn services(&self) -> &Arc<RegistryServices> {
        &self.services
    }

    /// Starts what stores feedback, in a task queue of its own. Feedback older than `retention` is deleted.
    #[must_use]
    pub fn start_feedback(&self, retention: Option<Duration>) -> FeedbackRuntime {
        FeedbackRuntime::start(Arc::clone(&self.services.feedback), retention, self.tasks.runtime().clone())
    }

    /// Makes a change to its end. A request that was made before under its Idempotency-Key gets its first outcome.
    ///
    /// # Errors
    /// [`RegistryError`].
    pub async fn change<T, A, F>(
        &self,
        change_context: ChangeContext,
        work: impl FnOnce(Arc<RegistryServices>, ChangeContext) -> F + Send + 'static,
    ) -> Result<ChangeOutcome<T, A>, RegistryError>
    where
        T: Send + 'static,
        A: DeserializeOwned + Send + 'static,
        F: Future<Output = Result<ChangeOutcome<T, A>, RegistryError>> + Send + 'static,
    {
        self.run(|services| async move {
            let registry = Arc::clone(&services.context);
            // In a box: the futures around it would hold it twice.
            let change = Box::pin(work(services, change_context.clone()));
            answer_once(&registry, &change_context, change).await
        })
        .await
    }

    /// Does something to its end, even if who waits for it leaves.
    ///
    /// # Errors
    /// What it says, that it panicked, or that too many others wait.
    pub async fn run<T, F>(&self, work: impl FnOnce(Arc<RegistryServices>) -> F) -> Result<T, RegistryError>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, RegistryError>> + Send + 'static,
    {
        self.tasks.run(work(Arc::clone(&self.services))).await
    }
}

impl std::fmt::Debug for RegistryRuntime {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("RegistryRuntime")
    }
}

impl Drop for RegistryRuntime {
    fn drop(&mut self) {
        // It must not be waited for where tasks run.
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}
