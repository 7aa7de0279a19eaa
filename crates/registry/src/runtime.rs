//! The registry's services on a thread of their own: a change goes on to its end when its client has left.

use std::fs::File;
use std::sync::Arc;
use std::sync::mpsc::sync_channel;

use tokio::runtime::{Builder, Runtime};
use tokio::sync::Semaphore;

use super::database::ChangeOutcome;
use super::service::{ChangeContext, RegistryError, RegistryServices};

/// Most changes and looks that are under way or wait.
const MAX_PENDING_TASKS: usize = 64;

/// The services and their thread.
pub struct RegistryRuntime {
    services: Arc<RegistryServices>,
    /// One for each task that goes on.
    task_permits: Arc<Semaphore>,
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
                task_permits: Arc::new(Semaphore::new(MAX_PENDING_TASKS)),
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

    /// Makes a change to its end. A request that was made before under its Idempotency-Key gets its first outcome: the
    /// transaction of a change looks for it, and this does where a change is refused.
    ///
    /// # Errors
    /// [`RegistryError`].
    pub async fn change<T, F>(
        &self,
        order: ChangeContext,
        work: impl FnOnce(Arc<RegistryServices>, ChangeContext) -> F + Send + 'static,
    ) -> Result<ChangeOutcome<T>, RegistryError>
    where
        T: Send + 'static,
        F: Future<Output = Result<ChangeOutcome<T>, RegistryError>> + Send + 'static,
    {
        self.run(|services| async move {
            match work(Arc::clone(&services), order.clone()).await {
                Err(error) if error.is_refusal() => services.context.find_repeated(&order).await?.ok_or(error),
                outcome => outcome,
            }
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
        let place = Arc::clone(&self.task_permits).try_acquire_owned().map_err(|_| RegistryError::Busy)?;
        let work = work(Arc::clone(&self.services));
        let work = async move {
            let _place = place;
            work.await
        };
        match &self.runtime {
            Some(runtime) => runtime.spawn(work).await?,
            None => work.await,
        }
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
