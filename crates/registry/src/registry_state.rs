//! The registry's state: what the records say, and the state file for a start while the database does not answer.

use std::collections::BTreeSet;
use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use predictd_experiments::experiment::{Experiment, ExperimentMap};
use predictd_platform::atomic_file;
use serde::{Deserialize, Serialize};

use super::record::{ModelRecord, ModelRecords};
use super::version_name::VersionName;

/// The file in the data directory.
const STATE_FILE_NAME: &str = "registry.json";

/// What was recorded.
#[derive(Debug, Default, Clone, PartialEq, Serialize, Deserialize)]
pub struct RegistryState {
    /// How many changes there had been.
    pub epoch: i64,
    /// The models.
    pub records: ModelRecords,
    /// The experiments.
    #[serde(default)]
    pub experiments: ExperimentMap,
}

impl RegistryState {
    /// Takes over what was read. True if it is new.
    ///
    /// What was read may be older than a change that was made meanwhile: of each model, the newer record stays, unless the
    /// database has gone back as a whole, as one does that was restored.
    pub fn merge(&mut self, mut read: Self) -> bool {
        if read.epoch >= self.epoch {
            for (name, record) in &mut read.records {
                if let Some(own) = self.records.get(name).filter(|own| own.revision > record.revision) {
                    record.clone_from(own);
                }
            }
            for (name, experiment) in &mut read.experiments {
                if let Some(own) = self.experiments.get(name).filter(|own| own.is_newer_revision_of(experiment)) {
                    experiment.clone_from(own);
                }
            }
        }
        let is_new = *self != read;
        *self = read;
        is_new
    }

    /// Takes over a committed change of a model, unless a newer one is known. Returns the versions that are gone.
    pub fn update_model(&mut self, name: &str, record: &ModelRecord) -> Vec<VersionName> {
        if self.records.get(name).is_some_and(|known| known.revision >= record.revision) {
            return Vec::new();
        }
        let before = self.records.insert(name.to_owned(), record.clone()).unwrap_or_default();
        before.versions.into_keys().filter(|version| !record.versions.contains_key(version)).collect()
    }

    /// Takes over a committed change of an experiment, unless a newer one is known; none: it was deleted. Returns its model.
    pub fn update_experiment(&mut self, name: &str, after: Option<&Experiment>) -> String {
        let Some(after) = after else {
            return self.experiments.remove(name).map(|before| before.design.model).unwrap_or_default();
        };
        if !self.experiments.get(name).is_some_and(|known| known.is_newer_revision_of(after)) {
            self.experiments.insert(name.to_owned(), after.clone());
        }
        after.design.model.clone()
    }

    /// What is to be loaded of a model: what it needs itself, and what experiments that are under way need.
    #[must_use]
    pub fn versions_to_load<'a>(&'a self, name: &str, record: &'a ModelRecord) -> BTreeSet<&'a str> {
        let mut kept = record.required_versions();
        let under_way = self.experiments.values().filter(|experiment| experiment.is_in_progress());
        let arms = under_way.flat_map(|experiment| &experiment.design.arms).filter(|arm| arm.model == name);
        let versions = arms.filter_map(|arm| arm.version.as_deref());
        kept.extend(versions.filter(|version| record.versions.contains_key(&VersionName::new(version))));
        kept
    }

    /// True for a version that requests are sent to, of those that are to be loaded: not for what only a rollback leads to.
    #[must_use]
    pub fn receives_traffic(&self, name: &str, record: &ModelRecord, version: &str) -> bool {
        record.can_serve_default(version) || record.is_pinned(version) || self.is_in_experiment(name, version)
    }

    /// True for a version that an experiment which is under way sends requests to.
    #[must_use]
    pub fn is_in_experiment(&self, name: &str, version: &str) -> bool {
        self.experiments
            .values()
            .any(|experiment| experiment.is_in_progress() && experiment.uses_version(name, version))
    }
}

/// The file.
#[derive(Debug, Clone)]
pub struct StateFile(PathBuf);

impl StateFile {
    /// The file in a data directory.
    #[must_use]
    pub fn new(data: &Path) -> Self {
        Self(data.join(STATE_FILE_NAME))
    }

    /// What was written last; nothing if nothing was, or it cannot be read.
    #[must_use]
    pub fn read(&self) -> Option<RegistryState> {
        serde_json::from_slice(&fs::read(&self.0).ok()?)
            .inspect_err(|error| tracing::warn!(file = %self.0.display(), %error, "state file could not be read"))
            .ok()
    }

    /// Writes the state: whole, or not at all.
    ///
    /// # Errors
    /// If the disk does not allow it.
    pub fn write(&self, state: &RegistryState) -> io::Result<()> {
        let bytes = serde_json::to_vec(state)?;
        atomic_file::replace(&self.0, 0o600, |file| file.write_all(&bytes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn records(revision: i64) -> ModelRecords {
        ModelRecords::from([("m".to_owned(), ModelRecord { revision, ..ModelRecord::default() })])
    }

    fn state(epoch: i64, revision: i64) -> RegistryState {
        RegistryState { epoch, records: records(revision), ..RegistryState::default() }
    }

    #[test]
    fn merge_older_state_ignored_unless_restored() {
        let mut known = state(5, 3);
        assert!(!known.merge(state(5, 2)) || known.records == records(3));
        assert_eq!(known.records, records(3));
        assert!(known.merge(state(6, 4)));
        assert!(known.merge(state(2, 1)));
        assert_eq!((known.epoch, known.records), (2, records(1)));
    }

    #[test]
    fn state_file_round_trip_damaged_is_none() {
        let directory = tempfile::tempdir().unwrap();
        let known = RegistryState { epoch: 7, records: records(1), ..RegistryState::default() };
        let keepsake = StateFile::new(directory.path());
        assert_eq!(keepsake.read(), None);
        for _ in 0..2 {
            keepsake.write(&known).unwrap();
            assert_eq!(keepsake.read(), Some(known.clone()));
        }
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
        fs::write(directory.path().join(STATE_FILE_NAME), "{").unwrap();
        assert_eq!(keepsake.read(), None);
    }
}
