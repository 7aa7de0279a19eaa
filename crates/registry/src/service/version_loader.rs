//! Loads and verifies single versions, if there is memory for them.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use predictd_engine::load_context::LoadContext;
use predictd_engine::loader;
use predictd_engine::model_source::ModelSource;
use predictd_text::manifest::ManifestError;
use tokio::task::spawn_blocking;

use super::registry_context::RegistryContext;
use crate::error::RegistryError;
use crate::mlflow::client::MlflowClient;
use crate::mlflow::pull::{PullError, PullRequest, pull_model};
use crate::mlflow::uri::ModelUriError;
use crate::record::{Origin, VersionRecord};
use crate::snapshot::Registry;
use crate::store::{StagedVersion, Store, StoreError};
use crate::version_name::VersionName;
use crate::version_state::VersionState;

/// Longest pull while nothing else is loaded.
const REPULL_TIMEOUT: Duration = Duration::from_mins(5);

/// Says whether so many bytes of files, loaded besides all else, fit into the memory.
pub type MemoryCheck = Arc<dyn Fn(&Registry, u64) -> Result<(), String> + Send + Sync>;

/// What versions are loaded from, and with.
pub struct LoadDeps {
    /// The operator's own models.
    pub models_directory: PathBuf,
    /// What models are loaded with.
    pub load_context: LoadContext,
    /// Whether there is memory for one more.
    pub memory_check: MemoryCheck,
    /// Where lost files of versions are pulled from.
    pub mlflow: Option<MlflowClient>,
}

/// Loads versions.
pub(super) struct VersionLoader {
    pub(super) context: Arc<RegistryContext>,
    pub(super) deps: LoadDeps,
}

impl VersionLoader {
    /// Loads a version into the registry, whether or not there is memory for it.
    pub(super) async fn load(
        &self,
        name: &str,
        version: &str,
        version_record: &VersionRecord,
    ) -> Result<(), RegistryError> {
        let directory = match (&version_record.origin, version_record.digest()) {
            (Origin::Directory, _) | (_, None) => self.deps.models_directory.join(name).join(version),
            (origin, Some(digest)) => {
                let directory = self.context.store.version_path(&digest);
                // Another replica has registered it, or its files were lost or damaged.
                let lacks = !directory.is_dir() || self.has_failed(name, version);
                if let Origin::Mlflow(uri) = origin
                    && lacks
                    && let Some(client) = &self.deps.mlflow
                {
                    repull_files(client, &self.context.store, uri, &digest).await?;
                }
                directory
            }
        };
        let source = model_source(name, version, directory, version_record);
        let registry = Arc::clone(self.context.registry());
        let load_context = self.deps.load_context.clone();
        spawn_blocking(move || registry.load(&source, &load_context))
            .await?
            .map_err(|error| self.classify_error(version, &error))
    }

    /// Loads the files of a version that is not registered yet, and lets them go.
    pub(super) async fn verify(
        &self,
        name: &str,
        version: &str,
        record: &VersionRecord,
        staged: &StagedVersion,
    ) -> Result<(), RegistryError> {
        self.check_memory(version, record.bytes())?;
        let source = model_source(name, version, staged.path.clone(), record);
        let load_context = self.deps.load_context.clone();
        spawn_blocking(move || loader::verify(&source, &load_context))
            .await?
            .map_err(|error| self.classify_error(version, &error))
    }

    /// Refuses `bytes` of files that do not fit into the memory besides the loaded versions.
    pub(super) fn check_memory(&self, version: &str, bytes: u64) -> Result<(), RegistryError> {
        (self.deps.memory_check)(self.context.registry(), bytes)
            .map_err(|reason| RegistryError::InsufficientMemory(version.to_owned(), reason))
    }

    /// True if the version was tried last without success.
    pub(super) fn has_failed(&self, name: &str, version: &str) -> bool {
        let snapshot = self.context.registry().snapshot();
        matches!(snapshot.state(name, &VersionName::new(version)), Some(VersionState::Failed(_)))
    }

    fn classify_error(&self, version: &str, error: &ManifestError) -> RegistryError {
        // The end of the server says nothing of the version.
        let is_interrupted = error.is_transient || self.context.stop.is_cancelled();
        let kind = if is_interrupted { RegistryError::LoadInterrupted } else { RegistryError::BrokenVersion };
        kind(version.to_owned(), error.to_string())
    }
}

/// Brings the files of a recorded version into the store, where they are not. `digest`: the recorded files.
async fn repull_files(client: &MlflowClient, store: &Store, uri: &str, digest: &str) -> Result<(), RegistryError> {
    let parsed = uri.parse().map_err(|error: ModelUriError| PullError::InvalidModel(error.to_string()))?;
    let request = PullRequest { uri: parsed, metadata: BTreeMap::new() };
    let pulled = pull_model(client, store, request, REPULL_TIMEOUT).await?;
    if pulled.digest().is_none_or(|pulled| pulled != digest) {
        let reason = format!("{uri} has other files now than those that were registered");
        return Err(PullError::InvalidModel(reason).into());
    }
    let store = store.clone();
    spawn_blocking(move || store.commit(&store.stage(&pulled.files)?).map_err(StoreError::Disk)).await??;
    Ok(())
}

fn model_source(name: &str, version: &str, directory: PathBuf, record: &VersionRecord) -> ModelSource {
    ModelSource {
        name: name.to_owned(),
        version: version.to_owned(),
        directory,
        registered_hashes: record.files.iter().map(|file| (file.path.clone(), file.sha256.clone())).collect(),
    }
}
