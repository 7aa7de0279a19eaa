//! What is served: a registry, and everything that it knows at one moment.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Instant;

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use predictd_engine::drift_monitor::DriftMonitor;
use predictd_engine::loaded_version::LoadedVersion;
use predictd_engine::loader;
use predictd_engine::{load_context::LoadContext, model_source::ModelSource};
use predictd_experiments::counters::ActivePhase;
use predictd_metrics::VersionGauges;
use predictd_text::manifest::ManifestError;

use super::models_directory::{self, MissingVersions};
use super::record::{ModelRecords, Origin};
use super::served_model::ServedModel;
use super::version_name::VersionName;
use super::version_state::{LoadFailure, VersionState};

/// Everything the registry knows at one moment.
#[derive(Debug, Clone, Default)]
pub struct Snapshot {
    /// Models by name.
    pub models: BTreeMap<String, ServedModel>,
    /// The model that answers requests that name none.
    pub default_model: String,
    /// Experiments that run, by the model that callers ask for.
    pub experiments: BTreeMap<String, Arc<ActivePhase>>,
    /// Versions that a server which starts tries to load before it is ready, with their models.
    pub startup_required: BTreeSet<(String, VersionName)>,
}

/// Why no model answers.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ResolveError {
    /// No model of this name.
    #[error("there is no model of this name")]
    UnknownModel,
    /// The model has no such version.
    #[error("the model has no such version")]
    UnknownVersion,
    /// It is still being loaded.
    #[error("the model is still being loaded")]
    ModelLoading,
    /// It could not be loaded.
    #[error("the model could not be loaded")]
    LoadFailed,
}

/// The registry. Readers take a snapshot without a lock and never wait for a load.
#[derive(Debug, Default)]
pub struct Registry {
    snapshot: ArcSwap<Snapshot>,
    /// Held by an update from its copy to its swap: no update is lost.
    update_lock: Mutex<()>,
}

impl Registry {
    /// A registry of models that are still to be loaded, none of which is recorded.
    ///
    /// # Errors
    /// If there is no model, or none of the name that shall be the default.
    pub fn from_sources(sources: &[ModelSource], default_model: Option<&str>) -> Result<Self, String> {
        let records = models_directory::sync_in_memory(&ModelRecords::new(), sources, MissingVersions::Retain);
        let registry = Self::from_records(&records, default_model, &[])?;
        registry.require_at_startup(
            sources.iter().map(|source| (source.name.clone(), VersionName::new(&source.version))).collect(),
        );
        Ok(registry)
    }

    /// A registry of models that are still to be loaded, and of some of which only the names are known for now.
    ///
    /// # Errors
    /// If there is no model, or none of the name that shall be the default.
    pub fn from_records(records: &ModelRecords, default_model: Option<&str>, coming: &[&str]) -> Result<Self, String> {
        let served = records.iter().map(|(name, record)| {
            let versions = record.required_versions().into_iter();
            let served = ServedModel {
                versions: versions.map(|version| (VersionName::new(version), VersionState::Loading)).collect(),
                active: record.active.as_deref().map(VersionName::new),
                previous: record.previous_versions.last().map(|version| VersionName::new(version)),
                // An operator has a directory of it.
                auto_select: record.versions.values().any(|version| version.origin == Origin::Directory),
            };
            (name.clone(), served)
        });
        let models: BTreeMap<_, _> = served.filter(|(_, served)| !served.versions.is_empty()).collect();
        // The operator's own go first: what is registered while the server runs does not become the default by a restart.
        let first = models.iter().min_by_key(|(_, served)| !served.auto_select).map(|(name, _)| name.as_str());
        let none = "it holds no model: a model is a directory NAME/VERSION with a model.onnx in it";
        let default_model = default_model.or(first).or(coming.first().copied()).ok_or(none)?.to_owned();
        if !models.contains_key(&default_model) && !coming.contains(&default_model.as_str()) {
            return Err(format!("it holds no model {default_model:?}, which --default-model names"));
        }
        let snapshot = Snapshot { models, default_model, ..Snapshot::default() };
        Ok(Self { snapshot: ArcSwap::from_pointee(snapshot), update_lock: Mutex::default() })
    }

