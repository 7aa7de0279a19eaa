//! Which models and versions there are, and which of them answer.
//!
//! - [`directory`]: finds them in a directory
//! - [`version`]: their order; [`state`]: whether they answer
//! - [`record`]: what is recorded of them, and how that may change
//! - [`database`]: where it is recorded, [`backup`]: copies of it; [`store`]: where their files are
//! - [`data_directory`]: who may read what the server keeps, and whether it is still there
//! - [`mlflow`]: models that an MLflow server keeps
//! - [`feedback`]: what was told of earlier answers; [`spool`]: where that waits while the database does not answer
//! - [`known`]: what was recorded when the database answered last
//! - [`keeper`]: changes both, and keeps what is served in line with them; [`keeping`]: its thread

pub mod backup;
pub mod data_directory;
pub mod database;
pub mod directory;
pub mod feedback;
pub mod keeper;
pub mod keeping;
pub mod known;
pub mod mlflow;
pub mod record;
pub mod spool;
pub mod state;
pub mod store;
pub mod version;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Instant;

use parking_lot::RwLock;

use crate::engine::drifting::Drifting;
use crate::engine::loading::{Host, ModelSource};
use crate::engine::model::Model;
use crate::experiments::tally::Running;
use crate::metrics::VersionNow;
use crate::text::manifest::ManifestError;
use database::Records;
use record::{ModelRecord, Origin};
pub use state::{Failure, State};
use version::Version;

/// Names of models and versions: no path, no surprise in a log line or a metric.
#[must_use]
pub fn is_name(name: &str) -> bool {
    let plain = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit();
    name.len() <= 64
        && name.bytes().next().is_some_and(plain)
        && name.bytes().all(|c| plain(c) || matches!(c, b'.' | b'_' | b'-'))
        && !name.contains("..")
}

/// The versions of one model.
pub type Versions = BTreeMap<Version, State>;

/// A model as it is served: the versions that are loaded, or shall be.
#[derive(Debug, Clone, Default)]
pub struct Served {
    /// By name.
    pub versions: Versions,
    /// The one that an operator made active, or that was found to be good.
    pub active: Option<Version>,
    /// The one that was active before.
    pub before: Option<Version>,
    /// While none was made active, the highest that works answers: so it is with an operator's directories.
    pub any: bool,
}

/// Everything the registry knows at one moment.
#[derive(Debug, Clone, Default)]
pub struct Snapshot {
    /// Models by name.
    pub models: BTreeMap<String, Served>,
    /// The model that answers requests that name none.
    pub default_model: String,
    /// Experiments that run, by the model that callers ask for.
    pub experiments: BTreeMap<String, Arc<Running>>,
    /// Versions that a server which starts tries to load before it is ready, with their models.
    pub awaited: BTreeSet<(String, Version)>,
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
    Loading,
    /// It could not be loaded.
    #[error("the model could not be loaded")]
    Failed,
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
    pub fn of(sources: &[ModelSource], default_model: Option<&str>) -> Result<Self, String> {
        let mut models: BTreeMap<String, Served> = BTreeMap::new();
        for source in sources {
            let served = models.entry(source.name.clone()).or_default();
            served.any = true;
            served.versions.insert(Version::new(&source.version), State::Loading);
        }
        let registry = Self::serving(models, default_model, &[])?;
        registry.expect(sources.iter().map(|source| (source.name.clone(), Version::new(&source.version))).collect());
        Ok(registry)
    }

    /// A registry of models that are still to be loaded, and of some of which only the names are known for now.
    ///
    /// # Errors
    /// If there is no model, or none of the name that shall be the default.
    pub fn recorded(records: &Records, default_model: Option<&str>, coming: &[&str]) -> Result<Self, String> {
        let served = |record: &ModelRecord| Served {
            versions: record.kept().into_iter().map(|version| (Version::new(version), State::Loading)).collect(),
            active: record.active.as_deref().map(Version::new),
            before: record.before.last().map(|version| Version::new(version)),
            any: is_own(record),
        };
        let models = records.iter().map(|(name, record)| (name.clone(), served(record)));
        Self::serving(models.filter(|(_, served)| !served.versions.is_empty()).collect(), default_model, coming)
    }

