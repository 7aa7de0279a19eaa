//! A keeper with a thread of its own: what it does ends well, whoever asked for it and has left.

use std::fs::File;
use std::sync::Arc;
use std::sync::mpsc::sync_channel;

use tokio::runtime::{Builder, Runtime};
use tokio::sync::Semaphore;

use super::service::{AliasSubscription, RegistryError, RegistryService};

/// Most changes and looks that are under way or wait.
const MAX_PENDING_TASKS: usize = 64;

/// A keeper and its thread.
pub struct RegistryRuntime {
    service: Arc<RegistryService>,
    /// For what is under way.
    task_permits: Arc<Semaphore>,
    /// Taken when it ends.
    runtime: Option<Runtime>,
    /// Nobody else writes to the file of the database while this is open.
    _lock: Option<File>,
}

impl RegistryRuntime {
    /// Opens a keeper on a thread of its own.
    ///
    /// # Errors
    /// One sentence.
    pub fn start<F>(lock: Option<File>, open: impl FnOnce() -> F + Send + 'static) -> Result<Self, String>
    where
        F: Future<Output = Result<RegistryService, String>> + Send + 'static,
    {
        let runtime = Builder::new_multi_thread().worker_threads(1).thread_name("predictd-keeper").enable_all().build();
        let runtime = runtime.map_err(|error| error.to_string())?;
        let (opened, is_opened) = sync_channel(1);
        // Whoever starts a server may be on a thread that runs tasks: it must not run others there.
        runtime.spawn(async move { opened.send(open().await) });
        let keeper = is_opened.recv().map_err(|_| "the work was given up".to_owned()).and_then(|opened| opened);
        match keeper {
            Ok(keeper) => Ok(Self {
                service: Arc::new(keeper),
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

    /// The keeper.
    #[must_use]
    pub fn service(&self) -> &Arc<RegistryService> {
        &self.service
    }

    /// Has the keeper look at the database and at experiments until it is told to stop.
    pub fn spawn_monitors(&self) {
        let Some(runtime) = &self.runtime else { return };
        let keeper = Arc::clone(&self.service);
        runtime.spawn(async move { keeper.watch_database().await });
        let keeper = Arc::clone(&self.service);
        runtime.spawn(async move { keeper.run_evaluation_loop().await });
        let keeper = Arc::clone(&self.service);
        runtime.spawn(async move { keeper.run_spool_drain().await });
        let keeper = Arc::clone(&self.service);
        runtime.spawn(async move { keeper.run_feedback_retention().await });
    }

    /// Has the keeper follow what others change, and these aliases, until it is told to stop.
    pub fn spawn_reconcilers(&self, aliases: Vec<AliasSubscription>) {
        let Some(runtime) = &self.runtime else { return };
        let keeper = Arc::clone(&self.service);
        runtime.spawn(async move { keeper.follow_changes().await });
        let keeper = Arc::clone(&self.service);
        runtime.spawn(async move { keeper.watch_accuracy().await });
        for following in aliases {
            let keeper = Arc::clone(&self.service);
            runtime.spawn(async move { keeper.follow_alias(&following).await });
        }
    }

    /// Does something to its end, even if who waits for it leaves.
    ///
    /// # Errors
    /// What it says, that it panicked, or that too many others wait.
    pub async fn run<T, F>(&self, work: impl FnOnce(Arc<RegistryService>) -> F) -> Result<T, RegistryError>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, RegistryError>> + Send + 'static,
    {
        let place = Arc::clone(&self.task_permits).try_acquire_owned().map_err(|_| RegistryError::Busy)?;
        let work = work(Arc::clone(&self.service));
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
        f.debug_struct("Keeping").finish_non_exhaustive()
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
