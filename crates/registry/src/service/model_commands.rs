//! What an operator can do to a model.

use std::collections::BTreeMap;

use predictd_engine::loader;
use predictd_platform::clock::now_millis;
use tokio::task::spawn_blocking;

use super::change_context::ChangeContext;
use super::error::RegistryError;
use super::reconciler::model_source;
use super::registry_service::RegistryService;
use crate::database::ChangeOutcome;
use crate::record::{FileRecord, ModelRecord, Origin, RecordError, VersionRecord};
use crate::store::{StagedVersion, StoreError};

/// A version that is to be added.
#[derive(Debug, Clone)]
pub struct NewVersion {
    /// Where its files came from.
    pub origin: Origin,
    /// Its files, which are in the store.
    pub files: Vec<FileRecord>,
    /// What there is to say of it.
    pub metadata: BTreeMap<String, String>,
}

impl RegistryService {
    /// Adds a version whose files are in the store, once it was found to serve. One that is there already has its files put
    /// back, if they are not.
    ///
    /// # Errors
    /// [`RegistryError`]; nothing is kept then.
    pub async fn register(
        &self,
        name: &str,
        version: &str,
        added: NewVersion,
        order: &ChangeContext,
    ) -> Result<ChangeOutcome, RegistryError> {
        let NewVersion { origin, files, metadata } = added;
        let metrics = BTreeMap::new();
        let registered_at = now_millis();
        let record = VersionRecord { origin, files, metadata, metrics, pinned: false, registered_at };
        // What cannot be recorded need not be checked.
        let is_new = self.model_record_or_default(name).register(version, record.clone())?;
        // Others may change what they like meanwhile.
        let verified = if is_new || self.is_missing_files(name, version, &record) {
            Some(self.stage_and_verify(name, version, &record).await?)
        } else {
            None
        };
        let _alone = self.change_lock.lock().await;
        if let Some(assembled) = verified {
            let store = self.deps.store.clone();
            spawn_blocking(move || store.commit(&assembled)).await?.map_err(StoreError::Disk)?;
        }
        self.commit_change(name, "register", Some(version), order, |model| model.register(version, record)).await
    }

    /// True for a version whose files are not where they should be, or are not what they should be.
    fn is_missing_files(&self, name: &str, version: &str, record: &VersionRecord) -> bool {
        let is_stored = record.digest().is_some_and(|digest| self.deps.store.version_path(&digest).is_dir());
        !is_stored || self.has_failed(name, version)
    }

    /// Puts a version together and looks whether it serves.
    async fn stage_and_verify(
        &self,
        name: &str,
        version: &str,
        record: &VersionRecord,
    ) -> Result<StagedVersion, RegistryError> {
        let _alone = self.verify_lock.lock().await;
        let store = self.deps.store.clone();
        let files = record.files.clone();
        let assembled = spawn_blocking(move || store.stage(&files)).await??;
        self.check_memory(version, record.bytes())?;
        let source = model_source(name, version, assembled.path().to_owned(), record);
        let host = self.deps.load_context.clone();
        let verified = spawn_blocking(move || loader::verify(&source, &host)).await?;
        verified.map_err(|error| self.classify_load_error(version, &error))?;
        Ok(assembled)
    }

    /// Makes a version the active one, once it was found to serve.
    ///
    /// # Errors
    /// [`RegistryError`]; the old one answers on then.
    pub async fn activate(
        &self,
        name: &str,
        version: &str,
        order: &ChangeContext,
    ) -> Result<ChangeOutcome, RegistryError> {
        let _alone = self.change_lock.lock().await;
        self.load_and_commit(name, "activate", version, order, |model| model.activate(version)).await
    }

    /// Makes the version active that was so before.
    ///
    /// # Errors
    /// [`RegistryError`]; the present one answers on then.
    pub async fn roll_back(&self, name: &str, order: &ChangeContext) -> Result<ChangeOutcome, RegistryError> {
        self.refresh_state().await?;
        let previous = self.model_record_or_default(name).previous_version()?.to_owned();
        // A rollback does not wait for a load, unless it needs one itself.
        let needs_load = !self.is_loaded(name, &previous);
        let _alone = if needs_load { Some(self.change_lock.lock().await) } else { None };
        let apply = |model: &mut ModelRecord| {
            // Another process may have rolled back meanwhile: not twice for one request.
            if model.previous_version()? == previous {
                model.roll_back().map(|()| true)
            } else {
                Err(RecordError::NoPreviousVersion)
            }
        };
        self.load_and_commit(name, "roll back", &previous, order, apply).await
    }

    /// Adds figures to those of a version.
    ///
    /// # Errors
    /// [`RegistryError`].
    pub async fn add_metrics(
        &self,
        name: &str,
        version: &str,
        metrics: BTreeMap<String, f64>,
        order: &ChangeContext,
    ) -> Result<ChangeOutcome, RegistryError> {
        let _alone = self.change_lock.lock().await;
        self.commit_change(name, "measure", Some(version), order, |model| model.add_metrics(version, metrics)).await
    }

    /// Keeps a version loaded, or no longer.
    ///
    /// # Errors
    /// [`RegistryError`].
    pub async fn set_pinned(
        &self,
        name: &str,
        version: &str,
        pinned: bool,
        order: &ChangeContext,
    ) -> Result<ChangeOutcome, RegistryError> {
        let _alone = self.change_lock.lock().await;
        let action = if pinned { "pin" } else { "unpin" };
        if pinned {
            return self.load_and_commit(name, action, version, order, |model| model.set_pinned(version, true)).await;
        }
        self.commit_change(name, action, Some(version), order, |model| model.set_pinned(version, false)).await
    }

    /// Forgets a version.
    ///
    /// # Errors
    /// [`RegistryError`].
    pub async fn remove(
        &self,
        name: &str,
        version: &str,
        order: &ChangeContext,
    ) -> Result<ChangeOutcome, RegistryError> {
        let _alone = self.change_lock.lock().await;
        self.commit_change(name, "remove", Some(version), order, |model| model.remove(version).map(|()| true)).await
    }
}
