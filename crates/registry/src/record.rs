//! What is recorded of a model: its versions, which of them is active, and which were before. Pure: no file, no clock.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::version_name::VersionName;

/// Versions that were active before, of which each rollback takes one.
const MAX_PREVIOUS_VERSIONS: usize = 16;
/// Most versions of a model.
pub const MAX_VERSIONS_PER_MODEL: usize = 1_024;
/// Most figures of a version.
pub const MAX_METRICS: usize = 64;

/// A model.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct ModelRecord {
    /// Counts its changes.
    pub revision: i64,
    /// The version that answers who names none; none until one was found to be good.
    pub active: Option<String>,
    /// Those that were active before, the last one last.
    #[serde(rename = "before")]
    pub previous_versions: Vec<String>,
    /// All that there are.
    pub versions: BTreeMap<VersionName, VersionRecord>,
    /// What an alias that is followed stood for when it was looked last, whatever became of it.
    #[serde(rename = "followed")]
    pub alias_target: Option<String>,
}

/// Models by name.
pub type ModelRecords = BTreeMap<String, ModelRecord>;

/// What the answer to a change shows of a model. It is stored, for repeated requests, as a list of its fields.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "StoredSummary", into = "StoredSummary")]
pub struct ModelChangeSummary {
    /// Counts the changes of the model.
    pub revision: i64,
    /// The active version.
    pub active: Option<String>,
    /// The version that a rollback returns to.
    pub previous: Option<String>,
}

type StoredSummary = (i64, Option<String>, Option<String>);

impl From<StoredSummary> for ModelChangeSummary {
    fn from((revision, active, previous): StoredSummary) -> Self {
        Self { revision, active, previous }
    }
}

impl From<ModelChangeSummary> for StoredSummary {
    fn from(summary: ModelChangeSummary) -> Self {
        (summary.revision, summary.active, summary.previous)
    }
}

impl From<&ModelRecord> for ModelChangeSummary {
    fn from(record: &ModelRecord) -> Self {
        let previous = record.previous_versions.last().cloned();
        Self { revision: record.revision, active: record.active.clone(), previous }
    }
}

impl From<ModelRecord> for ModelChangeSummary {
    fn from(record: ModelRecord) -> Self {
        Self::from(&record)
    }
}

/// A version of a model.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct VersionRecord {
    /// Where its files came from.
    pub origin: Origin,
    /// Its files; none for a directory of the operator's, which is read as it is.
    pub files: Vec<FileRecord>,
    /// Metadata from its registration.
    pub metadata: BTreeMap<String, String>,
    /// How good it was found to be.
    pub metrics: BTreeMap<String, f64>,
    /// It is kept loaded, active or not.
    pub pinned: bool,
    /// When it was registered, in milliseconds since 1970.
    pub registered_at: i64,
}

/// Where the files of a version came from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Origin {
    /// They are in a directory of `--models`.
    Directory,
    /// They were uploaded.
    Upload,
    /// An MLflow server keeps them: a URI that always means the same files.
    Mlflow(String),
}

/// A file in the store.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct FileRecord {
    /// Where it is in the version's directory, such as `onnx/model.onnx`.
    pub path: String,
    /// Its length.
    pub bytes: u64,
    /// 64 hexadecimal digits, small ones.
    pub sha256: String,
}

/// Why a change is not made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    /// The model has no such version.
    #[error("the model has no version {0}")]
    UnknownVersion(String),
    /// The version exists with other files.
    #[error("version {0} exists, and its files are others: a version never changes")]
    VersionExists(String),
    /// It answers.
    #[error("version {0} is active: activate another one first")]
    VersionActive(String),
    /// An experiment needs it.
    #[error("version {0} is in experiment {1}: end that first")]
    VersionInExperiment(String, String),
    /// There is nothing to go back to.
    #[error("no version was active before")]
    NoPreviousVersion,
    /// Too many versions or figures.
    #[error("{0}")]
    LimitExceeded(String),
}

