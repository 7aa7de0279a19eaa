//! Loads what is recorded, and has it served.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;

use predictd_engine::model_source::ModelSource;
use predictd_text::manifest::ManifestError;
use tokio::task::spawn_blocking;

use super::change_context::ChangeContext;
use super::error::RegistryError;
use super::publish_scope::PublishScope;
use super::registry_service::RegistryService;
use super::version_lease::VersionLease;
use crate::database::{ChangeError, ChangeOutcome};
use crate::record::{ModelRecord, Origin, RecordError, VersionRecord};
use crate::served_model::ServedModel;
use crate::version_name::VersionName;
use crate::version_state::VersionState;

/// Why versions are loaded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum LoadReason {
    /// The server starts: it is looked afterwards whether all of them fit into the memory.
    Start,
    /// Something was changed: what could not be loaded before is not tried again, but for what shall answer.
    Change,
    /// What could not be loaded is tried again.
    Retry,
}

impl RegistryService {
    /// Loads what is recorded for the first time, and records what was found to be good where nothing is.
    pub async fn load_at_startup(&self) {
        let _alone = self.change_lock.lock().await;
        let known = self.state.lock().clone();
        let awaited = known.records.iter().flat_map(|(name, record)| {
            // Not what only a rollback leads to: it may have to be fetched from far.
            let asked = known
                .versions_to_load(name, record)
                .into_iter()
                .filter(|version| known.receives_traffic(name, record, version));
            asked.map(|version| (name.clone(), VersionName::new(version))).collect::<Vec<_>>()
        });
        self.deps.registry.require_at_startup(awaited.collect());
        self.reconcile(LoadReason::Start).await;
        // One that was told to stop does not become ready.
        if !self.stop.is_cancelled() {
            self.deps.registry.require_at_startup(BTreeSet::new());
        }
    }

    /// Loads what is to be loaded, and forgets the rest. A version that cannot serve leaves the old one in its place.
    pub(super) async fn reconcile(&self, why: LoadReason) {
        let known = self.state.lock().clone();
        *self.reconciled_epoch.lock() = Some(known.epoch);
        // What is loaded already, such as what a rollback leads to, does not wait for what is not. No request is sent to a
        // version that is let go.
        self.publish_experiments(PublishScope::RunningOnly);
        for name in known.records.keys() {
            self.publish_model(name);
        }
        let default_model = self.deps.registry.snapshot().default_model.clone();
        let all = known.records.iter().flat_map(|(name, record)| {
            known.versions_to_load(name, record).into_iter().map(move |version| (name, record, version))
        });
        let mut all: Vec<_> = all.collect();
        // What answers goes first, or may answer where none was made active.
        all.sort_by_key(|(name, record, version)| {
            let answers = record.can_serve_default(version);
            let is_in_experiment = known.is_in_experiment(name, version);
            (!known.receives_traffic(name, record, version), !answers, **name != default_model, !is_in_experiment)
        });
        for (name, record, version) in all {
            if self.stop.is_cancelled() {
                return;
            }
            let answers = record.active.as_deref() == Some(version);
            let failed = self.has_failed(name, version) && why == LoadReason::Change && !answers;
            if self.is_loaded(name, version) || failed {
                continue;
            }
            let loaded =
                match if why == LoadReason::Start { Ok(()) } else { self.check_version_memory(record, version) } {
                    Ok(()) => self.load_version(name, record, version).await,
                    Err(error) => Err(error),
                };
            match loaded {
                // Its load has said it.
                Ok(()) | Err(RegistryError::BrokenVersion(..) | RegistryError::LoadInterrupted(..)) => {}
                Err(error) => {
                    tracing::error!(model = name, version, %error, "model version not loaded");
                    self.deps.registry.mark_failed(name, version, &error.to_string());
                }
            }
            self.publish_model(name);
            self.publish_experiments(PublishScope::LoadAttempted);
        }
        for name in known.records.keys() {
            self.publish_model(name);
        }
        self.activate_initial().await;
        self.publish_experiments(PublishScope::All);
    }

    /// Makes the first version that was found to be good the active one, where none is recorded.
    async fn activate_initial(&self) {
        let (_, records) = self.recorded_models();
        for (name, record) in records.iter().filter(|(_, record)| record.active.is_none()) {
            let snapshot = self.deps.registry.snapshot();
            let good = snapshot.models.get(name).and_then(ServedModel::active);
            let Some((version, VersionState::Ready(_))) = good else { continue };
            let version = version.as_str().to_owned();
            let order = ChangeContext { actor: "start".to_owned(), ..ChangeContext::default() };
            let order = ChangeContext { expected_revision: Some(record.revision), ..order };
            if let Err(error) =
                self.commit_change(name, "activate", Some(&version), &order, |record| record.activate(&version)).await
            {
                tracing::warn!(model = name, %error, "active version could not be recorded");
            }
        }
    }

