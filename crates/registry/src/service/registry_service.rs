//! The registry's service: what it works with, what it knows, and how it reads and writes that down.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicI64;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use predictd_engine::{load_context::LoadContext, model_source::ModelSource};
use predictd_metrics::drift::AccuracyStatus;
use tokio::task::spawn_blocking;
use tokio_util::sync::CancellationToken;

use super::change_context::ChangeContext;
use super::counter_flush::CounterFlush;
use crate::database::{AuditEntry, ChangeError, ChangeOutcome, Database, HistoryFilter, StorageFault};
use crate::mlflow::client::MlflowClient;
use crate::record::{ModelRecord, ModelRecords};
use crate::registry_state::{RegistryState, StateFile};
use crate::snapshot::Registry;
use crate::spool::FeedbackSpool;
use crate::store::Store;

/// Says whether so many bytes of files, loaded besides all else, fit into the memory.
pub type MemoryCheck = Arc<dyn Fn(&Registry, u64) -> Result<(), String> + Send + Sync>;

/// What a keeper works with.
pub struct ServiceDeps {
    /// What is served.
    pub registry: Arc<Registry>,
    /// What is recorded.
    pub database: Database,
    /// Where files of registered versions are.
    pub store: Store,
    /// The operator's own models.
    pub models_directory: PathBuf,
    /// What models are loaded with.
    pub load_context: LoadContext,
    /// Whether there is room for one more.
    pub memory_check: MemoryCheck,
    /// Where feedback waits while the database does not answer.
    pub spool: FeedbackSpool,
    /// Where versions may be pulled from.
    pub mlflow: Option<MlflowClient>,
    /// Where what is known is written down, for a start while the database cannot be used.
    pub state_file: StateFile,
    /// The age from which feedback is deleted, if it is.
    pub feedback_retention: Option<Duration>,
}

/// Keeps what is served in line with what is recorded.
pub struct RegistryService {
    pub(super) deps: ServiceDeps,
    /// As it was read last.
    pub(super) state: Mutex<RegistryState>,
    /// The operator's own models, until they are recorded.
    pub(super) unrecorded_sources: Mutex<Vec<ModelSource>>,
    /// One change of this process at a time.
    pub(super) change_lock: tokio::sync::Mutex<()>,
    /// One new version is verified at a time: each needs the memory of a model.
    pub(super) verify_lock: tokio::sync::Mutex<()>,
    pub(super) refresh_lock: tokio::sync::Mutex<()>,
    pub(super) state_file_lock: tokio::sync::Mutex<()>,
    /// What is loaded for a change that is not recorded yet.
    pub(super) leased_versions: Mutex<BTreeSet<(String, String)>>,
    /// How many changes the database counted when it was looked last.
    pub(super) database_epoch: Mutex<Option<i64>>,
    /// The epoch up to which what is served was brought in line with what is recorded.
    pub(super) reconciled_epoch: Mutex<Option<i64>>,
    /// Since when the database does not answer.
    pub(super) database_down_since: Mutex<Option<Instant>>,
    /// How right versions were lately, as it was looked last.
    pub(super) accuracies: Mutex<Vec<AccuracyStatus>>,
    /// Phases of experiments that have something to be kept.
    pub(super) counter_flushes: Mutex<Vec<CounterFlush>>,
    /// One at a time keeps it.
    pub(super) counter_flush_lock: tokio::sync::Mutex<()>,
    /// One at a time tells the database what is true: its transactions wait for each other anyway, and others need
    /// connections too.
    pub(super) feedback_lock: tokio::sync::Mutex<()>,
    /// When something was told last, in microseconds since 1970.
    pub(super) last_feedback_timestamp: AtomicI64,
    /// Nothing more is loaded.
    pub(super) stop: CancellationToken,
}

impl RegistryService {
    /// Keeps what was known last, until the database answers; the operator's own models are recorded then.
    #[must_use]
    pub fn new(place: ServiceDeps, known: RegistryState, found: Vec<ModelSource>) -> Self {
        let away = (!place.database.is_initialized()).then(Instant::now);
        Self {
            deps: place,
            state: Mutex::new(known),
            unrecorded_sources: Mutex::new(found),
            change_lock: tokio::sync::Mutex::default(),
            verify_lock: tokio::sync::Mutex::default(),
            refresh_lock: tokio::sync::Mutex::default(),
            state_file_lock: tokio::sync::Mutex::default(),
            leased_versions: Mutex::default(),
            database_epoch: Mutex::default(),
            reconciled_epoch: Mutex::default(),
            database_down_since: Mutex::new(away),
            accuracies: Mutex::default(),
            counter_flushes: Mutex::default(),
            counter_flush_lock: tokio::sync::Mutex::default(),
            feedback_lock: tokio::sync::Mutex::new(()),
            last_feedback_timestamp: AtomicI64::new(0),
            stop: CancellationToken::new(),
        }
    }

