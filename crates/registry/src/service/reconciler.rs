//! Loads, publishes and unloads versions until what is served is what the records say.

use std::collections::BTreeSet;
use std::sync::Arc;

use parking_lot::Mutex;

use super::change_context::ChangeContext;
use super::commit;
use super::registry_context::RegistryContext;
use super::version_loader::{LoadDeps, VersionLoader};
use crate::error::RegistryError;
use crate::record::ModelRecord;
use crate::registry_state::RegistryState;
use crate::served_model::ServedModel;
use crate::version_name::VersionName;
use crate::version_state::VersionState;

/// Why versions are loaded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum LoadReason {
    /// The server starts. It checks the memory when all are loaded.
    Start,
    /// The state has changed. Only active versions are retried.
    Change,
    /// Failed versions are retried.
    Retry,
}

/// Keeps what is served in line with the registry's state. Nothing else loads versions.
pub(super) struct Reconciler {
    pub(super) context: Arc<RegistryContext>,
    pub(super) loader: VersionLoader,
    /// One version is loaded at a time: the next one needs to know the memory that is left.
    load_lock: tokio::sync::Mutex<()>,
    /// The epoch of the state that was reconciled last.
    reconciled_epoch: Mutex<Option<i64>>,
}

impl Reconciler {
    pub(super) fn new(context: Arc<RegistryContext>, deps: LoadDeps) -> Self {
        let loader = VersionLoader { context: Arc::clone(&context), deps };
        Self { context, loader, load_lock: tokio::sync::Mutex::default(), reconciled_epoch: Mutex::default() }
    }

    /// Loads what is recorded for the first time. The server is ready afterwards, unless it stops.
    pub(super) async fn load_at_startup(&self) {
        let state = self.context.state.lock().clone();
        // Not what only a rollback leads to: it may have to be pulled.
        let required =
            versions_to_load(&state).filter(|(name, record, version)| state.receives_traffic(name, record, version));
        let registry = self.context.registry();
        registry
            .require_at_startup(required.map(|(name, _, version)| (name.clone(), VersionName::new(version))).collect());
        self.reconcile(LoadReason::Start).await;
        if !self.context.stop.is_cancelled() {
            registry.require_at_startup(BTreeSet::new());
        }
    }

    /// True if the state has changed since it was reconciled last.
    pub(super) fn is_outdated(&self) -> bool {
        Some(self.context.state.lock().epoch) != *self.reconciled_epoch.lock()
    }

    /// True if a version is to be loaded that is not.
    pub(super) fn has_missing_versions(&self) -> bool {
        let state = self.context.state.lock();
        versions_to_load(&state).any(|(name, _, version)| !self.context.is_loaded(name, version))
    }

    /// Brings what is served in line with the state. A version that cannot serve leaves the one before in its place.
    pub(super) async fn reconcile(&self, reason: LoadReason) {
        let _lock = self.load_lock.lock().await;
        let state = self.context.state.lock().clone();
        *self.reconciled_epoch.lock() = Some(state.epoch);
        // Loaded versions do not wait for others.
        self.context.publish();
        let default_model = self.context.registry().snapshot().default_model.clone();
        for (name, record, version) in versions_in_load_order(&state, &default_model) {
            if self.context.stop.is_cancelled() {
                return;
            }
            let is_active = record.active.as_deref() == Some(version);
            let stays_failed = reason == LoadReason::Change && !is_active && self.loader.has_failed(name, version);
            if stays_failed || self.context.is_loaded(name, version) {
                continue;
            }
            match self.load(name, record, version, reason).await {
                // The load has logged it.
                Ok(()) | Err(RegistryError::BrokenVersion(..) | RegistryError::LoadInterrupted(..)) => {}
                Err(error) => {
                    tracing::error!(model = name, version, %error, "model version not loaded");
                    self.context.registry().mark_failed(name, version, &error.to_string());
                }
            }
            self.context.publish();
        }
        self.activate_initial().await;
    }

    /// Makes the highest version that works the active one, where none is recorded.
    async fn activate_initial(&self) {
        let (_, records) = self.context.recorded_models();
        for (name, record) in records.iter().filter(|(_, record)| record.active.is_none()) {
            let snapshot = self.context.registry().snapshot();
            let active = snapshot.models.get(name).and_then(ServedModel::active);
            let Some((version, VersionState::Ready(_))) = active else { continue };
            let version = version.as_str();
            let change_context = ChangeContext {
                actor: "start".to_owned(),
                expected_revision: Some(record.revision),
                ..ChangeContext::default()
            };
            let change = change_context.request(name, "activate", Some(version));
            if let Err(error) = commit::change_model(&self.context, change, |record| record.activate(version)).await {
                tracing::warn!(model = name, %error, "active version could not be recorded");
            }
        }
    }

    /// Loads a version for a change, unless it is loaded. There must be memory for it before and afterwards.
    pub(super) async fn ensure_loaded(
        &self,
        name: &str,
        record: &ModelRecord,
        version: &str,
    ) -> Result<(), RegistryError> {
        if self.context.is_loaded(name, version) {
            return Ok(());
        }
        let _lock = self.load_lock.lock().await;
        if self.context.is_loaded(name, version) {
            return Ok(());
        }
        self.load(name, record, version, LoadReason::Change).await?;
        // Only now it is known what its runs need.
        self.loader.check_memory(version, 0).inspect_err(|_| self.context.registry().remove_version(name, version))
    }

    async fn load(
        &self,
        name: &str,
        record: &ModelRecord,
        version: &str,
        reason: LoadReason,
    ) -> Result<(), RegistryError> {
        let version_record = record.version(version)?;
        if reason != LoadReason::Start {
            self.loader.check_memory(version, version_record.bytes())?;
        }
        self.loader.load(name, version, version_record).await
    }

    /// True while versions are loaded.
    pub(super) fn is_loading(&self) -> bool {
        self.load_lock.try_lock().is_err()
    }
}

/// The versions to load of all models.
fn versions_to_load(state: &RegistryState) -> impl Iterator<Item = (&String, &ModelRecord, &str)> {
    state.records.iter().flat_map(|(name, record)| {
        state.versions_to_load(name, record).into_iter().map(move |version| (name, record, version))
    })
}

/// The versions to load: first those that requests are sent to, of these first those that answer for their model.
fn versions_in_load_order<'a>(
    state: &'a RegistryState,
    default_model: &str,
) -> Vec<(&'a String, &'a ModelRecord, &'a str)> {
    let mut all: Vec<_> = versions_to_load(state).collect();
    all.sort_by_key(|(name, record, version)| {
        let answers = record.can_serve_default(version);
        let is_in_experiment = state.is_in_experiment(name, version);
        (!state.receives_traffic(name, record, version), !answers, *name != default_model, !is_in_experiment)
    });
    all
}
