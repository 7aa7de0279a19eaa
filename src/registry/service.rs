//! Keeps what is served in line with what is recorded, and makes changes to both.
//!
//! A version is loaded and checked before the record says that it answers; the record is written before it does. Whatever
//! fails on the way leaves both as they were.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicI64;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::task::{JoinError, spawn_blocking};
use tokio_util::sync::CancellationToken;

use super::Registry;
use super::database::{
    AuditDetails, AuditEntry, ChangeError, ChangeOutcome, ChangeRequest, Database, HistoryFilter, ModelRecords,
    StorageFault,
};
use super::mlflow::client::MlflowClient;
use super::mlflow::pull::PullError;
use super::record::{ModelRecord, RecordError};
use super::registry_state::{RegistryState, StateFile};
use super::spool::{FeedbackSpool, SpoolError};
use super::store::{Store, StoreError};
use crate::engine::load_context::LoadContext;
use crate::engine::model_source::ModelSource;
use crate::metrics::drift::AccuracyStatus;

mod accuracy_monitor;
mod database_watch;
mod experiment_commands;
mod feedback;
mod feedback_retention;
mod mlflow_pull;
mod mlflow_sync;
mod model_commands;
mod reconciler;
mod rollout_controller;

pub use feedback::FeedbackOutcome;
pub use mlflow_sync::AliasSubscription;
pub use model_commands::NewVersion;
use rollout_controller::CounterFlush;

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
    deps: ServiceDeps,
    /// As it was read last.
    state: Mutex<RegistryState>,
    /// The operator's own models, until they are recorded.
    unrecorded_sources: Mutex<Vec<ModelSource>>,
    /// One change of this process at a time.
    change_lock: tokio::sync::Mutex<()>,
    /// One new version is verified at a time: each needs the memory of a model.
    verify_lock: tokio::sync::Mutex<()>,
    refresh_lock: tokio::sync::Mutex<()>,
    state_file_lock: tokio::sync::Mutex<()>,
    /// What is loaded for a change that is not recorded yet.
    leased_versions: Mutex<BTreeSet<(String, String)>>,
    /// How many changes the database counted when it was looked last.
    database_epoch: Mutex<Option<i64>>,
    /// The epoch up to which what is served was brought in line with what is recorded.
    reconciled_epoch: Mutex<Option<i64>>,
    /// Since when the database does not answer.
    database_down_since: Mutex<Option<Instant>>,
    /// How right versions were lately, as it was looked last.
    accuracies: Mutex<Vec<AccuracyStatus>>,
    /// Phases of experiments that have something to be kept.
    counter_flushes: Mutex<Vec<CounterFlush>>,
    /// One at a time keeps it.
    counter_flush_lock: tokio::sync::Mutex<()>,
    /// One at a time tells the database what is true: its transactions wait for each other anyway, and others need
    /// connections too.
    feedback_lock: tokio::sync::Mutex<()>,
    /// When something was told last, in microseconds since 1970.
    last_feedback_timestamp: AtomicI64,
    /// Nothing more is loaded.
    stop: CancellationToken,
}

/// Who changes something, why, and on what grounds.
#[derive(Debug, Clone, Default)]
pub struct ChangeContext {
    /// Who.
    pub actor: String,
    /// Why, in their words.
    pub reason: Option<String>,
    /// The revision of the model that they saw.
    pub expected_revision: Option<i64>,
    /// Their Idempotency-Key, and what tells the request from others.
    pub idempotency_key: Option<(String, String)>,
}

/// Why nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum RegistryError {
    /// The record.
    #[error(transparent)]
    Change(#[from] ChangeError),
    /// The files.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// It does not load, or does not answer as it should.
    #[error("version {0} cannot serve: {1}")]
    BrokenVersion(String, String),
    /// It could not be looked whether it serves.
    #[error("version {0} cannot be loaded now: {1}")]
    LoadInterrupted(String, String),
    /// It does not fit into the memory.
    #[error("version {0} is not loaded: {1}")]
    InsufficientMemory(String, String),
    /// It cannot be had from the MLflow server.
    #[error(transparent)]
    Pull(#[from] PullError),
    /// There is no MLflow server to ask.
    #[error("this server was not told of an MLflow server (--mlflow)")]
    MlflowNotConfigured,
    /// Arms that cannot be compared.
    #[error("{0}")]
    IncompatibleArms(String),
    /// Too many others wait.
    #[error("too many changes wait already")]
    Busy,
    /// The file of the database cannot be used.
    #[error(transparent)]
    Storage(#[from] StorageFault),
    /// Feedback can be kept nowhere.
    #[error("feedback cannot be kept: {0}")]
    Spool(#[from] SpoolError),
    /// The work came to no end.
    #[error("the work was given up")]
    TaskFailure(#[from] JoinError),
}

impl From<RecordError> for RegistryError {
    fn from(refusal: RecordError) -> Self {
        Self::Change(refusal.into())
    }
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
    async fn write_state_file(&self) {
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
        let (known, snapshot) = (self.state.lock(), self.deps.registry.snapshot());
        let answers = |name: &str, active: &str| {
            snapshot.models.get(name).is_some_and(|served| served.ready_model(active).is_some())
        };
        let recorded = known.records.iter().filter_map(|(name, record)| Some((name, record.active.as_deref()?)));
        recorded.filter(|(name, active)| !answers(name, active)).count()
    }

    /// Writes a change down, and serves accordingly.
    pub(super) async fn commit_change(
        &self,
        name: &str,
        action: &str,
        version: Option<&str>,
        order: &ChangeContext,
        apply: impl FnOnce(&mut ModelRecord) -> Result<bool, RecordError>,
    ) -> Result<ChangeOutcome, RegistryError> {
        let event =
            AuditDetails { actor: &order.actor, action, version, experiment: None, reason: order.reason.as_deref() };
        let key = order.idempotency_key.as_ref().map(|(key, request)| (key.as_str(), request.as_str()));
        let change = ChangeRequest {
            target: name,
            expected_revision: order.expected_revision,
            idempotency_key: key,
            protects_experiments: true,
            audit: event,
        };
        let answer = |record: &ModelRecord| {
            // Three plain values can always be written.
            serde_json::to_string(&(record.revision, &record.active, record.previous_versions.last()))
                .unwrap_or_default()
        };
        let outcome = self.deps.database.change_model(change, apply, answer).await?;
        if let ChangeOutcome::Changed(record) = &outcome {
            self.deps.load_context.metrics.record_registry_change(name, action);
            tracing::info!(model = name, action, version, by = order.actor, "registry changed");
            {
                let mut known = self.state.lock();
                let newer = known.records.get(name).is_none_or(|known| known.revision < record.revision);
                if newer {
                    let before = known.records.insert(name.to_owned(), record.clone());
                    let gone = before.iter().flat_map(|before| before.versions.keys());
                    for version in gone.filter(|version| !record.versions.contains_key(version)) {
                        self.deps.load_context.metrics.remove_version(name, version.as_str());
                    }
                }
            }
            self.write_state_file().await;
            self.publish_model(name);
        }
        Ok(outcome)
    }

    pub(super) fn model_record_or_default(&self, name: &str) -> ModelRecord {
        self.model_record(name).unwrap_or_default()
    }
}
