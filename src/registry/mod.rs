//! Which models and versions there are, and which of them answer.
//!
//! - [`models_directory`]: finds them in a directory
//! - [`version_name`]: their order; [`version_state`]: whether they answer
//! - [`record`]: what is recorded of them, and how that may change
//! - [`database`]: where it is recorded, [`backup`]: copies of it; [`store`]: where their files are
//! - [`data_directory`]: who may read what the server keeps, and whether it is still there
//! - [`mlflow`]: models that an MLflow server keeps
//! - [`feedback`]: what was told of earlier answers; [`spool`]: where that waits while the database does not answer
//! - [`registry_state`]: what was recorded when the database answered last
//! - [`service`]: changes both, and keeps what is served in line with them; [`runtime`]: its thread

pub mod backup;
pub mod data_directory;
pub mod database;
pub mod feedback;
pub mod mlflow;
pub mod models_directory;
pub mod record;
pub mod registry_state;
pub mod runtime;
pub mod service;
pub mod spool;
pub mod store;
pub mod version_name;
pub mod version_state;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Instant;

use parking_lot::RwLock;

use crate::engine::drift_monitor::DriftMonitor;
use crate::engine::load_context::LoadContext;
use crate::engine::loaded_version::LoadedVersion;
use crate::engine::loader;
use crate::engine::model_source::ModelSource;
use crate::experiments::counters::ActivePhase;
use crate::metrics::VersionStatus;
use crate::text::manifest::ManifestError;
use database::ModelRecords;
use record::{ModelRecord, Origin};
use version_name::VersionName;
pub use version_state::{LoadFailure, VersionState};

/// Names of models and versions: no path, no surprise in a log line or a metric.
#[must_use]
pub fn is_valid_name(name: &str) -> bool {
    let plain = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit();
    name.len() <= 64
        && name.bytes().next().is_some_and(plain)
        && name.bytes().all(|c| plain(c) || matches!(c, b'.' | b'_' | b'-'))
        && !name.contains("..")
}

/// The versions of one model.
pub type VersionStates = BTreeMap<VersionName, VersionState>;

/// A model as it is served: the versions that are loaded, or shall be.
#[derive(Debug, Clone, Default)]
pub struct ServedModel {
    /// By name.
    pub versions: VersionStates,
    /// The one that an operator made active, or that was found to be good.
    pub active: Option<VersionName>,
    /// The one that was active before.
    pub previous: Option<VersionName>,
    /// While none was made active, the highest that works answers: so it is with an operator's directories.
    pub auto_select: bool,
}

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

/// The registry. Readers take a snapshot; nobody waits for a load.
#[derive(Debug, Default)]
pub struct Registry {
    snapshot: RwLock<Arc<Snapshot>>,
}

impl Registry {
    /// A registry of models that are still to be loaded, none of which is recorded.
    ///
    /// # Errors
    /// If there is no model, or none of the name that shall be the default.
    pub fn from_sources(sources: &[ModelSource], default_model: Option<&str>) -> Result<Self, String> {
        let mut models: BTreeMap<String, ServedModel> = BTreeMap::new();
        for source in sources {
            let served = models.entry(source.name.clone()).or_default();
            served.auto_select = true;
            served.versions.insert(VersionName::new(&source.version), VersionState::Loading);
        }
        let registry = Self::with_models(models, default_model, &[])?;
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
        let served = |record: &ModelRecord| ServedModel {
            versions: record
                .required_versions()
                .into_iter()
                .map(|version| (VersionName::new(version), VersionState::Loading))
                .collect(),
            active: record.active.as_deref().map(VersionName::new),
            previous: record.previous_versions.last().map(|version| VersionName::new(version)),
            auto_select: has_directory_version(record),
        };
        let models = records.iter().map(|(name, record)| (name.clone(), served(record)));
        Self::with_models(models.filter(|(_, served)| !served.versions.is_empty()).collect(), default_model, coming)
    }

    fn with_models(
        models: BTreeMap<String, ServedModel>,
        default_model: Option<&str>,
        coming: &[&str],
    ) -> Result<Self, String> {
        // The operator's own go first: what is registered while the server runs does not become the default by a restart.
        let own = models.iter().find(|(_, served)| served.auto_select).map(|(name, _)| name.as_str());
        let first = own.or(models.keys().next().map(String::as_str)).or(coming.first().copied());
        let none = "it holds no model: a model is a directory NAME/VERSION with a model.onnx in it";
        let default_model = default_model.or(first).ok_or(none)?.to_owned();
        if !models.contains_key(&default_model) && !coming.contains(&default_model.as_str()) {
            return Err(format!("it holds no model {default_model:?}, which --default-model names"));
        }
        let snapshot = Snapshot { models, default_model, ..Snapshot::default() };
        Ok(Self { snapshot: RwLock::new(Arc::new(snapshot)) })
    }

    /// What is known now.
    #[must_use]
    pub fn snapshot(&self) -> Arc<Snapshot> {
        Arc::clone(&self.snapshot.read())
    }

