//! Which models and versions there are, and which of them answer.
//!
//! - [`directory`]: finds them in a directory
//! - [`version`]: their order

pub mod directory;
pub mod version;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use parking_lot::RwLock;

use crate::engine::loading::{Host, ModelSource};
use crate::engine::model::Model;
use crate::metrics::VersionNow;
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

/// State of one version.
#[derive(Debug, Clone)]
pub enum State {
    /// Being loaded and checked.
    Loading,
    /// Answers.
    Ready(Arc<Model>),
    /// Could not be loaded, and why: a file and a reason.
    Failed(String),
}

impl State {
    /// The state's name in answers.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Loading => "loading",
            Self::Ready(_) => "ready",
            Self::Failed(_) => "failed",
        }
    }
}

/// The versions of one model.
pub type Versions = BTreeMap<Version, State>;

/// Everything the registry knows at one moment.
#[derive(Debug, Clone, Default)]
pub struct Snapshot {
    /// Models by name.
    pub models: BTreeMap<String, Versions>,
    /// The model that answers requests that name none.
    pub default_model: String,
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
    /// A registry of models that are still to be loaded.
    ///
    /// # Errors
    /// If there is no model, or none of the name that shall be the default.
    pub fn of(sources: &[ModelSource], default_model: Option<&str>) -> Result<Self, String> {
        let mut models: BTreeMap<String, Versions> = BTreeMap::new();
        for source in sources {
            models.entry(source.name.clone()).or_default().insert(Version::new(&source.version), State::Loading);
        }
        let first = models
            .keys()
            .next()
            .ok_or("it holds no model: a model is a directory NAME/VERSION with a model.onnx in it")?;
        let default_model = default_model.unwrap_or(first).to_owned();
        if !models.contains_key(&default_model) {
            return Err(format!("it holds no model {default_model:?}, which --default-model names"));
        }
        Ok(Self { snapshot: RwLock::new(Arc::new(Snapshot { models, default_model })) })
    }

    /// What is known now.
    #[must_use]
    pub fn snapshot(&self) -> Arc<Snapshot> {
        Arc::clone(&self.snapshot.read())
    }

    /// Loads one model version and puts the outcome into the registry.
    pub fn load(&self, source: &ModelSource, host: &Host) {
        let start = Instant::now();
        let (model, version) = (&source.name, &source.version);
        let loaded = Model::load(source, host);
        let seconds = start.elapsed().as_secs_f64();
        // Logged once it is true: who reads "ready" may ask at once.
        match loaded.map(Arc::new) {
            Ok(loaded) => {
                self.put(source, State::Ready(Arc::clone(&loaded)));
                tracing::info!(model, version, seconds, skips_queue = loaded.skips_queue(), "the model is ready");
            }
            Err(error) => {
                self.put(source, State::Failed(error.to_string()));
                tracing::error!(model, version, seconds, %error, "the model could not be loaded");
            }
        }
    }

    fn put(&self, source: &ModelSource, state: State) {
        let mut snapshot = self.snapshot.write();
        let mut changed = Snapshot::clone(&snapshot);
        if let Some(versions) = changed.models.get_mut(&source.name) {
            versions.insert(Version::new(&source.version), state);
        }
        *snapshot = Arc::new(changed);
    }

    /// Ends all workers after what they have, and waits for them until `deadline`.
    pub fn close(&self, deadline: Instant) {
        let snapshot = std::mem::take(&mut *self.snapshot.write());
        let states = snapshot.models.values().flat_map(BTreeMap::values);
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
        let versions = self.models.get(model.unwrap_or(&self.default_model)).ok_or(ResolveError::UnknownModel)?;
        let state = match version {
            Some(version) => versions.get(&Version::new(version)).ok_or(ResolveError::UnknownVersion)?,
            None => active(versions).map(|(_, state)| state).ok_or(ResolveError::UnknownVersion)?,
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
        let versions = self.models.iter().flat_map(|(name, versions)| {
            let answers = active(versions).map(|(version, _)| version);
            versions.iter().map(move |(version, state)| (name, version, state, answers == Some(version)))
        });
        let now = |(model, version, state, active): (&String, &Version, &State, bool)| {
            let loaded = if let State::Ready(model) = state { Some(model) } else { None };
            VersionNow {
                model: model.clone(),
                version: version.as_str().to_owned(),
                state: state.name(),
                active,
                waiting: loaded.map_or(0, |model| model.waiting()),
                oldest: loaded.map(|model| model.oldest()).unwrap_or_default(),
                wait: loaded.map(|model| model.wait()).unwrap_or_default(),
            }
        };
        versions.map(now).collect()
    }

    /// Every version that answers.
    pub fn loaded(&self) -> impl Iterator<Item = &Model> {
        self.models.values().flat_map(BTreeMap::values).filter_map(|state| match state {
            State::Ready(model) => Some(model.as_ref()),
            State::Loading | State::Failed(_) => None,
        })
    }

    /// True if the default model answers: requests that name no model must not fail.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.resolve(None, None).is_ok()
    }
}

/// The version that answers requests that name none: the highest that is not broken. While it
/// is loaded no lower one steps in, so that a restart does not answer with an old version first.
#[must_use]
pub fn active(versions: &Versions) -> Option<(&Version, &State)> {
    versions.iter().rev().find(|(_, state)| !matches!(state, State::Failed(_))).or_else(|| versions.last_key_value())
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

    #[test]
    fn a_broken_newest_version_does_not_answer() {
        let versions: Versions = [("1", State::Loading), ("2", State::Loading), ("10", State::Failed("x".to_owned()))]
            .map(|(v, s)| (Version::new(v), s))
            .into();
        assert_eq!(active(&versions).unwrap().0.as_str(), "2");
        let all_broken: Versions = [(Version::new("1"), State::Failed("x".to_owned()))].into();
        assert_eq!(active(&all_broken).unwrap().0.as_str(), "1");
    }
}
