//! What the services of the registry share.

use std::sync::Arc;
use std::time::Duration;

use predictd_experiments::experiment::{Experiment, ExperimentError, ExperimentMap};
use predictd_metrics::Metrics;
use tokio_util::sync::CancellationToken;

use super::snapshot_publisher::SnapshotPublisher;
use super::state_cache::StateCache;
use crate::database::{self, AuditEntry, ChangeError, Database, HistoryFilter, StorageFault};
use crate::record::{ModelRecord, ModelRecords};
use crate::snapshot::Registry;
use crate::store::Store;

/// The records, their state in memory, and what is published of them.
pub struct RegistryContext {
    pub(super) database: Database,
    pub(super) state: StateCache,
    pub(super) publisher: SnapshotPublisher,
    /// The files of versions.
    pub store: Store,
    pub(super) metrics: Arc<Metrics>,
    /// Ends loads and loops.
    pub(super) stop: CancellationToken,
}

impl RegistryContext {
    /// Reads the records again, and publishes them.
    pub(super) async fn refresh(&self) -> Result<(), ChangeError> {
        self.state.refresh(&self.database).await?;
        self.publish();
        Ok(())
    }

    /// Brings the snapshot in line with the state, as far as versions are loaded.
    pub(super) fn publish(&self) {
        self.publisher.publish(&self.state.lock());
    }

    /// True if the version is loaded.
    pub(super) fn is_loaded(&self, model: &str, version: &str) -> bool {
        self.registry().snapshot().models.get(model).is_some_and(|served| served.ready_model(version).is_some())
    }

    /// The model as it was recorded last; an empty record if there is none.
    pub(super) fn model_record_or_default(&self, name: &str) -> ModelRecord {
        self.model_record(name).unwrap_or_default()
    }

    /// The model as it was recorded last.
    #[must_use]
    pub fn model_record(&self, name: &str) -> Option<ModelRecord> {
        self.state.lock().records.get(name).cloned()
    }

    /// The epoch, and the models as they were recorded last.
    #[must_use]
    pub fn recorded_models(&self) -> (i64, ModelRecords) {
        let state = self.state.lock();
        (state.epoch, state.records.clone())
    }

    /// The experiments as they were recorded last.
    #[must_use]
    pub fn experiments(&self) -> ExperimentMap {
        self.state.lock().experiments.clone()
    }

    /// The experiment as it was recorded last.
    pub(super) fn experiment(&self, name: &str) -> Result<Experiment, ExperimentError> {
        let experiment = self.state.lock().experiments.get(name).cloned();
        experiment.ok_or_else(|| ExperimentError::NotFound(name.to_owned()))
    }

    /// The number of models whose recorded active version is not loaded.
    #[must_use]
    pub fn unserved_model_count(&self) -> usize {
        let state = self.state.lock();
        state
            .records
            .iter()
            .filter(|(name, record)| record.active.as_deref().is_some_and(|active| !self.is_loaded(name, active)))
            .count()
    }

    /// What is served.
    #[must_use]
    pub fn registry(&self) -> &Arc<Registry> {
        &self.publisher.registry
    }

    /// How long the database has not answered; none if it answered last.
    #[must_use]
    pub fn database_downtime(&self) -> Option<Duration> {
        self.database.downtime()
    }

    /// What is wrong with the database's file or with the data directory, if anything.
    #[must_use]
    pub fn storage_fault(&self) -> Option<StorageFault> {
        self.database.storage_fault()
    }

    /// The latest audit entries, the last first.
    ///
    /// # Errors
    /// If the database does not answer.
    pub async fn history(&self, filter: HistoryFilter<'_>, limit: i64) -> Result<Vec<AuditEntry>, ChangeError> {
        Ok(database::history(&self.database, filter, limit).await?)
    }

    /// Stores what was counted of experiments.
    pub async fn flush_counters(&self) {
        let counters = &self.publisher.phase_counters;
        counters.flush(&self.database).await;
        counters.remove_finished(&self.state.lock(), &self.registry().snapshot());
    }

    /// Stores what was counted, and ends all connections to the database.
    pub async fn close(&self) {
        self.flush_counters().await;
        self.database.close().await;
    }

    /// Ends the loops, and loads nothing more but what is being loaded.
    pub fn stop_loading(&self) {
        self.stop.cancel();
    }
}
