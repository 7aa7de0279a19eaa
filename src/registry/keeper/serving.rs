//! Loads what is recorded, and has it served.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;

use tokio::task::spawn_blocking;

use super::experiments::Publish;
use super::{KeepError, Keeper, Order};
use crate::engine::loading::ModelSource;
use crate::registry::State;
use crate::registry::database::{ChangeError, Outcome};
use crate::registry::record::{ModelRecord, Origin, Refusal, VersionRecord};
use crate::registry::version::Version;
use crate::text::manifest::ManifestError;

/// Why versions are loaded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Why {
    /// The server starts: it is looked afterwards whether all of them fit into the memory.
    Start,
    /// Something was changed: what could not be loaded before is not tried again, but for what shall answer.
    Change,
    /// What could not be loaded is tried again.
    Again,
}

impl Keeper {
    /// Loads what is recorded for the first time, and records what was found to be good where nothing is.
    pub async fn begin(&self) {
        let _alone = self.changing.lock().await;
        let known = self.known.lock().clone();
        let awaited = known.records.iter().flat_map(|(name, record)| {
            // Not what only a rollback leads to: it may have to be fetched from far.
            let asked = known.kept(name, record).into_iter().filter(|version| known.is_asked(name, record, version));
            asked.map(|version| (name.clone(), Version::new(version))).collect::<Vec<_>>()
        });
        self.place.registry.expect(awaited.collect());
        self.bring_in_line(Why::Start).await;
        // One that was told to stop does not become ready.
        if !self.stop.is_cancelled() {
            self.place.registry.expect(BTreeSet::new());
        }
    }

    /// Loads what is to be loaded, and forgets the rest. A version that cannot serve leaves the old one in its place.
    pub(super) async fn bring_in_line(&self, why: Why) {
        let known = self.known.lock().clone();
        *self.lined_up.lock() = Some(known.epoch);
        // What is loaded already, such as what a rollback leads to, does not wait for what is not. Nobody is sent to a
        // version that is let go.
        self.publish(Publish::Known);
        for name in known.records.keys() {
            self.settle(name);
        }
        let default_model = self.place.registry.snapshot().default_model.clone();
        let all = known.records.iter().flat_map(|(name, record)| {
            known.kept(name, record).into_iter().map(move |version| (name, record, version))
        });
        let mut all: Vec<_> = all.collect();
        // What answers goes first, or may answer where none was made active.
        all.sort_by_key(|(name, record, version)| {
            let (answers, in_experiment) = (record.may_answer(version), known.in_experiment(name, version));
            (!known.is_asked(name, record, version), !answers, **name != default_model, !in_experiment)
        });
        for (name, record, version) in all {
            if self.stop.is_cancelled() {
                return;
            }
            let answers = record.active.as_deref() == Some(version);
            let failed = self.has_failed(name, version) && why == Why::Change && !answers;
            if self.is_there(name, version) || failed {
                continue;
            }
            let loaded = match if why == Why::Start { Ok(()) } else { self.make_room(record, version) } {
                Ok(()) => self.load(name, record, version).await,
                Err(error) => Err(error),
            };
            match loaded {
                // Its load has said it.
                Ok(()) | Err(KeepError::Broken(..) | KeepError::Hindered(..)) => {}
                Err(error) => {
                    tracing::error!(model = name, version, %error, "a version is not loaded");
                    self.place.registry.fail(name, version, &error.to_string());
                }
            }
            self.settle(name);
            self.publish(Publish::Tried);
        }
        for name in known.records.keys() {
            self.settle(name);
        }
        self.settle_first().await;
        self.publish(Publish::All);
    }

    /// Makes the first version that was found to be good the active one, where none is recorded.
    async fn settle_first(&self) {
        let (_, records) = self.known();
        for (name, record) in records.iter().filter(|(_, record)| record.active.is_none()) {
            let snapshot = self.place.registry.snapshot();
            let good = snapshot.models.get(name).and_then(crate::registry::Served::active);
            let Some((version, State::Ready(_))) = good else { continue };
            let (version, order) = (version.as_str().to_owned(), Order { who: "start".to_owned(), ..Order::default() });
            let order = Order { revision: Some(record.revision), ..order };
            if let Err(error) =
                self.change(name, "activate", Some(&version), &order, |record| record.activate(&version)).await
            {
                tracing::warn!(model = name, %error, "which version is active could not be recorded");
            }
        }
    }

    /// A change that needs a version to be loaded.
    pub(super) async fn switch(
        &self,
        name: &str,
        action: &str,
        version: &str,
        order: &Order,
        apply: impl FnOnce(&mut ModelRecord) -> Result<bool, Refusal>,
    ) -> Result<Outcome, KeepError> {
        let mut record = self.record(name);
        if order.revision.is_some_and(|seen| seen != record.revision) {
            // Before a load that would be for nothing.
            self.read().await?;
            record = self.record(name);
            if order.revision.is_some_and(|seen| seen != record.revision) {
                return Err(ChangeError::Stale(record.revision).into());
            }
        }
        if !record.versions.contains_key(&Version::new(version)) {
            return Err(Refusal::UnknownVersion(version.to_owned()).into());
        }
        let needed = Needed::of(self, name, version);
        let changed = match self.prepare(name, &record, version).await {
            Ok(()) => self.change(name, action, Some(version), order, apply).await,
            Err(error) => Err(error),
        };
        drop(needed);
        if !matches!(changed, Ok(Outcome::Changed(_))) {
            // What was loaded for it may not be needed.
            self.settle(name);
        }
        changed
    }