    /// What is known now.
    #[must_use]
    pub fn snapshot(&self) -> Arc<Snapshot> {
        self.snapshot.load_full()
    }

    /// Loads one model version and puts the outcome into the registry.
    ///
    /// # Errors
    /// A file and what is wrong with it.
    pub fn load(&self, source: &ModelSource, context: &LoadContext) -> Result<(), ManifestError> {
        let model = &source.name;
        let version = &source.version;
        self.set_state(model, version, VersionState::Loading);
        let start = Instant::now();
        let loaded = loader::load(source, context);
        let seconds = start.elapsed().as_secs_f64();
        // Logged after the state is set: a reader of "ready" may send a request at once.
        match loaded.map(Arc::new) {
            Ok(loaded) => {
                self.set_state(model, version, VersionState::Ready(Arc::clone(&loaded)));
                tracing::info!(model, version, seconds, runs_inline = loaded.can_run_inline(), "model version loaded");
                Ok(())
            }
            Err(error) => {
                let failure = LoadFailure { reason: error.to_string(), device_refusal: error.device_refusal.clone() };
                self.set_state(model, version, VersionState::Failed(failure));
                tracing::error!(model, version, seconds, %error, "model version load failed");
                Err(error)
            }
        }
    }

    fn set_state(&self, model: &str, version: &str, state: VersionState) {
        self.update(|changed| {
            changed.models.entry(model.to_owned()).or_default().versions.insert(VersionName::new(version), state);
        });
    }

    /// Says that a version could not even be tried to load, and why. The version before answers then.
    pub fn mark_failed(&self, name: &str, version: &str, reason: &str) {
        let failure = LoadFailure { reason: reason.to_owned(), device_refusal: None };
        self.set_state(name, version, VersionState::Failed(failure));
    }

    /// Forgets a version that shall not be served after all.
    pub fn remove_version(&self, name: &str, version: &str) {
        self.update(|changed| {
            if let Some(served) = changed.models.get_mut(name) {
                served.versions.remove(&VersionName::new(version));
            }
            changed.startup_required.remove(&(name.to_owned(), VersionName::new(version)));
            changed.models.retain(|_, served| !served.versions.is_empty());
        });
    }

    /// Publishes a changed snapshot.
    pub(super) fn update(&self, change: impl FnOnce(&mut Snapshot)) {
        let lock = self.update_lock.lock();
        let mut changed = Snapshot::clone(&self.snapshot.load());
        change(&mut changed);
        let old = self.snapshot.swap(Arc::new(changed));
        drop(lock);
        // It may be the last to hold a model: no update waits for its end.
        drop(old);
    }

    /// Says which versions are tried before the server is ready. None once it has started: what comes later makes no server
    /// unready.
    pub fn require_at_startup(&self, awaited: BTreeSet<(String, VersionName)>) {
        self.update(|changed| changed.startup_required = awaited);
    }

    /// Ends all workers after what they have, and waits for them until `deadline`.
    pub fn close(&self, deadline: Instant) {
        for model in self.snapshot.swap(Arc::default()).ready_models() {
            model.close(deadline);
        }
    }
}

impl Snapshot {
    /// The version that answers: the one asked for, else the active one.
    ///
    /// # Errors
    /// [`ResolveError`] if there is none, or none yet.
    pub fn resolve(&self, model: Option<&str>, version: Option<&str>) -> Result<&Arc<LoadedVersion>, ResolveError> {
        // The default is there, or will be.
        let unknown = if model.is_none() { ResolveError::ModelLoading } else { ResolveError::UnknownModel };
        let served = self.models.get(model.unwrap_or(&self.default_model)).ok_or(unknown)?;
        let state = match version {
            Some(version) => served.versions.get(&VersionName::new(version)),
            None => served.active().map(|(_, state)| state),
        };
        match state.ok_or(ResolveError::UnknownVersion)? {
            VersionState::Ready(model) => Ok(model),
            VersionState::Loading => Err(ResolveError::ModelLoading),
            VersionState::Failed(_) => Err(ResolveError::LoadFailed),
        }
    }