    /// A change that needs a version to be loaded.
    pub(super) async fn load_and_commit(
        &self,
        name: &str,
        action: &str,
        version: &str,
        order: &ChangeContext,
        apply: impl FnOnce(&mut ModelRecord) -> Result<bool, RecordError>,
    ) -> Result<ChangeOutcome, RegistryError> {
        let mut record = self.model_record_or_default(name);
        if order.expected_revision.is_some_and(|seen| seen != record.revision) {
            // Before a load that would be for nothing.
            self.refresh_state().await?;
            record = self.model_record_or_default(name);
            if order.expected_revision.is_some_and(|seen| seen != record.revision) {
                return Err(ChangeError::RevisionMismatch(record.revision).into());
            }
        }
        if !record.versions.contains_key(&VersionName::new(version)) {
            return Err(RecordError::UnknownVersion(version.to_owned()).into());
        }
        let needed = VersionLease::new(&self.leased_versions, name, version);
        let changed = match self.ensure_loaded(name, &record, version).await {
            Ok(()) => self.commit_change(name, action, Some(version), order, apply).await,
            Err(error) => Err(error),
        };
        drop(needed);
        if !matches!(changed, Ok(ChangeOutcome::Changed(_))) {
            // What was loaded for it may not be needed.
            self.publish_model(name);
        }
        changed
    }

    /// Loads a version, if it is not, and looks whether there is room for it before and afterwards.
    pub(super) async fn ensure_loaded(
        &self,
        name: &str,
        record: &ModelRecord,
        version: &str,
    ) -> Result<(), RegistryError> {
        if self.is_loaded(name, version) {
            return Ok(());
        }
        self.check_version_memory(record, version)?;
        self.load_version(name, record, version).await?;
        // What its runs need is known only now.
        (self.deps.memory_check)(&self.deps.registry, 0).map_err(|reason| {
            self.deps.registry.remove_version(name, version);
            RegistryError::InsufficientMemory(version.to_owned(), reason)
        })
    }

    pub(super) fn is_loaded(&self, name: &str, version: &str) -> bool {
        self.deps.registry.snapshot().models.get(name).is_some_and(|served| served.ready_model(version).is_some())
    }

    pub(super) fn has_failed(&self, name: &str, version: &str) -> bool {
        let snapshot = self.deps.registry.snapshot();
        let state = snapshot.models.get(name).and_then(|served| served.versions.get(&VersionName::new(version)));
        matches!(state, Some(VersionState::Failed(_)))
    }

    /// Serves what is recorded, as far as it could be loaded.
    pub(super) fn publish_model(&self, name: &str) {
        // No outdated state is published.
        let known = self.state.lock();
        let Some(record) = known.records.get(name) else { return };
        let snapshot = self.deps.registry.snapshot();
        let Some(served) = snapshot.models.get(name) else { return };
        let mut kept = known.versions_to_load(name, record);
        let switching = self.leased_versions.lock();
        kept.extend(switching.iter().filter(|(model, _)| model == name).map(|(_, version)| version.as_str()));
        let answers = served.active().filter(|(_, state)| matches!(state, VersionState::Ready(_)));
        let mut active = record.active.as_deref();
        let before = record.previous_versions.last().map(String::as_str);
        // What answers goes on until its successor can.
        if let Some((old, _)) = answers.filter(|_| active.is_none_or(|wanted| served.ready_model(wanted).is_none())) {
            kept.insert(old.as_str());
            active = active.is_some().then_some(old.as_str()).or(served.active.as_ref().map(VersionName::as_str));
        }
        self.deps.registry.publish_model(name, active, before, &kept);
    }

    /// Why a version could not be loaded.
    pub(super) fn classify_load_error(&self, version: &str, error: &ManifestError) -> RegistryError {
        let version = version.to_owned();
        let reason = error.to_string();
        // What is interrupted by the end of the server says nothing of the version.
        if error.is_transient || self.stop.is_cancelled() {
            return RegistryError::LoadInterrupted(version, reason);
        }
        RegistryError::BrokenVersion(version, reason)
    }

    /// Refuses a version that does not fit besides the others.
    fn check_version_memory(&self, record: &ModelRecord, version: &str) -> Result<(), RegistryError> {
        let bytes = record.versions.get(&VersionName::new(version)).map_or(0, VersionRecord::bytes);
        self.check_memory(version, bytes)
    }

    /// Refuses so many bytes that do not fit besides the others.
    pub(super) fn check_memory(&self, version: &str, bytes: u64) -> Result<(), RegistryError> {
        (self.deps.memory_check)(&self.deps.registry, bytes)
            .map_err(|reason| RegistryError::InsufficientMemory(version.to_owned(), reason))
    }

    async fn load_version(&self, name: &str, record: &ModelRecord, version: &str) -> Result<(), RegistryError> {
        let Some(found) = record.versions.get(&VersionName::new(version)) else {
            return Err(RecordError::UnknownVersion(version.to_owned()).into());
        };
        let directory = match (&found.origin, found.digest()) {
            (Origin::Directory, _) | (_, None) => self.deps.models_directory.join(name).join(version),
            (origin, Some(digest)) => {
                let directory = self.deps.store.version_path(&digest);
                // Another replica has registered it, or its files were lost or damaged.
                let lacks = !directory.is_dir() || self.has_failed(name, version);
                if let Origin::Mlflow(uri) = origin
                    && lacks
                    && self.deps.mlflow.is_some()
                {
                    self.repull_files(uri, &digest).await?;
                }
                directory
            }
        };
        let source = model_source(name, version, directory, found);
        let registry = Arc::clone(&self.deps.registry);
        let host = self.deps.load_context.clone();
        let loaded = spawn_blocking(move || registry.load(&source, &host)).await?;
        loaded.map_err(|error| self.classify_load_error(version, &error))
    }
}

/// What to load.
pub(super) fn model_source(name: &str, version: &str, directory: PathBuf, record: &VersionRecord) -> ModelSource {
    let registered = record.files.iter().map(|file| (file.path.clone(), file.sha256.clone())).collect();
    ModelSource { name: name.to_owned(), version: version.to_owned(), directory, registered_hashes: registered }
}