    /// Loads a version, if it is not, and looks whether there is room for it before and afterwards.
    pub(super) async fn prepare(&self, name: &str, record: &ModelRecord, version: &str) -> Result<(), KeepError> {
        if self.is_there(name, version) {
            return Ok(());
        }
        self.make_room(record, version)?;
        self.load(name, record, version).await?;
        // What its runs need is known only now.
        (self.place.fits)(&self.place.registry, 0).map_err(|reason| {
            self.place.registry.forget(name, version);
            KeepError::NoRoom(version.to_owned(), reason)
        })
    }

    pub(super) fn is_there(&self, name: &str, version: &str) -> bool {
        self.place.registry.snapshot().models.get(name).is_some_and(|served| served.ready(version).is_some())
    }

    pub(super) fn has_failed(&self, name: &str, version: &str) -> bool {
        let snapshot = self.place.registry.snapshot();
        let state = snapshot.models.get(name).and_then(|served| served.versions.get(&Version::new(version)));
        matches!(state, Some(State::Failed(_)))
    }

    /// Serves what is recorded, as far as it could be loaded.
    pub(super) fn settle(&self, name: &str) {
        // Nobody settles what was true before.
        let known = self.known.lock();
        let Some(record) = known.records.get(name) else { return };
        let snapshot = self.place.registry.snapshot();
        let Some(served) = snapshot.models.get(name) else { return };
        let mut kept = known.kept(name, record);
        let switching = self.switching.lock();
        kept.extend(switching.iter().filter(|(model, _)| model == name).map(|(_, version)| version.as_str()));
        let answers = served.active().filter(|(_, state)| matches!(state, State::Ready(_)));
        let (mut active, before) = (record.active.as_deref(), record.before.last().map(String::as_str));
        // What answers goes on until its successor can.
        if let Some((old, _)) = answers.filter(|_| active.is_none_or(|wanted| served.ready(wanted).is_none())) {
            kept.insert(old.as_str());
            active = active.is_some().then_some(old.as_str()).or(served.active.as_ref().map(Version::as_str));
        }
        self.place.registry.settle(name, active, before, &kept);
    }

    /// Why a version could not be loaded.
    pub(super) fn not_loaded(&self, version: &str, error: &ManifestError) -> KeepError {
        let (version, reason) = (version.to_owned(), error.to_string());
        // What is interrupted by the end of the server says nothing of the version.
        if error.may_pass || self.stop.is_cancelled() {
            return KeepError::Hindered(version, reason);
        }
        KeepError::Broken(version, reason)
    }

    /// Refuses a version that does not fit besides the others.
    fn make_room(&self, record: &ModelRecord, version: &str) -> Result<(), KeepError> {
        let bytes = record.versions.get(&Version::new(version)).map_or(0, VersionRecord::bytes);
        self.has_room(version, bytes)
    }

    /// Refuses so many bytes that do not fit besides the others.
    pub(super) fn has_room(&self, version: &str, bytes: u64) -> Result<(), KeepError> {
        (self.place.fits)(&self.place.registry, bytes).map_err(|reason| KeepError::NoRoom(version.to_owned(), reason))
    }

    async fn load(&self, name: &str, record: &ModelRecord, version: &str) -> Result<(), KeepError> {
        let Some(found) = record.versions.get(&Version::new(version)) else {
            return Err(Refusal::UnknownVersion(version.to_owned()).into());
        };
        let directory = match (&found.origin, found.digest()) {
            (Origin::Directory, _) | (_, None) => self.place.models.join(name).join(version),
            (origin, Some(digest)) => {
                let directory = self.place.store.version(&digest);
                // Another replica has registered it, or its files were lost or damaged.
                let lacks = !directory.is_dir() || self.has_failed(name, version);
                if let Origin::Mlflow(uri) = origin
                    && lacks
                    && self.place.mlflow.is_some()
                {
                    self.pull_again(uri, &digest).await?;
                }
                directory
            }
        };
        let source = source(name, version, directory, found);
        let (registry, host) = (Arc::clone(&self.place.registry), self.place.host.clone());
        let loaded = spawn_blocking(move || registry.load(&source, &host)).await?;
        loaded.map_err(|error| self.not_loaded(version, &error))
    }
}

/// A version that nobody may forget meanwhile.
pub(super) struct Needed<'a> {
    keeper: &'a Keeper,
    version: (String, String),
}

impl<'a> Needed<'a> {
    pub(super) fn of(keeper: &'a Keeper, name: &str, version: &str) -> Self {
        let version = (name.to_owned(), version.to_owned());
        keeper.switching.lock().insert(version.clone());
        Self { keeper, version }
    }
}

impl Drop for Needed<'_> {
    fn drop(&mut self) {
        self.keeper.switching.lock().remove(&self.version);
    }
}

/// What to load.
pub(super) fn source(name: &str, version: &str, directory: PathBuf, record: &VersionRecord) -> ModelSource {
    let registered = record.files.iter().map(|file| (file.path.clone(), file.sha256.clone())).collect();
    ModelSource { name: name.to_owned(), version: version.to_owned(), directory, registered }
}