impl VersionRecord {
    /// A version whose time of registration is still to come.
    #[must_use]
    pub fn new(origin: Origin, files: Vec<FileRecord>, metadata: BTreeMap<String, String>) -> Self {
        Self { origin, files, metadata, metrics: BTreeMap::new(), pinned: false, registered_at: 0 }
    }

    /// Bytes of its files; 0 for a directory.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.files.iter().map(|file| file.bytes).sum()
    }

    /// The address of its files: what they are and where, whatever their order. None for a directory.
    #[must_use]
    pub fn digest(&self) -> Option<String> {
        (!self.files.is_empty()).then(|| files_digest(&self.files))
    }
}

/// The address of these files in the store: 64 hexadecimal digits.
#[must_use]
pub fn files_digest(files: &[FileRecord]) -> String {
    let mut files: Vec<&FileRecord> = files.iter().collect();
    files.sort();
    let mut hash = Sha256::new();
    for FileRecord { path, bytes, sha256 } in files {
        // No name holds a line feed: no two lists are written alike.
        hash.update(format!("{sha256} {bytes} {path}\n"));
    }
    hex::encode(hash.finalize())
}

impl ModelRecord {
    /// Adds a version. False if it is there already, with the same files.
    ///
    /// # Errors
    /// If it is there with others, or there are too many.
    pub fn register(&mut self, version: &str, record: VersionRecord) -> Result<bool, RecordError> {
        if let Ok(known) = self.version(version) {
            let same = known.origin == record.origin && known.digest() == record.digest();
            return if same { Ok(false) } else { Err(RecordError::VersionExists(version.to_owned())) };
        }
        if self.versions.len() >= MAX_VERSIONS_PER_MODEL {
            return Err(RecordError::LimitExceeded(format!(
                "the model has {MAX_VERSIONS_PER_MODEL} versions: remove one first"
            )));
        }
        self.versions.insert(VersionName::new(version), record);
        Ok(true)
    }

    /// Makes a version the active one. False if it is.
    ///
    /// # Errors
    /// If there is none of this name.
    pub fn activate(&mut self, version: &str) -> Result<bool, RecordError> {
        self.version(version)?;
        if self.active.as_deref() == Some(version) {
            return Ok(false);
        }
        self.previous_versions.extend(self.active.replace(version.to_owned()));
        let too_many = self.previous_versions.len().saturating_sub(MAX_PREVIOUS_VERSIONS);
        self.previous_versions.drain(..too_many);
        Ok(true)
    }

    /// The version that a rollback makes active.
    ///
    /// # Errors
    /// If there is none.
    pub fn previous_version(&self) -> Result<&str, RecordError> {
        self.previous_versions.last().map(String::as_str).ok_or(RecordError::NoPreviousVersion)
    }

    /// Makes the version active that was so before.
    ///
    /// # Errors
    /// If there is none.
    pub fn roll_back(&mut self) -> Result<(), RecordError> {
        self.active = Some(self.previous_versions.pop().ok_or(RecordError::NoPreviousVersion)?);
        Ok(())
    }

    /// Adds figures to those of a version; the same name replaces.
    ///
    /// # Errors
    /// If there is no such version, or there are too many figures.
    pub fn add_metrics(&mut self, version: &str, metrics: BTreeMap<String, f64>) -> Result<bool, RecordError> {
        let record = self.version_mut(version)?;
        let mut all = record.metrics.clone();
        all.extend(metrics);
        if all.len() > MAX_METRICS {
            return Err(RecordError::LimitExceeded(format!("{} figures, where {MAX_METRICS} are possible", all.len())));
        }
        let changed = all != record.metrics;
        record.metrics = all;
        Ok(changed)
    }

    /// Remembers what an alias that is followed stands for. False if it is known.
    pub fn set_alias_target(&mut self, target: &str) -> bool {
        self.alias_target.replace(target.to_owned()).as_deref() != Some(target)
    }

