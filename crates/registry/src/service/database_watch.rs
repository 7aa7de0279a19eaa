//! Notices what others change, whether the database answers, and what the store need not keep.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::task::spawn_blocking;

use super::publish_scope::PublishScope;
use super::reconciler::LoadReason;
use super::registry_service::RegistryService;
use crate::database::StorageFault;
use crate::models_directory::{self, MissingVersions};
use crate::record::{ModelRecord, VersionRecord};

/// How often it is looked whether somebody else changed something.
const POLL_INTERVAL: Duration = Duration::from_millis(500);
/// When what could not be loaded is tried for the first time again, and how often at last.
const MIN_RETRY_INTERVAL: Duration = Duration::from_secs(10);
const MAX_RETRY_INTERVAL: Duration = Duration::from_mins(10);
/// How often the store is cleared of what nothing needs.
const STORE_CLEANUP_INTERVAL: Duration = Duration::from_hours(1);

/// When what could not be loaded is tried again: ever more seldom.
struct RetryBackoff {
    due_at: Instant,
    interval: Duration,
}

impl Default for RetryBackoff {
    fn default() -> Self {
        Self { due_at: Instant::now() + MIN_RETRY_INTERVAL, interval: MIN_RETRY_INTERVAL }
    }
}

impl RetryBackoff {
    fn is_due(&self) -> bool {
        self.due_at <= Instant::now()
    }

    fn back_off(&mut self) {
        self.interval = (self.interval * 2).min(MAX_RETRY_INTERVAL);
        self.due_at = Instant::now() + self.interval;
    }
}

impl RegistryService {
    /// Looks now and then whether the database answers, and what it counts, until it is told to stop.
    pub async fn watch_database(self: Arc<Self>) {
        let mut condition = self.storage_fault();
        loop {
            let looked = self.poll_database().await;
            let before = std::mem::replace(&mut condition, self.storage_fault());
            if condition != before {
                self.log_storage_fault(condition);
            }
            match looked {
                Ok(epoch) => {
                    *self.database_epoch.lock() = Some(epoch);
                    if epoch != self.state.lock().epoch {
                        // What ends an experiment, or moves users in it, waits for no load.
                        match self.refresh_state().await {
                            Ok(()) => self.publish_experiments(PublishScope::RunningOnly),
                            Err(error) => tracing::error!(%error, "registry could not be read"),
                        }
                    }
                    if self.database_down_since.lock().take().is_some() {
                        tracing::warn!("database available again");
                    }
                }
                Err(reason) => {
                    if self.mark_database_down() {
                        tracing::error!(reason, "database unavailable; serving the last known state");
                    }
                }
            }
            tokio::select! {
                () = tokio::time::sleep(POLL_INTERVAL) => {}
                () = self.stop.cancelled() => return,
            }
        }
    }

    /// Says what has become of the file of the database.
    fn log_storage_fault(&self, condition: Option<StorageFault>) {
        let directory = self.deps.database.data_directory().map(|path| path.display().to_string());
        match condition {
            None => tracing::warn!(directory, "data directory available again"),
            Some(StorageFault::DirectoryLost) => tracing::error!(
                directory,
                "data directory removed or replaced; writes refused until it is restored or the server restarts"
            ),
            Some(reason @ StorageFault::DatabaseDamaged) => tracing::error!(
                directory,
                %reason,
                "database unusable; serving the last known state, refusing feedback and changes"
            ),
        }
    }

    /// Follows what others change, until it is told to stop.
    pub async fn follow_changes(&self) {
        let mut collected: Option<Instant> = None;
        let mut again = RetryBackoff::default();
        loop {
            tokio::select! {
                () = tokio::time::sleep(POLL_INTERVAL) => {}
                () = self.stop.cancelled() => return,
            }
            let Some(epoch) = self.database_epoch.lock().filter(|_| self.database_downtime().is_none()) else {
                continue;
            };
            let is_known = Some(epoch) == *self.reconciled_epoch.lock();
            let is_collected = collected.is_some_and(|at| at.elapsed() < STORE_CLEANUP_INTERVAL);
            if is_known && is_collected && !again.is_due() {
                continue;
            }
            let _alone = self.change_lock.lock().await;
            if !is_known {
                match self.refresh_state().await {
                    Ok(()) => self.reconcile(LoadReason::Change).await,
                    Err(error) => tracing::error!(%error, "registry could not be read"),
                }
                again = RetryBackoff::default();
            } else if !is_collected {
                self.collect_store_garbage().await;
                collected = Some(Instant::now());
            } else {
                // Files may have come since, or what they came from may be back.
                if self.has_missing_versions() {
                    self.reconcile(LoadReason::Retry).await;
                }
                again.back_off();
            }
        }
    }

    /// How many changes there were, once the database can be used and has the operator's own models.
    async fn poll_database(&self) -> Result<i64, String> {
        let database = &self.deps.database;
        if !database.is_initialized() {
            database.initialize().await.map_err(|error| error.to_string())?;
        }
        let found = self.unrecorded_sources.lock().clone();
        if !found.is_empty() {
            models_directory::sync_to_database(database, &found, MissingVersions::Retain)
                .await
                .map_err(|error| error.to_string())?;
            self.unrecorded_sources.lock().clear();
        }
        database.epoch().await.map_err(|error| error.to_string())
    }

    /// True if something is to be loaded that is not.
    fn has_missing_versions(&self) -> bool {
        let known = self.state.lock();
        known.records.iter().any(|(name, record)| {
            known.versions_to_load(name, record).into_iter().any(|version| !self.is_loaded(name, version))
        })
    }

    /// The database does not answer; true if it did before.
    fn mark_database_down(&self) -> bool {
        let mut away = self.database_down_since.lock();
        let answered = away.is_none();
        away.get_or_insert_with(Instant::now);
        answered
    }

    /// Deletes files of the store that nothing that is recorded needs.
    async fn collect_store_garbage(&self) {
        let versions =
            |record: &ModelRecord| record.versions.values().filter_map(VersionRecord::digest).collect::<Vec<_>>();
        let named = self.state.lock().records.values().flat_map(versions).collect();
        let store = self.deps.store.clone();
        match spawn_blocking(move || store.collect_garbage(&named)).await {
            Ok(Ok(0)) => {}
            Ok(Ok(gone)) => tracing::info!(gone, "unreferenced files deleted from the store"),
            Ok(Err(error)) => tracing::warn!(%error, "store cleanup failed"),
            Err(error) => tracing::error!(%error, "store cleanup aborted"),
        }
    }
}
