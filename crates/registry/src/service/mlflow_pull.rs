//! Versions whose files an MLflow server keeps.

use std::time::Duration;

use tokio::task::spawn_blocking;
use tokio::time::error::Elapsed;
use tokio::time::timeout;

use super::error::RegistryError;
use super::new_version::{NewVersion, PullRequest};
use crate::mlflow::client::{MlflowClient, MlflowError};
use crate::mlflow::pull::{PullError, pull_model};
use crate::mlflow::uri::ModelUri;
use crate::record::{Origin, files_digest};
use crate::store::{Store, StoreError};

/// Longest pull.
const PULL_TIMEOUT: Duration = Duration::from_hours(1);
/// Longest pull while nothing else is loaded.
const REPULL_TIMEOUT: Duration = Duration::from_mins(5);

/// Brings the files of a model into the store, for a new version.
pub(super) async fn pull_version(
    client: &MlflowClient,
    store: &Store,
    request: PullRequest,
) -> Result<NewVersion, RegistryError> {
    let pulled = timeout(PULL_TIMEOUT, pull_model(client, store, &request.uri)).await.map_err(pull_timeout_error)??;
    let mut metadata = pulled.metadata;
    metadata.extend(request.metadata);
    Ok(NewVersion { origin: Origin::Mlflow(pulled.uri.to_string()), files: pulled.files, metadata })
}

/// Brings the files of a recorded version into the store, where they are not. `digest`: the recorded files.
pub(super) async fn repull_files(
    client: &MlflowClient,
    store: &Store,
    uri: &str,
    digest: &str,
) -> Result<(), RegistryError> {
    let uri: ModelUri = uri.parse().map_err(|error| PullError::InvalidModel(format!("{error}")))?;
    let pulled = timeout(REPULL_TIMEOUT, pull_model(client, store, &uri)).await.map_err(pull_timeout_error)??;
    if files_digest(&pulled.files) != digest {
        return Err(
            PullError::InvalidModel(format!("{uri} has other files now than those that were registered")).into()
        );
    }
    let store = store.clone();
    spawn_blocking(move || store.commit(&store.stage(&pulled.files)?).map_err(StoreError::Disk)).await??;
    Ok(())
}

fn pull_timeout_error(_: Elapsed) -> RegistryError {
    PullError::Mlflow(MlflowError::Unavailable("it takes too long".to_owned())).into()
}