    /// Keeps a version loaded, or no longer. False if it is so.
    ///
    /// # Errors
    /// If there is no such version.
    pub fn set_pinned(&mut self, version: &str, pinned: bool) -> Result<bool, RecordError> {
        let record = self.version_mut(version)?;
        Ok(std::mem::replace(&mut record.pinned, pinned) != pinned)
    }

    /// Forgets a version.
    ///
    /// # Errors
    /// If there is no such version, or it is active.
    pub fn remove(&mut self, version: &str) -> Result<(), RecordError> {
        self.version(version)?;
        if self.active.as_deref() == Some(version) {
            return Err(RecordError::VersionActive(version.to_owned()));
        }
        self.remove_missing(version);
        Ok(())
    }

    /// Forgets a version whose files are gone, active or not: what was active before it is so again.
    pub fn remove_missing(&mut self, version: &str) {
        self.versions.remove(&VersionName::new(version));
        self.previous_versions.retain(|before| before != version);
        // What lay between two times of the same version may be gone: no rollback leads to where one is.
        self.previous_versions.dedup();
        if self.active.as_deref() == Some(version) {
            self.active = self.previous_versions.pop();
        } else if self.previous_versions.last() == self.active.as_ref() {
            self.previous_versions.pop();
        }
    }

    /// Forgets the oldest versions that were pulled, so that so many are left: none that is active, was before, is pinned, or is used otherwise.
    pub fn prune_pulled(&mut self, most: usize, is_used: impl Fn(&str) -> bool) {
        let pulled: BTreeSet<(i64, VersionName)> = self
            .versions
            .iter()
            .filter(|(_, record)| matches!(record.origin, Origin::Mlflow(_)))
            .map(|(version, record)| (record.registered_at, version.clone()))
            .collect();
        let mut too_many = pulled.len().saturating_sub(most);
        for (_, version) in pulled {
            let name = version.as_str();
            let is_needed = self.active.iter().chain(&self.previous_versions).any(|answering| answering == name)
                || is_used(name)
                || self.is_pinned(name);
            if too_many > 0 && !is_needed {
                self.versions.remove(&version);
                too_many -= 1;
            }
        }
    }

    /// What is to be loaded: what answers, what a rollback leads to, and what is pinned.
    #[must_use]
    pub fn required_versions(&self) -> BTreeSet<&str> {
        let pinned = self.versions.iter().filter(|(_, record)| record.pinned).map(|(version, _)| version.as_str());
        self.active.iter().chain(self.previous_versions.last()).map(String::as_str).chain(pinned).collect()
    }

    /// True for the active version; where none was made active, for any.
    #[must_use]
    pub fn can_serve_default(&self, version: &str) -> bool {
        self.active.as_deref().is_none_or(|active| active == version)
    }

    /// True for a version that is pinned.
    #[must_use]
    pub fn is_pinned(&self, version: &str) -> bool {
        self.version(version).is_ok_and(|found| found.pinned)
    }

    /// The version of this name.
    pub(crate) fn version(&self, version: &str) -> Result<&VersionRecord, RecordError> {
        self.versions.get(&VersionName::new(version)).ok_or_else(|| RecordError::UnknownVersion(version.to_owned()))
    }