    /// Loads one model version and puts the outcome into the registry.
    ///
    /// # Errors
    /// A file and what is wrong with it.
    pub fn load(&self, source: &ModelSource, host: &LoadContext) -> Result<(), ManifestError> {
        self.set_state(source, VersionState::Loading);
        let start = Instant::now();
        let (model, version) = (&source.name, &source.version);
        let loaded = loader::load(source, host);
        let seconds = start.elapsed().as_secs_f64();
        // Logged once it is true: who reads "ready" may ask at once.
        match loaded.map(Arc::new) {
            Ok(loaded) => {
                self.set_state(source, VersionState::Ready(Arc::clone(&loaded)));
                tracing::info!(model, version, seconds, skips_queue = loaded.can_run_inline(), "model version loaded");
                Ok(())
            }
            Err(error) => {
                let failure = LoadFailure { reason: error.to_string(), fatal_reason: error.startup_refusal.clone() };
                self.set_state(source, VersionState::Failed(failure));
                tracing::error!(model, version, seconds, %error, "model version load failed");
                Err(error)
            }
        }
    }

    fn set_state(&self, source: &ModelSource, state: VersionState) {
        self.update(|changed| {
            let served = changed.models.entry(source.name.clone()).or_default();
            served.versions.insert(VersionName::new(&source.version), state);
        });
    }

    /// Says that a version could not even be tried to load, and why. The version before answers then.
    pub fn mark_failed(&self, name: &str, version: &str, reason: &str) {
        let failure = LoadFailure { reason: reason.to_owned(), fatal_reason: None };
        self.update(|changed| {
            let served = changed.models.entry(name.to_owned()).or_default();
            served.versions.insert(VersionName::new(version), VersionState::Failed(failure));
        });
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

    fn update(&self, change: impl FnOnce(&mut Snapshot)) {
        let mut snapshot = self.snapshot.write();
        let mut changed = Snapshot::clone(&snapshot);
        change(&mut changed);
        let old = std::mem::replace(&mut *snapshot, Arc::new(changed));
        drop(snapshot);
        // It may be the last to hold a model: nobody waits for that to be let go.
        drop(old);
    }

    /// Says which version of a model answers who names none, which did before, and which are kept besides. The others are
    /// forgotten: what they have in work is still answered.
    pub fn publish_model(&self, name: &str, active: Option<&str>, before: Option<&str>, kept: &BTreeSet<&str>) {
        self.update(|changed| {
            if let Some(served) = changed.models.get_mut(name) {
                served.active = active.map(VersionName::new);
                served.previous = before.map(VersionName::new);
                served.versions.retain(|version, _| kept.contains(version.as_str()));
            }
            changed.startup_required.retain(|(model, version)| model != name || kept.contains(version.as_str()));
            changed.models.retain(|_, served| !served.versions.is_empty());
        });
    }

    /// Says which versions are tried before the server is ready. None once it has started: what comes later makes no server
    /// unready.
    pub fn require_at_startup(&self, awaited: BTreeSet<(String, VersionName)>) {
        self.update(|changed| changed.startup_required = awaited);
    }

    /// Says which experiments run from now on.
    pub fn publish_experiments(&self, experiments: BTreeMap<String, Arc<ActivePhase>>) {
        self.update(|changed| changed.experiments = experiments);
    }

    /// Ends all workers after what they have, and waits for them until `deadline`.
    pub fn close(&self, deadline: Instant) {
        let snapshot = std::mem::take(&mut *self.snapshot.write());
        let states = snapshot.models.values().flat_map(|served| served.versions.values());
        for state in states {
            if let VersionState::Ready(model) = state {
                model.close(deadline);
            }
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
            Some(version) => served.versions.get(&VersionName::new(version)).ok_or(ResolveError::UnknownVersion)?,
            None => served.active().map(|(_, state)| state).ok_or(ResolveError::UnknownVersion)?,
        };
        match state {
            VersionState::Ready(model) => Ok(model),
            VersionState::Loading => Err(ResolveError::ModelLoading),
            VersionState::Failed(_) => Err(ResolveError::LoadFailed),
        }
    }

    /// Every version as it is at this moment.
    #[must_use]
    pub fn version_statuses(&self) -> Vec<VersionStatus> {
        let versions = self.models.iter().flat_map(|(name, served)| {
            let answers = served.active().map(|(version, _)| version);
            served.versions.iter().map(move |(version, state)| (name, version, state, answers == Some(version)))
        });
        let now = |(model, version, state, active): (&String, &VersionName, &VersionState, bool)| {
            let loaded = if let VersionState::Ready(model) = state { Some(model) } else { None };
            VersionStatus {
                model: model.clone(),
                version: version.as_str().to_owned(),
                state: state.name(),
                is_active: active,
                device: loaded.map(|model| model.device().to_owned()),
                is_fallback: loaded.is_some_and(|model| model.placement().fallback_reason.is_some()),
                queued_texts: loaded.map_or(0, |model| model.queue_length()),
                oldest_wait: loaded.map(|model| model.oldest_wait()).unwrap_or_default(),
                expected_wait: loaded.map(|model| model.wait_time()).unwrap_or_default(),
                signals: loaded
                    .and_then(|model| model.drift_monitor())
                    .map(DriftMonitor::current_signals)
                    .unwrap_or_default(),
            }
        };
        versions.map(now).collect()
    }

    /// Every version that answers.
    pub fn ready_models(&self) -> impl Iterator<Item = &LoadedVersion> {
        self.models.values().flat_map(|served| served.versions.values()).filter_map(|state| match state {
            VersionState::Ready(model) => Some(model.as_ref()),
            VersionState::Loading | VersionState::Failed(_) => None,
        })
    }

    /// True if the default model answers and, of a server that starts, every version that requests are sent to answers or
    /// has failed: until then a proxy does better to ask another replica.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        let was_tried = |(model, version): &(String, VersionName)| {
            let state = self.models.get(model).and_then(|served| served.versions.get(version));
            matches!(state, Some(VersionState::Ready(_) | VersionState::Failed(_)))
        };
        // Where the active version has failed, it is the one before it that answers.
        let is_settled = |(model, _): &(String, VersionName)| {
            let active = self.models.get(model).and_then(ServedModel::active);
            !active.is_some_and(|(_, state)| matches!(state, VersionState::Loading))
        };
        let is_there = |awaited: &(String, VersionName)| was_tried(awaited) && is_settled(awaited);
        self.resolve(None, None).is_ok() && self.startup_required.iter().all(is_there)
    }
}

