//! What was recorded when the database answered last: in memory, and in a file for a start while it does not.

use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::database::Records;
use super::record::ModelRecord;
use super::version::Version;
use crate::clock;
use crate::experiments::experiment::Experiments;

/// The file in the data directory.
const FILE: &str = "registry.json";

/// What was recorded.
#[derive(Debug, Default, Clone, PartialEq, Serialize, Deserialize)]
pub struct Known {
    /// How many changes there had been.
    pub epoch: i64,
    /// The models.
    pub records: Records,
    /// The experiments.
    #[serde(default)]
    pub experiments: Experiments,
}

impl Known {
    /// Takes over what was read. True if it is new.
    ///
    /// What was read may be older than a change that was made meanwhile: of each model, the newer record stays, unless the
    /// database has gone back as a whole, as one does that was restored.
    pub fn take_over(&mut self, mut read: Self) -> bool {
        if read.epoch >= self.epoch {
            for (name, record) in &mut read.records {
                if let Some(own) = self.records.get(name).filter(|own| own.revision > record.revision) {
                    record.clone_from(own);
                }
            }
            for (name, experiment) in &mut read.experiments {
                if let Some(own) = self.experiments.get(name).filter(|own| own.is_later_than(experiment)) {
                    experiment.clone_from(own);
                }
            }
        }
        let is_new = *self != read;
        *self = read;
        is_new
    }
}

impl Known {
    /// What is to be loaded of a model: what it needs itself, and what experiments that are under way need.
    #[must_use]
    pub fn kept<'a>(&'a self, name: &str, record: &'a ModelRecord) -> BTreeSet<&'a str> {
        let mut kept = record.kept();
        let under_way = self.experiments.values().filter(|experiment| experiment.is_under_way());
        let arms = under_way.flat_map(|experiment| &experiment.design.arms).filter(|arm| arm.model == name);
        let there = |version: &&str| record.versions.contains_key(&Version::new(version));
        kept.extend(arms.filter_map(|arm| arm.version.as_deref()).filter(there));
        kept
    }

    /// True for a version that requests are sent to, of those that are to be loaded: not for what only a rollback leads to.
    #[must_use]
    pub fn is_asked(&self, name: &str, record: &ModelRecord, version: &str) -> bool {
        record.may_answer(version) || record.is_pinned(version) || self.in_experiment(name, version)
    }

    /// True for a version that an experiment which is under way sends requests to.
    #[must_use]
    pub fn in_experiment(&self, name: &str, version: &str) -> bool {
        self.experiments.values().any(|experiment| experiment.is_under_way() && experiment.uses(name, version))
    }
}

/// The file.
#[derive(Debug, Clone)]
pub struct Keepsake(PathBuf);

impl Keepsake {
    /// The file in a data directory.
    #[must_use]
    pub fn within(data: &Path) -> Self {
        Self(data.join(FILE))
    }

    /// What was written last; nothing if nothing was, or it cannot be read.
    #[must_use]
    pub fn read(&self) -> Option<Known> {
        let bytes = fs::read(&self.0).ok()?;
        match serde_json::from_slice(&bytes) {
            Ok(known) => Some(known),
            Err(error) => {
                tracing::warn!(file = %self.0.display(), %error, "what was known of the registry cannot be read");
                None
            }
        }
    }

    /// Writes what is known: whole, or not at all.
    ///
    /// # Errors
    /// If the disk does not allow it.
    pub fn write(&self, known: &Known) -> io::Result<()> {
        // Others may write at the same moment, in containers that give all of them the same number.
        let draft = self.0.with_extension(format!("{}.draft", clock::new_id()));
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&draft)?;
        let written = serde_json::to_writer(&mut file, known).map_err(io::Error::from);
        let written = written.and_then(|()| file.flush()).and_then(|()| file.sync_all());
        written.and_then(|()| fs::rename(&draft, &self.0)).inspect_err(|_| {
            // It is of no use any more.
            fs::remove_file(&draft).ok();
        })?;
        self.0.parent().map_or(Ok(()), |directory| File::open(directory)?.sync_all())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn records(revision: i64) -> Records {
        Records::from([("m".to_owned(), ModelRecord { revision, ..ModelRecord::default() })])
    }

    #[test]
    fn what_is_older_is_not_taken_over_unless_the_database_went_back() {
        let read = |epoch, revision| Known { epoch, records: records(revision), ..Known::default() };
        let mut known = read(5, 3);
        assert!(!known.take_over(read(5, 2)) || known.records == records(3));
        assert_eq!(known.records, records(3));
        assert!(known.take_over(read(6, 4)));
        assert!(known.take_over(read(2, 1)));
        assert_eq!((known.epoch, known.records), (2, records(1)));
    }

    #[test]
    fn what_is_known_is_read_as_it_was_written() {
        let directory = tempfile::tempdir().unwrap();
        let known = Known { epoch: 7, records: records(1), ..Known::default() };
        let keepsake = Keepsake::within(directory.path());
        assert_eq!(keepsake.read(), None);
        for _ in 0..2 {
            keepsake.write(&known).unwrap();
            assert_eq!(keepsake.read(), Some(known.clone()));
        }
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
        fs::write(directory.path().join(FILE), "{").unwrap();
        assert_eq!(keepsake.read(), None);
    }
}