    fn version_mut(&mut self, version: &str) -> Result<&mut VersionRecord, RecordError> {
        self.versions.get_mut(&VersionName::new(version)).ok_or_else(|| RecordError::UnknownVersion(version.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn model_summary_is_stored_as_list() {
        let stored = r#"[4,"2",null]"#;
        let summary = ModelChangeSummary { revision: 4, active: Some("2".to_owned()), previous: None };
        assert_eq!(serde_json::from_str::<ModelChangeSummary>(stored).unwrap(), summary);
        assert_eq!(serde_json::to_string(&summary).unwrap(), stored);
    }

    fn version(file: &str) -> VersionRecord {
        let files = vec![FileRecord { path: "model.onnx".to_owned(), bytes: 1, sha256: file.to_owned() }];
        let metadata = BTreeMap::new();
        let metrics = BTreeMap::new();
        VersionRecord { origin: Origin::Upload, files, metadata, metrics, pinned: false, registered_at: 0 }
    }

    #[test]
    fn rollback_after_activations_restores_previous() {
        let mut model = ModelRecord::default();
        for name in ["1", "2", "3"] {
            assert_eq!(model.register(name, version(name)), Ok(true));
            assert_eq!(model.activate(name), Ok(true));
        }
        assert_eq!(model.activate("3"), Ok(false));
        assert_eq!(model.required_versions(), ["2", "3"].into());
        for expected in ["2", "1"] {
            model.roll_back().unwrap();
            assert_eq!(model.active.as_deref(), Some(expected));
        }
        assert_eq!(model.roll_back(), Err(RecordError::NoPreviousVersion));
        assert_eq!(model.activate("4"), Err(RecordError::UnknownVersion("4".to_owned())));
    }

    #[test]
    fn register_with_other_files_is_refused() {
        let mut model = ModelRecord::default();
        assert_eq!(model.register("1", version("a")), Ok(true));
        assert_eq!(model.register("1", version("a")), Ok(false));
        assert_eq!(model.register("1", version("b")), Err(RecordError::VersionExists("1".to_owned())));
        model.activate("1").unwrap();
        assert_eq!(model.remove("1"), Err(RecordError::VersionActive("1".to_owned())));
    }

    #[test]
    fn prune_pulled_removes_only_oldest_unused() {
        let mut model = ModelRecord::default();
        for number in 1..=9 {
            let name = number.to_string();
            let origin = if number == 1 { Origin::Upload } else { Origin::Mlflow("models:/m/1".to_owned()) };
            let pinned = number == 2;
            model.register(&name, VersionRecord { origin, pinned, registered_at: number, ..version(&name) }).unwrap();
        }
        model.activate("3").unwrap();
        model.activate("9").unwrap();
        model.prune_pulled(5, |version| version == "4");
        let left: Vec<&str> = model.versions.keys().map(VersionName::as_str).collect();
        assert_eq!(left, ["1", "2", "3", "4", "8", "9"]);
    }

    fn file(path: &str, sha256: &str) -> FileRecord {
        FileRecord { path: path.to_owned(), bytes: 1, sha256: sha256.to_owned() }
    }

    #[test]
    fn files_digest_ignores_file_order() {
        let a = file("a", "0");
        let b = file("b", "1");
        assert_eq!(files_digest(&[a.clone(), b.clone()]), files_digest(&[b.clone(), a.clone()]));
        assert_ne!(files_digest(&[a.clone(), b]), files_digest(&[a, file("b", "2")]));
    }

    proptest! {
        /// Whatever is done: what is active and what was before exists, and no rollback leads to where one is.
        #[test]
        fn record_any_steps_refer_to_existing_versions(steps in prop::collection::vec((0..6_u8, 0..6_u8), 0..200)) {
            let mut model = ModelRecord::default();
            for (step, number) in steps {
                let name = number.to_string();
                // A refusal changes nothing.
                let before = model.clone();
                let refused = match step {
                    0 => model.register(&name, version(&name)).is_err(),
                    1 => model.activate(&name).is_err(),
                    2 => model.roll_back().is_err(),
                    3 => model.remove(&name).is_err(),
                    4 => {
                        model.remove_missing(&name);
                        false
                    }
                    _ => model.set_pinned(&name, number % 2 == 0).is_err(),
                };
                prop_assert!(!refused || model == before);
                prop_assert!(model.required_versions().iter().all(|name| model.versions.contains_key(&VersionName::new(name))));
                prop_assert!(model.previous_versions.iter().all(|name| model.versions.contains_key(&VersionName::new(name))));
                prop_assert!(model.previous_versions.len() <= MAX_PREVIOUS_VERSIONS);
                prop_assert!(model.previous_versions.is_empty() || model.previous_versions.last() != model.active.as_ref());
            }
        }
    }
}
