//! Notices whether the database answers, and what other replicas change.

use std::sync::Arc;
use std::time::Duration;

use predictd_engine::model_source::ModelSource;

use super::registry_context::RegistryContext;
use crate::database::StorageFault;
use crate::models_directory::{self, MissingVersions};
use crate::polling::Poller;

const POLL_INTERVAL: Duration = Duration::from_millis(500);

/// Watches the database. Changes of others are published as far as versions are loaded.
pub(super) struct DatabaseWatch {
    context: Arc<RegistryContext>,
    /// The operator's own models, until they are recorded.
    unrecorded_sources: Vec<ModelSource>,
    fault: Option<StorageFault>,
}

impl Poller for DatabaseWatch {
    async fn poll(&mut self) -> Duration {
        let polled = self.poll_epoch().await;
        let fault = self.context.storage_fault();
        if fault != std::mem::replace(&mut self.fault, fault) {
            self.log_storage_fault(fault);
        }
        match polled {
            Ok(epoch) => self.follow(epoch).await,
            Err(reason) => {
                if self.context.database.mark_down() {
                    tracing::error!(reason, "database unavailable; serving the last known state");
                }
            }
        }
        POLL_INTERVAL
    }
}

impl DatabaseWatch {
    pub(super) fn new(context: Arc<RegistryContext>, unrecorded_sources: Vec<ModelSource>) -> Self {
        Self { fault: context.storage_fault(), context, unrecorded_sources }
    }

    /// Reads the records if the database has had changes, which it counts by `epoch`.
    async fn follow(&self, epoch: i64) {
        let read_epoch = self.context.state.lock().epoch;
        if epoch != read_epoch
            && let Err(error) = self.context.refresh().await
        {
            tracing::error!(%error, "registry could not be read");
        }
        if self.context.database.mark_up() {
            tracing::warn!("database available again");
        }
    }

    /// Logs what has become of the data directory and the database's file.
    fn log_storage_fault(&self, fault: Option<StorageFault>) {
        let directory = self.context.database.data_directory().map(|path| path.display().to_string());
        match fault {
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

    /// The epoch, once the database can be used and has the operator's own models.
    async fn poll_epoch(&mut self) -> Result<i64, String> {
        let database = &self.context.database;
        if !database.is_initialized() {
            database.initialize().await.map_err(|error| error.to_string())?;
        }
        if !self.unrecorded_sources.is_empty() {
            models_directory::sync_to_database(database, &self.unrecorded_sources, MissingVersions::Retain)
                .await
                .map_err(|error| error.to_string())?;
            self.unrecorded_sources.clear();
        }
        database.epoch().await.map_err(|error| error.to_string())
    }
}