    /// Every version as it is at this moment.
    #[must_use]
    pub fn version_gauges(&self) -> Vec<VersionGauges> {
        let mut statuses = Vec::new();
        for (model, served) in &self.models {
            let answers = served.active().map(|(version, _)| version);
            for (version, state) in &served.versions {
                let loaded = state.ready();
                statuses.push(VersionGauges {
                    model: model.clone(),
                    version: version.as_str().to_owned(),
                    state: state.name(),
                    is_active: answers == Some(version),
                    device: loaded.map(|model| model.placement.device()),
                    is_fallback: loaded.is_some_and(|model| model.placement.fallback_reason.is_some()),
                    queued_texts: loaded.map_or(0, |model| model.runner.queue.item_count()),
                    oldest_wait: loaded.map(|model| model.runner.queue.oldest_wait()).unwrap_or_default(),
                    expected_wait: loaded.map(|model| model.wait_time()).unwrap_or_default(),
                    signals: loaded
                        .and_then(|model| model.drift_monitor.as_ref())
                        .map(DriftMonitor::current_signals)
                        .unwrap_or_default(),
                });
            }
        }
        statuses
    }

    /// Every version that answers.
    pub fn ready_models(&self) -> impl Iterator<Item = &LoadedVersion> {
        self.models
            .values()
            .flat_map(|served| served.versions.values())
            .filter_map(VersionState::ready)
            .map(Arc::as_ref)
    }

    /// True if the default model answers and, of a server that starts, every version that requests are sent to answers or
    /// has failed: until then a proxy does better to ask another replica.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.resolve(None, None).is_ok()
            && self
                .startup_required
                .iter()
                .all(|(model, version)| self.was_tried(model, version) && self.is_settled(model))
    }

    /// True for a version that is loaded, or could not be.
    pub(super) fn was_tried(&self, model: &str, version: &VersionName) -> bool {
        self.state(model, version).is_some_and(|state| !matches!(state, VersionState::Loading))
    }

    /// True unless the version that answers is still being loaded: where the active one has failed, the one before it.
    fn is_settled(&self, model: &str) -> bool {
        let active = self.models.get(model).and_then(ServedModel::active);
        !matches!(active, Some((_, VersionState::Loading)))
    }

    pub(super) fn state(&self, model: &str, version: &VersionName) -> Option<&VersionState> {
        self.models.get(model)?.versions.get(version)
    }

    /// Why a server must not go on: one of the versions that it began with does not run on the device that it must run on.
    #[must_use]
    pub fn device_refusal(&self, begun_with: &Self) -> Option<&str> {
        let mut versions = self.models.iter().flat_map(|(name, served)| served.versions.iter().map(move |v| (name, v)));
        versions.find_map(|(name, (version, state))| match state {
            VersionState::Failed(failure) if begun_with.state(name, version).is_some() => {
                failure.device_refusal.as_deref()
            }
            _ => None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::version_state::LoadFailure;

    fn snapshot(versions: &[(&str, VersionState)]) -> Snapshot {
        let versions = versions.iter().map(|(v, state)| (VersionName::new(v), state.clone())).collect();
        let models = [("m".to_owned(), ServedModel { versions, ..ServedModel::default() })].into();
        Snapshot { models, ..Snapshot::default() }
    }

    fn failed(refusal: Option<&str>) -> VersionState {
        VersionState::Failed(LoadFailure { reason: "x".to_owned(), device_refusal: refusal.map(str::to_owned) })
    }

    #[test]
    fn device_refusal_only_for_startup_versions() {
        let begun_with = snapshot(&[("1", VersionState::Loading), ("2", VersionState::Loading)]);
        let now = snapshot(&[("1", failed(None)), ("2", VersionState::Loading), ("3", failed(Some("later")))]);
        assert_eq!(now.device_refusal(&begun_with), None);
        let now = snapshot(&[("1", failed(None)), ("2", failed(Some("no GPU"))), ("3", failed(Some("later")))]);
        assert_eq!(now.device_refusal(&begun_with), Some("no GPU"));
        assert_eq!(now.device_refusal(&Snapshot::default()), None);
    }
}