    fn serving(models: BTreeMap<String, Served>, default_model: Option<&str>, coming: &[&str]) -> Result<Self, String> {
        // The operator's own go first: what is registered while the server runs does not become the default by a restart.
        let own = models.iter().find(|(_, served)| served.any).map(|(name, _)| name.as_str());
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
    pub fn load(&self, source: &ModelSource, host: &Host) -> Result<(), ManifestError> {
        self.put(source, State::Loading);
        let start = Instant::now();
        let (model, version) = (&source.name, &source.version);
        let loaded = Model::load(source, host);
        let seconds = start.elapsed().as_secs_f64();
        // Logged once it is true: who reads "ready" may ask at once.
        match loaded.map(Arc::new) {
            Ok(loaded) => {
                self.put(source, State::Ready(Arc::clone(&loaded)));
                tracing::info!(model, version, seconds, skips_queue = loaded.skips_queue(), "the model is ready");
                Ok(())
            }
            Err(error) => {
                let failure = Failure { reason: error.to_string(), refusal: error.refusal.clone() };
                self.put(source, State::Failed(failure));
                tracing::error!(model, version, seconds, %error, "the model could not be loaded");
                Err(error)
            }
        }
    }

    fn put(&self, source: &ModelSource, state: State) {
        self.alter(|changed| {
            let served = changed.models.entry(source.name.clone()).or_default();
            served.versions.insert(Version::new(&source.version), state);
        });
    }

    /// Says that a version could not even be tried to load, and why. The version before answers then.
    pub fn fail(&self, name: &str, version: &str, reason: &str) {
        let failure = Failure { reason: reason.to_owned(), refusal: None };
        self.alter(|changed| {
            let served = changed.models.entry(name.to_owned()).or_default();
            served.versions.insert(Version::new(version), State::Failed(failure));
        });
    }

    /// Forgets a version that shall not be served after all.
    pub fn forget(&self, name: &str, version: &str) {
        self.alter(|changed| {
            if let Some(served) = changed.models.get_mut(name) {
                served.versions.remove(&Version::new(version));
            }
            changed.awaited.remove(&(name.to_owned(), Version::new(version)));
            changed.models.retain(|_, served| !served.versions.is_empty());
        });
    }

    fn alter(&self, change: impl FnOnce(&mut Snapshot)) {
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
    pub fn settle(&self, name: &str, active: Option<&str>, before: Option<&str>, kept: &BTreeSet<&str>) {
        self.alter(|changed| {
            if let Some(served) = changed.models.get_mut(name) {
                served.active = active.map(Version::new);
                served.before = before.map(Version::new);
                served.versions.retain(|version, _| kept.contains(version.as_str()));
            }
            changed.awaited.retain(|(model, version)| model != name || kept.contains(version.as_str()));
            changed.models.retain(|_, served| !served.versions.is_empty());
        });
    }

    /// Says which versions are tried before the server is ready. None once it has started: what comes later makes no server
    /// unready.
    pub fn expect(&self, awaited: BTreeSet<(String, Version)>) {
        self.alter(|changed| changed.awaited = awaited);
    }

    /// Says which experiments run from now on.
    pub fn experiment(&self, experiments: BTreeMap<String, Arc<Running>>) {
        self.alter(|changed| changed.experiments = experiments);
    }

    /// Ends all workers after what they have, and waits for them until `deadline`.
    pub fn close(&self, deadline: Instant) {
        let snapshot = std::mem::take(&mut *self.snapshot.write());
        let states = snapshot.models.values().flat_map(|served| served.versions.values());
        for state in states {
            if let State::Ready(model) = state {
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
    pub fn resolve(&self, model: Option<&str>, version: Option<&str>) -> Result<&Arc<Model>, ResolveError> {
        // The default is there, or will be.
        let unknown = if model.is_none() { ResolveError::Loading } else { ResolveError::UnknownModel };
        let served = self.models.get(model.unwrap_or(&self.default_model)).ok_or(unknown)?;
        let state = match version {
            Some(version) => served.versions.get(&Version::new(version)).ok_or(ResolveError::UnknownVersion)?,
            None => served.active().map(|(_, state)| state).ok_or(ResolveError::UnknownVersion)?,
        };
        match state {
            State::Ready(model) => Ok(model),
            State::Loading => Err(ResolveError::Loading),
            State::Failed(_) => Err(ResolveError::Failed),
        }
    }

    /// Every version as it is at this moment.
    #[must_use]
    pub fn versions_now(&self) -> Vec<VersionNow> {
        let versions = self.models.iter().flat_map(|(name, served)| {
            let answers = served.active().map(|(version, _)| version);
            served.versions.iter().map(move |(version, state)| (name, version, state, answers == Some(version)))
        });
        let now = |(model, version, state, active): (&String, &Version, &State, bool)| {
            let loaded = if let State::Ready(model) = state { Some(model) } else { None };
            VersionNow {
                model: model.clone(),
                version: version.as_str().to_owned(),
                state: state.name(),
                active,
                device: loaded.map(|model| model.device().to_owned()),
                fallback: loaded.is_some_and(|model| model.placement().fallback.is_some()),
                waiting: loaded.map_or(0, |model| model.waiting()),
                oldest: loaded.map(|model| model.oldest()).unwrap_or_default(),
                wait: loaded.map(|model| model.wait()).unwrap_or_default(),
                signals: loaded.and_then(|model| model.drifting()).map(Drifting::signals_now).unwrap_or_default(),
            }
        };
        versions.map(now).collect()
    }

    /// Every version that answers.
    pub fn loaded(&self) -> impl Iterator<Item = &Model> {
        self.models.values().flat_map(|served| served.versions.values()).filter_map(|state| match state {
            State::Ready(model) => Some(model.as_ref()),
            State::Loading | State::Failed(_) => None,
        })
    }

    /// True if the default model answers and, of a server that starts, every version that requests are sent to answers or
    /// has failed: until then a proxy does better to ask another replica.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        let was_tried = |(model, version): &(String, Version)| {
            let state = self.models.get(model).and_then(|served| served.versions.get(version));
            matches!(state, Some(State::Ready(_) | State::Failed(_)))
        };
        // Where the active version has failed, it is the one before it that answers.
        let is_settled = |(model, _): &(String, Version)| {
            let active = self.models.get(model).and_then(Served::active);
            !active.is_some_and(|(_, state)| matches!(state, State::Loading))
        };
        let is_there = |awaited: &(String, Version)| was_tried(awaited) && is_settled(awaited);
        self.resolve(None, None).is_ok() && self.awaited.iter().all(is_there)
    }
}

impl Served {
    /// The version that answers requests that name none: the one that was made active; if it could not be loaded, the one
    /// that was active before.
    ///
    /// While none was made active, the highest of an operator's directories that is not broken. While it is loaded no lower
    /// one steps in, so that a start does not answer with an old version first.
    #[must_use]
    pub fn active(&self) -> Option<(&Version, &State)> {
        let recorded = |version: &Option<Version>| version.as_ref().and_then(|v| self.versions.get_key_value(v));
        let works = |found: &(&Version, &State)| !matches!(found.1, State::Failed(_));
        if let Some(active) = recorded(&self.active) {
            return Some(active).filter(works).or_else(|| recorded(&self.before).filter(works)).or(Some(active));
        }
        let any = self.versions.iter().rev().find(works).or_else(|| self.versions.last_key_value());
        any.filter(|_| self.any)
    }

    /// The model of a version that answers.
    #[must_use]
    pub fn ready(&self, version: &str) -> Option<&Arc<Model>> {
        match self.versions.get(&Version::new(version))? {
            State::Ready(model) => Some(model),
            State::Loading | State::Failed(_) => None,
        }
    }
}

/// True for a model of which an operator has a directory.
fn is_own(record: &ModelRecord) -> bool {
    record.versions.values().any(|version| version.origin == Origin::Directory)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_cannot_leave_the_directory() {
        for good in ["a", "1", "banking77-minilm", "v1.2_3", &"a".repeat(64)] {
            assert!(is_name(good), "{good}");
        }
        for bad in
            ["", ".", "..", "a..b", ".hidden", "A", "a/b", "a\\b", "a b", "ä", "a\n", "a\0", "%2e", &"a".repeat(65)]
        {
            assert!(!is_name(bad), "{bad:?}");
        }
    }

    fn served(states: &[(&str, bool)], active: Option<&str>, before: Option<&str>) -> Served {
        let state = |loading: bool| if loading { State::Loading } else { State::Failed(Failure::default()) };
        let versions = states.iter().map(|(version, loading)| (Version::new(version), state(*loading))).collect();
        Served { versions, active: active.map(Version::new), before: before.map(Version::new), any: true }
    }

    #[test]
    fn a_broken_newest_version_does_not_answer() {
        let answers = |served: &Served| served.active().unwrap().0.as_str().to_owned();
        assert_eq!(answers(&served(&[("1", true), ("2", true), ("10", false)], None, None)), "2");
        assert_eq!(answers(&served(&[("1", false)], None, None)), "1");
        // What was made active answers, whatever else is there.
        assert_eq!(answers(&served(&[("1", true), ("2", true)], Some("1"), Some("2"))), "1");
        assert_eq!(answers(&served(&[("1", false), ("2", true), ("3", true)], Some("1"), Some("2"))), "2");
        // None that was registered answers before it is made active.
        assert!(Served { any: false, ..served(&[("1", true)], None, None) }.active().is_none());
        // None steps in that was never active.
        assert_eq!(answers(&served(&[("1", false), ("3", true)], Some("1"), None)), "1");
    }
}
