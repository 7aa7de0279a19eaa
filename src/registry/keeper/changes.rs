//! What an operator can do to a model.

use std::collections::BTreeMap;

use tokio::task::spawn_blocking;

use super::serving::source;
use super::{KeepError, Keeper, Order};
use crate::engine::model::Model;
use crate::registry::database::{Outcome, now};
use crate::registry::record::{FileRecord, ModelRecord, Origin, Refusal, VersionRecord};
use crate::registry::store::{Assembled, StoreError};

/// A version that is to be added.
#[derive(Debug, Clone)]
pub struct NewVersion {
    /// Where its files came from.
    pub origin: Origin,
    /// Its files, which are in the store.
    pub files: Vec<FileRecord>,
    /// What there is to say of it.
    pub metadata: BTreeMap<String, String>,
}

impl Keeper {
    /// Adds a version whose files are in the store, once it was found to serve. One that is there already has its files put
    /// back, if they are not.
    ///
    /// # Errors
    /// [`KeepError`]; nothing is kept then.
    pub async fn register(
        &self,
        name: &str,
        version: &str,
        added: NewVersion,
        order: &Order,
    ) -> Result<Outcome, KeepError> {
        let NewVersion { origin, files, metadata } = added;
        let (metrics, registered_at) = (BTreeMap::new(), now());
        let record = VersionRecord { origin, files, metadata, metrics, pinned: false, registered_at };
        // What cannot be recorded need not be checked.
        let is_new = self.record(name).register(version, record.clone())?;
        // Others may change what they like meanwhile.
        let verified = if is_new || self.lacks_files(name, version, &record) {
            Some(self.verify(name, version, &record).await?)
        } else {
            None
        };
        let _alone = self.changing.lock().await;
        if let Some(assembled) = verified {
            let store = self.place.store.clone();
            spawn_blocking(move || store.commit(&assembled)).await?.map_err(StoreError::Disk)?;
        }
        self.change(name, "register", Some(version), order, |model| model.register(version, record)).await
    }

    /// True for a version whose files are not where they should be, or are not what they should be.
    fn lacks_files(&self, name: &str, version: &str, record: &VersionRecord) -> bool {
        let is_stored = record.digest().is_some_and(|digest| self.place.store.version(&digest).is_dir());
        !is_stored || self.has_failed(name, version)
    }

    /// Puts a version together and looks whether it serves.
    async fn verify(&self, name: &str, version: &str, record: &VersionRecord) -> Result<Assembled, KeepError> {
        let _alone = self.verifying.lock().await;
        let (store, files) = (self.place.store.clone(), record.files.clone());
        let assembled = spawn_blocking(move || store.assemble(&files)).await??;
        self.has_room(version, record.bytes())?;
        let source = source(name, version, assembled.path().to_owned(), record);
        let host = self.place.host.clone();
        let verified = spawn_blocking(move || Model::verify(&source, &host)).await?;
        verified.map_err(|error| self.not_loaded(version, &error))?;
        Ok(assembled)
    }

    /// Makes a version the active one, once it was found to serve.
    ///
    /// # Errors
    /// [`KeepError`]; the old one answers on then.
    pub async fn activate(&self, name: &str, version: &str, order: &Order) -> Result<Outcome, KeepError> {
        let _alone = self.changing.lock().await;
        self.switch(name, "activate", version, order, |model| model.activate(version)).await
    }

    /// Makes the version active that was so before.
    ///
    /// # Errors
    /// [`KeepError`]; the present one answers on then.
    pub async fn roll_back(&self, name: &str, order: &Order) -> Result<Outcome, KeepError> {
        self.read().await?;
        let previous = self.record(name).previous()?.to_owned();
        // A rollback does not wait for a load, unless it needs one itself.
        let needs_load = !self.is_there(name, &previous);
        let _alone = if needs_load { Some(self.changing.lock().await) } else { None };
        let apply = |model: &mut ModelRecord| {
            // Another process may have rolled back meanwhile: not twice for one request.
            if model.previous()? == previous { model.roll_back().map(|()| true) } else { Err(Refusal::NothingBefore) }
        };
        self.switch(name, "roll back", &previous, order, apply).await
    }

    /// Adds figures to those of a version.
    ///
    /// # Errors
    /// [`KeepError`].
    pub async fn measure(
        &self,
        name: &str,
        version: &str,
        metrics: BTreeMap<String, f64>,
        order: &Order,
    ) -> Result<Outcome, KeepError> {
        let _alone = self.changing.lock().await;
        self.change(name, "measure", Some(version), order, |model| model.measure(version, metrics)).await
    }

    /// Keeps a version loaded, or no longer.
    ///
    /// # Errors
    /// [`KeepError`].
    pub async fn pin(&self, name: &str, version: &str, pinned: bool, order: &Order) -> Result<Outcome, KeepError> {
        let _alone = self.changing.lock().await;
        let action = if pinned { "pin" } else { "unpin" };
        if pinned {
            return self.switch(name, action, version, order, |model| model.pin(version, true)).await;
        }
        self.change(name, action, Some(version), order, |model| model.pin(version, false)).await
    }

    /// Forgets a version.
    ///
    /// # Errors
    /// [`KeepError`].
    pub async fn remove(&self, name: &str, version: &str, order: &Order) -> Result<Outcome, KeepError> {
        let _alone = self.changing.lock().await;
        self.change(name, "remove", Some(version), order, |model| model.remove(version).map(|()| true)).await
    }
}
