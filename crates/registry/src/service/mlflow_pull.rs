//! Versions whose files an MLflow server keeps.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::task::spawn_blocking;
use tokio::time::error::Elapsed;
use tokio::time::timeout;

use super::error::RegistryError;
use super::model_commands::NewVersion;
use super::registry_service::RegistryService;
use crate::mlflow::client::{MlflowClient, MlflowError};
use crate::mlflow::pull::{PullError, pull_model};
use crate::mlflow::uri::ModelUri;
use crate::record::{Origin, files_digest};
use crate::store::StoreError;

/// Longest pull.
const PULL_TIMEOUT: Duration = Duration::from_hours(1);
/// Longest pull while nothing else can be changed.
const REPULL_TIMEOUT: Duration = Duration::from_mins(5);

fn pull_timeout_error(_: Elapsed) -> RegistryError {
    PullError::Mlflow(MlflowError::Unavailable("it takes too long".to_owned())).into()
}

impl RegistryService {
    pub(super) fn mlflow_client(&self) -> Result<&MlflowClient, RegistryError> {
        self.deps.mlflow.as_ref().ok_or(RegistryError::MlflowNotConfigured)
    }

    /// Brings the files of a model into the store, for a version to be made of them.
    ///
    /// # Errors
    /// [`RegistryError`]
    pub async fn pull_version(
        &self,
        uri: &ModelUri,
        metadata: BTreeMap<String, String>,
    ) -> Result<NewVersion, RegistryError> {
        let pulled = timeout(PULL_TIMEOUT, pull_model(self.mlflow_client()?, &self.deps.store, uri))
            .await
            .map_err(pull_timeout_error)??;
        let mut all = pulled.metadata;
        all.extend(metadata);
        Ok(NewVersion { origin: Origin::Mlflow(pulled.uri.to_string()), files: pulled.files, metadata: all })
    }

    /// Brings the files of a recorded version into the store, where they are not.
    pub(super) async fn repull_files(&self, uri: &str, recorded: &str) -> Result<(), RegistryError> {
        let uri: ModelUri = uri.parse().map_err(|error| PullError::InvalidModel(format!("{error}")))?;
        // Others wait for this one.
        let pull = pull_model(self.mlflow_client()?, &self.deps.store, &uri);
        let pulled = timeout(REPULL_TIMEOUT, pull).await.map_err(pull_timeout_error)??;
        if files_digest(&pulled.files) != recorded {
            return Err(
                PullError::InvalidModel(format!("{uri} has other files now than those that were registered")).into()
            );
        }
        let store = self.deps.store.clone();
        spawn_blocking(move || store.commit(&store.stage(&pulled.files)?).map_err(StoreError::Disk)).await??;
        Ok(())
    }
}
