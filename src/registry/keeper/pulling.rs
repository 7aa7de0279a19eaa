//! Versions whose files an MLflow server keeps.

use std::collections::BTreeMap;

use tokio::task::spawn_blocking;

use super::{KeepError, Keeper, NewVersion};
use crate::registry::mlflow::client::Client;
use crate::registry::mlflow::pull::{PullError, pull};
use crate::registry::mlflow::uri::ModelUri;
use crate::registry::record::{Origin, digest};
use crate::registry::store::StoreError;

impl Keeper {
    pub(super) fn mlflow(&self) -> Result<&Client, KeepError> {
        self.place.mlflow.as_ref().ok_or(KeepError::NoMlflow)
    }

    /// Brings the files of a model into the store, for a version to be made of them.
    ///
    /// # Errors
    /// [`KeepError`]
    pub async fn pull(&self, uri: &ModelUri, metadata: BTreeMap<String, String>) -> Result<NewVersion, KeepError> {
        let pulled = pull(self.mlflow()?, &self.place.store, uri).await?;
        let mut all = pulled.metadata;
        all.extend(metadata);
        Ok(NewVersion { origin: Origin::Mlflow(pulled.uri.to_string()), files: pulled.files, metadata: all })
    }

    /// Brings the files of a recorded version into the store, where they are not.
    pub(super) async fn pull_again(&self, uri: &str, recorded: &str) -> Result<(), KeepError> {
        let uri: ModelUri = uri.parse().map_err(|error| PullError::Unusable(format!("{error}")))?;
        let pulled = pull(self.mlflow()?, &self.place.store, &uri).await?;
        if digest(&pulled.files) != recorded {
            return Err(
                PullError::Unusable(format!("{uri} has other files now than those that were registered")).into()
            );
        }
        let store = self.place.store.clone();
        spawn_blocking(move || store.commit(&store.assemble(&pulled.files)?).map_err(StoreError::Disk)).await??;
        Ok(())
    }
}
