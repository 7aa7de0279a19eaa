//! A server process with one version of a model, and directories of other versions to register.

use std::path::PathBuf;

use crate::support::daemon::Daemon;
use crate::support::files::dir_entries;
use crate::support::model_builder::ModelBuilder;
use crate::support::models_command::change_model;

/// The model whose versions a test is about.
pub(crate) const MODEL: &str = "m";

/// Version 1 in a models directory, a place for the server's data, and one for other versions.
pub(crate) struct VersionScene {
    pub(crate) models: tempfile::TempDir,
    pub(crate) data: tempfile::TempDir,
    pub(crate) others: tempfile::TempDir,
}

impl VersionScene {
    pub(crate) fn new() -> Self {
        let [models, data, others] = [(); 3].map(|()| tempfile::tempdir().unwrap());
        ModelBuilder::plain().write(models.path(), MODEL, "1");
        Self { models, data, others }
    }

    pub(crate) fn start(&self) -> Daemon {
        Daemon::start_recorded(self.models.path(), self.data.path(), &[])
    }

    /// A directory that is no version yet. Versions of the same files would be one in the store: its notes differ.
    pub(crate) fn write_other_version(&self, version: &str, model: &ModelBuilder) -> PathBuf {
        let directory = model.write(self.others.path(), MODEL, version);
        std::fs::write(directory.join("notes.txt"), version).unwrap();
        directory
    }

    /// The same of a model that serves; its path.
    pub(crate) fn write_plain_version(&self, version: &str) -> String {
        self.write_other_version(version, &ModelBuilder::plain()).to_str().unwrap().to_owned()
    }

    pub(crate) fn register_version(&self, daemon: &Daemon, version: &str) {
        change_model(daemon, &["register", MODEL, version, &self.write_plain_version(version)]);
    }

    /// The directories of stored versions.
    pub(crate) fn stored_versions(&self) -> Vec<PathBuf> {
        dir_entries(&self.data.path().join("store/versions"))
    }

    /// The directory of the stored version with these notes.
    pub(crate) fn stored_version(&self, version: &str) -> PathBuf {
        let has_notes = |directory: &PathBuf| {
            std::fs::read_to_string(directory.join("notes.txt")).is_ok_and(|text| text == version)
        };
        self.stored_versions().into_iter().find(has_notes).unwrap()
    }
}
