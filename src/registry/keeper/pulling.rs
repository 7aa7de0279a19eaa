//! Versions whose files an MLflow server keeps.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::task::spawn_blocking;
use tokio::time::error::Elapsed;
use tokio::time::timeout;

use super::{KeepError, Keeper, NewVersion};
use crate::registry::mlflow::client::{AskError, Client};
use crate::registry::mlflow::pull::{PullError, pull};
use crate::registry::mlflow::uri::ModelUri;
use crate::registry::record::{Origin, digest};
use crate::registry::store::StoreError;

/// Longest pull.
const LONGEST: Duration = Duration::from_hours(1);
/// Longest pull while nothing else can be changed.
const LONGEST_AGAIN: Duration = Duration::from_mins(5);

fn too_long(_: Elapsed) -> KeepError {
    PullError::Ask(AskError::Away("it takes too long".to_owned())).into()
}

impl Keeper {
    pub(super) fn mlflow(&self) -> Result<&Client, KeepError> {
        self.place.mlflow.as_ref().ok_or(KeepError::NoMlflow)
    }

    /// Brings the files of a model into the store, for a version to be made of them.
    ///
    /// # Errors
    /// [`KeepError`]
    pub async fn pull(&self, uri: &ModelUri, metadata: BTreeMap<String, String>) -> Result<NewVersion, KeepError> {
        let pulled = timeout(LONGEST, pull(self.mlflow()?, &self.place.store, uri)).await.map_err(too_long)??;
        let mut all = pulled.metadata;
        all.extend(metadata);
        Ok(NewVersion { origin: Origin::Mlflow(pulled.uri.to_string()), files: pulled.files, metadata: all })
    }

    /// Brings the files of a recorded version into the store, where they are not.
    pub(super) async fn pull_again(&self, uri: &str, recorded: &str) -> Result<(), KeepError> {
        let uri: ModelUri = uri.parse().map_err(|error| PullError::Unusable(format!("{error}")))?;
        // Others wait for this one.
        let pull = pull(self.mlflow()?, &self.place.store, &uri);
        let pulled = timeout(LONGEST_AGAIN, pull).await.map_err(too_long)??;
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