    /// Reads what is recorded.
    ///
    /// # Errors
    /// If the database does not answer.
    pub async fn open(place: ServiceDeps) -> Result<Self, ChangeError> {
        let keeper = Self::new(place, RegistryState::default(), Vec::new());
        keeper.refresh_state().await?;
        Ok(keeper)
    }

    /// Loads nothing more, but for what is being loaded.
    pub fn stop_loading(&self) {
        self.stop.cancel();
    }

    /// The models as they were recorded when it was looked last, and the epoch.
    #[must_use]
    pub fn recorded_models(&self) -> (i64, ModelRecords) {
        let known = self.state.lock();
        (known.epoch, known.records.clone())
    }

    /// A model as it was recorded when it was looked last.
    #[must_use]
    pub fn model_record(&self, name: &str) -> Option<ModelRecord> {
        self.state.lock().records.get(name).cloned()
    }

    /// How long the database has not answered; none if it did when it was looked last.
    #[must_use]
    pub fn database_downtime(&self) -> Option<Duration> {
        self.database_down_since.lock().map(|since| since.elapsed())
    }

    /// Why nothing can be kept, if so: neither feedback nor a change. What was known last is served.
    #[must_use]
    pub fn database_fault(&self) -> Option<StorageFault> {
        self.deps.database.database_fault()
    }

    /// What is wrong with the database's file or with the data directory, if anything.
    #[must_use]
    pub fn storage_fault(&self) -> Option<StorageFault> {
        self.deps.database.storage_fault()
    }

    /// What is served.
    #[must_use]
    pub fn registry(&self) -> &Arc<Registry> {
        &self.deps.registry
    }

    /// Ends all connections to the database.
    pub async fn close(&self) {
        self.deps.database.close().await;
    }

    /// The files of versions.
    #[must_use]
    pub fn store(&self) -> &Store {
        &self.deps.store
    }

    /// What was done last.
    ///
    /// # Errors
    /// If the database does not answer.
    pub async fn history(&self, of: HistoryFilter<'_>, most: i64) -> Result<Vec<AuditEntry>, ChangeError> {
        Ok(self.deps.database.history(of, most).await?)
    }

    pub(super) async fn refresh_state(&self) -> Result<(), ChangeError> {
        // One after the other: what was read earlier must not be taken for a database that has gone back.
        let _alone = self.refresh_lock.lock().await;
        let read = self.deps.database.read_state().await?;
        let is_new = self.state.lock().merge(read);
        if is_new {
            self.write_state_file().await;
        }
        Ok(())
    }

    /// Writes down what is known, for a start while the database does not answer.
    pub(super) async fn write_state_file(&self) {
        let keepsake = self.deps.state_file.clone();
        let _alone = self.state_file_lock.lock().await;
        let known = self.state.lock().clone();
        if let Ok(Err(error)) = spawn_blocking(move || keepsake.write(&known)).await {
            tracing::warn!(%error, "state file could not be written");
        }
    }

    /// What became of a request that was made before under the same Idempotency-Key: then nothing is to be done.
    ///
    /// # Errors
    /// If the key was used for another request, or the database does not answer.
    pub async fn repeated_outcome<T>(&self, order: &ChangeContext) -> Result<Option<ChangeOutcome<T>>, ChangeError> {
        let Some((key, request)) = &order.idempotency_key else { return Ok(None) };
        self.deps.database.find_repeated(key, request).await
    }

    /// Models whose recorded version does not answer here.
    #[must_use]
    pub fn unserved_model_count(&self) -> usize {
        let known = self.state.lock();
        let snapshot = self.deps.registry.snapshot();
        let recorded = known.records.iter().filter_map(|(name, record)| Some((name, record.active.as_deref()?)));
        recorded
            .filter(|(name, active)| {
                snapshot.models.get(*name).is_none_or(|served| served.ready_model(active).is_none())
            })
            .count()
    }

    pub(super) fn model_record_or_default(&self, name: &str) -> ModelRecord {
        self.model_record(name).unwrap_or_default()
    }
}
