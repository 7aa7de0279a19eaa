//! What an operator or an alias can do to a model.
//!
//! A version is loaded and checked before the record says that it answers; the record is written before it does. A change that
//! fails on the way leaves both as they were.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use predictd_platform::clock::now_millis;
use tokio::sync::{Mutex, MutexGuard};
use tokio::task::spawn_blocking;

use super::change_context::ChangeContext;
use super::commit;
use super::reconciler::Reconciler;
use super::registry_context::RegistryContext;
use super::version_lease::VersionLease;
use crate::database::{ChangeError, ChangeOutcome, ChangeRequest};
use crate::error::RegistryError;
use crate::mlflow::client::MlflowClient;
use crate::mlflow::pull::{PullRequest, pull_model};
use crate::record::{ModelRecord, RecordError, VersionRecord};
use crate::store::{StagedVersion, StoreError};

/// Longest pull.
const PULL_TIMEOUT: Duration = Duration::from_hours(1);
/// Most versions of a model that were pulled and are kept.
const MAX_PULLED_VERSIONS: usize = 32;

/// Changes models.
pub struct ModelService {
    pub(super) context: Arc<RegistryContext>,
    reconciler: Arc<Reconciler>,
    /// One change of a model at a time. A rollback that loads nothing does not wait for it.
    change_lock: Mutex<()>,
    /// One new version is verified at a time: each needs the memory of a model.
    verify_lock: Mutex<()>,
}

impl ModelService {
    pub(super) fn new(context: Arc<RegistryContext>, reconciler: Arc<Reconciler>) -> Self {
        Self { context, reconciler, change_lock: Mutex::default(), verify_lock: Mutex::default() }
    }

    /// Registers a version whose files an MLflow server keeps.
    ///
    /// # Errors
    /// [`RegistryError`]; nothing is kept then.
    pub async fn register_pulled(
        &self,
        name: &str,
        version: &str,
        request: PullRequest,
        change_context: &ChangeContext,
    ) -> Result<ChangeOutcome, RegistryError> {
        self.register(name, version, self.pull_version(request).await?, change_context).await
    }

    /// Brings the files of a model into the store, for a new version.
    pub(super) async fn pull_version(&self, request: PullRequest) -> Result<VersionRecord, RegistryError> {
        Ok(pull_model(self.mlflow_client()?, &self.context.store, request, PULL_TIMEOUT).await?)
    }

    pub(super) fn mlflow_client(&self) -> Result<&MlflowClient, RegistryError> {
        self.reconciler.loader.deps.mlflow.as_ref().ok_or(RegistryError::MlflowNotConfigured)
    }

    /// Registers a version whose files are in the store, once they were loaded and checked. The files of a registered version
    /// are put back if they are lost.
    ///
    /// # Errors
    /// [`RegistryError`]; nothing is kept then.
    pub async fn register(
        &self,
        name: &str,
        version: &str,
        added: VersionRecord,
        change_context: &ChangeContext,
    ) -> Result<ChangeOutcome, RegistryError> {
        let record = VersionRecord { registered_at: now_millis(), ..added };
        // A version that cannot be recorded need not be verified.
        let is_new = self.context.model_record_or_default(name).register(version, record.clone())?;
        // Other changes do not wait for this.
        let verified = if is_new || self.is_missing_files(name, version, &record) {
            Some(self.stage_and_verify(name, version, &record).await?)
        } else {
            None
        };
        let _lock = self.change_lock.lock().await;
        if let Some(staged) = verified {
            let store = self.context.store.clone();
            spawn_blocking(move || store.commit(&staged)).await?.map_err(StoreError::Disk)?;
        }
        commit::change_model(&self.context, change_context.request(name, "register", Some(version)), |model| {
            model.register(version, record)
        })
        .await
    }

    /// True for a version whose files are not in the store, or are not what they should be.
    fn is_missing_files(&self, name: &str, version: &str, record: &VersionRecord) -> bool {
        let is_stored = record.digest().is_some_and(|digest| self.context.store.version_path(&digest).is_dir());
        !is_stored || self.reconciler.loader.has_failed(name, version)
    }

    async fn stage_and_verify(
        &self,
        name: &str,
        version: &str,
        record: &VersionRecord,
    ) -> Result<StagedVersion, RegistryError> {
        let _lock = self.verify_lock.lock().await;
        let store = self.context.store.clone();
        let files = record.files.clone();
        let staged = spawn_blocking(move || store.stage(&files)).await??;
        self.reconciler.loader.verify(name, version, record, &staged).await?;
        Ok(staged)
    }

    /// Makes a version the active one, once it is loaded.
    ///
    /// # Errors
    /// [`RegistryError`]; the version before goes on answering then.
    pub async fn activate(
        &self,
        name: &str,
        version: &str,
        change_context: &ChangeContext,
    ) -> Result<ChangeOutcome, RegistryError> {
        let change = change_context.request(name, "activate", Some(version));
        let _lock = self.lock_changes(change).await?;
        self.load_and_commit(change, version, |model| model.activate(version)).await
    }