impl ServedModel {
    /// The version that answers requests that name none: the one that was made active; if it could not be loaded, the one
    /// that was active before.
    ///
    /// While none was made active, the highest of an operator's directories that is not broken. While it is loaded no lower
    /// one steps in, so that a start does not answer with an old version first.
    #[must_use]
    pub fn active(&self) -> Option<(&VersionName, &VersionState)> {
        let recorded = |version: &Option<VersionName>| version.as_ref().and_then(|v| self.versions.get_key_value(v));
        let works = |found: &(&VersionName, &VersionState)| !matches!(found.1, VersionState::Failed(_));
        if let Some(active) = recorded(&self.active) {
            return Some(active).filter(works).or_else(|| recorded(&self.previous).filter(works)).or(Some(active));
        }
        let any = self.versions.iter().rev().find(works).or_else(|| self.versions.last_key_value());
        any.filter(|_| self.auto_select)
    }

    /// The model of a version that answers.
    #[must_use]
    pub fn ready_model(&self, version: &str) -> Option<&Arc<LoadedVersion>> {
        match self.versions.get(&VersionName::new(version))? {
            VersionState::Ready(model) => Some(model),
            VersionState::Loading | VersionState::Failed(_) => None,
        }
    }
}

/// True for a model of which an operator has a directory.
fn has_directory_version(record: &ModelRecord) -> bool {
    record.versions.values().any(|version| version.origin == Origin::Directory)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn name_with_path_characters_is_invalid() {
        for good in ["a", "1", "banking77-minilm", "v1.2_3", &"a".repeat(64)] {
            assert!(is_valid_name(good), "{good}");
        }
        for bad in
            ["", ".", "..", "a..b", ".hidden", "A", "a/b", "a\\b", "a b", "ä", "a\n", "a\0", "%2e", &"a".repeat(65)]
        {
            assert!(!is_valid_name(bad), "{bad:?}");
        }
    }

    fn served_model(states: &[(&str, bool)], active: Option<&str>, before: Option<&str>) -> ServedModel {
        let state =
            |loading: bool| if loading { VersionState::Loading } else { VersionState::Failed(LoadFailure::default()) };
        let versions = states.iter().map(|(version, loading)| (VersionName::new(version), state(*loading))).collect();
        ServedModel {
            versions,
            active: active.map(VersionName::new),
            previous: before.map(VersionName::new),
            auto_select: true,
        }
    }

    #[test]
    fn active_version_failed_previous_serves() {
        let answers = |served: &ServedModel| served.active().unwrap().0.as_str().to_owned();
        assert_eq!(answers(&served_model(&[("1", true), ("2", true), ("10", false)], None, None)), "2");
        assert_eq!(answers(&served_model(&[("1", false)], None, None)), "1");
        // What was made active answers, whatever else is there.
        assert_eq!(answers(&served_model(&[("1", true), ("2", true)], Some("1"), Some("2"))), "1");
        assert_eq!(answers(&served_model(&[("1", false), ("2", true), ("3", true)], Some("1"), Some("2"))), "2");
        // None that was registered answers before it is made active.
        assert!(ServedModel { auto_select: false, ..served_model(&[("1", true)], None, None) }.active().is_none());
        // None steps in that was never active.
        assert_eq!(answers(&served_model(&[("1", false), ("3", true)], Some("1"), None)), "1");
    }
}