    /// Makes the previous version the active one.
    ///
    /// # Errors
    /// [`RegistryError`]; the present version goes on answering then.
    pub async fn roll_back(&self, name: &str, change_context: &ChangeContext) -> Result<ChangeOutcome, RegistryError> {
        self.context.refresh().await?;
        let previous = self.context.model_record_or_default(name).previous_version()?.to_owned();
        let is_loaded = self.context.is_loaded(name, &previous);
        let _lock = if is_loaded { None } else { Some(self.change_lock.lock().await) };
        self.load_and_commit(change_context.request(name, "roll back", Some(&previous)), &previous, |model| {
            // Another process may have rolled back meanwhile: not twice for one request.
            if model.previous_version()? != previous {
                return Err(RecordError::NoPreviousVersion);
            }
            model.roll_back().map(|()| true)
        })
        .await
    }

    /// Adds metrics to those of a version.
    ///
    /// # Errors
    /// [`RegistryError`].
    pub async fn add_metrics(
        &self,
        name: &str,
        version: &str,
        metrics: BTreeMap<String, f64>,
        change_context: &ChangeContext,
    ) -> Result<ChangeOutcome, RegistryError> {
        let change = change_context.request(name, "measure", Some(version));
        let _lock = self.lock_changes(change).await?;
        commit::change_model(&self.context, change, |model| model.add_metrics(version, metrics)).await
    }

    /// Pins a version, once it is loaded, or unpins it.
    ///
    /// # Errors
    /// [`RegistryError`].
    pub async fn set_pinned(
        &self,
        name: &str,
        version: &str,
        pinned: bool,
        change_context: &ChangeContext,
    ) -> Result<ChangeOutcome, RegistryError> {
        let change = change_context.request(name, if pinned { "pin" } else { "unpin" }, Some(version));
        let _lock = self.lock_changes(change).await?;
        let apply = |model: &mut ModelRecord| model.set_pinned(version, pinned);
        if pinned {
            return self.load_and_commit(change, version, apply).await;
        }
        commit::change_model(&self.context, change, apply).await
    }

    /// Deletes a version.
    ///
    /// # Errors
    /// [`RegistryError`].
    pub async fn remove(
        &self,
        name: &str,
        version: &str,
        change_context: &ChangeContext,
    ) -> Result<ChangeOutcome, RegistryError> {
        let change = change_context.request(name, "remove", Some(version));
        let _lock = self.lock_changes(change).await?;
        commit::change_model(&self.context, change, |model| model.remove(version).map(|()| true)).await
    }

    /// Makes a version the active one because an alias leads to it, and removes pulled versions that are too many.
    /// `alias_target` is remembered; unchanged if it was already.
    ///
    /// # Errors
    /// [`RegistryError`]; the version before goes on answering then.
    pub(super) async fn activate_alias_target(
        &self,
        name: &str,
        version: &str,
        alias_target: &str,
        change_context: &ChangeContext,
    ) -> Result<ChangeOutcome, RegistryError> {
        let _lock = self.change_lock.lock().await;
        let experiments = self.context.experiments();
        self.load_and_commit(change_context.request(name, "activate", Some(version)), version, |record| {
            // Another replica was here, and what an operator did since stays.
            if !record.set_alias_target(alias_target) {
                return Ok(false);
            }
            record.activate(version)?;
            record.prune_pulled(MAX_PULLED_VERSIONS, |version| {
                experiments.values().any(|experiment| experiment.is_open() && experiment.uses_version(name, version))
            });
            Ok(true)
        })
        .await
    }

    /// Waits for other changes. A change that was decided on another revision is refused at once.
    async fn lock_changes(&self, change: ChangeRequest<'_>) -> Result<MutexGuard<'_, ()>, RegistryError> {
        self.check_revision(change).await?;
        Ok(self.change_lock.lock().await)
    }

    /// The model, at the revision that the change was decided on.
    async fn check_revision(&self, change: ChangeRequest<'_>) -> Result<ModelRecord, RegistryError> {
        let mut record = self.context.model_record_or_default(change.target);
        if change.expected_revision.is_some_and(|expected| expected != record.revision) {
            self.context.refresh().await?;
            record = self.context.model_record_or_default(change.target);
        }
        match change.expected_revision {
            Some(expected) if expected != record.revision => Err(ChangeError::RevisionMismatch(record.revision).into()),
            _ => Ok(record),
        }
    }

    /// Commits a change that needs a version to be loaded.
    async fn load_and_commit(
        &self,
        change: ChangeRequest<'_>,
        version: &str,
        apply: impl FnOnce(&mut ModelRecord) -> Result<bool, RecordError>,
    ) -> Result<ChangeOutcome, RegistryError> {
        // Before a load that would be for nothing.
        let record = self.check_revision(change).await?;
        record.version(version)?;
        let _lease = VersionLease::new(&self.context, change.target, version);
        self.reconciler.ensure_loaded(change.target, &record, version).await?;
        commit::change_model(&self.context, change, apply).await
    }

    /// Deletes files of the store that no version needs; their number.
    pub(super) async fn clean_store(&self) -> Result<usize, RegistryError> {
        // No version is between the store and its record.
        let _lock = self.change_lock.lock().await;
        let (_, records) = self.context.recorded_models();
        let needed =
            records.values().flat_map(|record| record.versions.values()).filter_map(VersionRecord::digest).collect();
        let store = self.context.store.clone();
        Ok(spawn_blocking(move || store.collect_garbage(&needed)).await?.map_err(StoreError::Disk)?)
    }
}
