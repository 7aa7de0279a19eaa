//! Keeps what is served in line with what is recorded, and makes changes to both.
//!
//! A version is loaded and checked before the record says that it answers; the record is written before it does. Whatever
//! fails on the way leaves both as they were.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::task::{JoinError, spawn_blocking};
use tokio_util::sync::CancellationToken;

use super::database::{Change, ChangeError, Database, Done, Event, Outcome, Records};
use super::known::{Keepsake, Known};
use super::mlflow::client::Client;
use super::mlflow::pull::PullError;
use super::record::{ModelRecord, Origin, Refusal, VersionRecord};
use super::store::{Store, StoreError};
use super::version::Version;
use super::{Registry, State};
use crate::engine::loading::{Host, ModelSource};
use crate::text::manifest::ManifestError;

mod changes;
mod following;
mod looking;
mod pulling;

pub use changes::NewVersion;
pub use following::Following;

/// Says whether so many bytes of files, loaded besides all else, fit into the memory.
pub type Fits = Arc<dyn Fn(&Registry, u64) -> Result<(), String> + Send + Sync>;

/// What a keeper works with.
pub struct Place {
    /// What is served.
    pub registry: Arc<Registry>,
    /// What is recorded.
    pub database: Database,
    /// Where files of registered versions are.
    pub store: Store,
    /// The operator's own models.
    pub models: PathBuf,
    /// What models are loaded with.
    pub host: Host,
    /// Whether there is room for one more.
    pub fits: Fits,
    /// Where versions may be pulled from.
    pub mlflow: Option<Client>,
    /// Where what is known is written down, where the database is elsewhere.
    pub keepsake: Option<Keepsake>,
}

/// Keeps what is served in line with what is recorded.
pub struct Keeper {
    place: Place,
    /// As it was read last.
    known: Mutex<Known>,
    /// The operator's own models, until they are recorded.
    found: Mutex<Vec<ModelSource>>,
    /// One change of this process at a time.
    changing: tokio::sync::Mutex<()>,
    /// Since when the database does not answer.
    away: Mutex<Option<Instant>>,
    /// Nothing more is loaded.
    stop: CancellationToken,
}

/// Who changes something, why, and on what grounds.
#[derive(Debug, Clone, Default)]
pub struct Order {
    /// Who.
    pub who: String,
    /// Why, in their words.
    pub reason: Option<String>,
    /// The revision of the model that they saw.
    pub revision: Option<i64>,
    /// Their Idempotency-Key, and what tells the request from others.
    pub key: Option<(String, String)>,
}

/// Why nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum KeepError {
    /// The record.
    #[error(transparent)]
    Change(#[from] ChangeError),
    /// The files.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// It does not load, or does not answer as it should.
    #[error("version {0} cannot serve: {1}")]
    Broken(String, String),
    /// It could not be looked whether it serves.
    #[error("version {0} cannot be loaded now: {1}")]
    Hindered(String, String),
    /// It does not fit into the memory.
    #[error("version {0} is not loaded: {1}")]
    NoRoom(String, String),
    /// It cannot be had from the MLflow server.
    #[error(transparent)]
    Pull(#[from] PullError),
    /// There is no MLflow server to ask.
    #[error("this server was not told of an MLflow server (--mlflow)")]
    NoMlflow,
    /// The work came to no end.
    #[error("the work was given up")]
    GivenUp(#[from] JoinError),
}

impl From<Refusal> for KeepError {
    fn from(refusal: Refusal) -> Self {
        Self::Change(refusal.into())
    }
}

impl Keeper {
    /// Keeps what was known last, until the database answers; the operator's own models are recorded then.
    #[must_use]
    pub fn new(place: Place, known: Known, found: Vec<ModelSource>) -> Self {
        let away = (!place.database.has_begun()).then(Instant::now);
        Self {
            place,
            known: Mutex::new(known),
            found: Mutex::new(found),
            changing: tokio::sync::Mutex::new(()),
            away: Mutex::new(away),
            stop: CancellationToken::new(),
        }
    }

    /// Reads what is recorded.
    ///
    /// # Errors
    /// If the database does not answer.
    pub async fn open(place: Place) -> Result<Self, ChangeError> {
        let keeper = Self::new(place, Known::default(), Vec::new());
        keeper.read().await?;
        Ok(keeper)
    }

    /// Loads nothing more, but for what is being loaded.
    pub fn stop(&self) {
        self.stop.cancel();
    }

    /// The models as they were recorded when it was looked last, and the epoch.
    #[must_use]
    pub fn known(&self) -> (i64, Records) {
        let known = self.known.lock();
        (known.epoch, known.records.clone())
    }

    /// How long the database has not answered; none if it did when it was looked last.
    #[must_use]
    pub fn stale_for(&self) -> Option<Duration> {
        self.away.lock().map(|since| since.elapsed())
    }

    /// What is served.
    #[must_use]
    pub fn registry(&self) -> &Arc<Registry> {
        &self.place.registry
    }

    /// Ends all connections to the database.
    pub async fn close(&self) {
        self.place.database.close().await;
    }

    /// The files of versions.
    #[must_use]
    pub fn store(&self) -> &Store {
        &self.place.store
    }

    /// What was done last.
    ///
    /// # Errors
    /// If the database does not answer.
    pub async fn history(&self, model: Option<&str>, most: i64) -> Result<Vec<Done>, ChangeError> {
        Ok(self.place.database.history(model, most).await?)
    }

    pub(super) async fn read(&self) -> Result<(), ChangeError> {
        let (epoch, records) = self.place.database.read().await?;
        let known = Known { epoch, records };
        let is_new = *self.known.lock() != known;
        *self.known.lock() = known;
        if is_new {
            self.write_down().await;
        }
        Ok(())
    }

    /// Writes down what is known, for a start while the database does not answer.
    async fn write_down(&self) {
        let Some(keepsake) = self.place.keepsake.clone() else { return };
        let known = self.known.lock().clone();
        if let Ok(Err(error)) = spawn_blocking(move || keepsake.write(&known)).await {
            tracing::warn!(%error, "what is known of the registry could not be written down");
        }
    }

    /// Loads what is to be loaded, and forgets the rest. A version that cannot serve leaves the old one in its place.
    pub async fn bring_in_line(&self) {
        let (_, records) = self.known();
        for (name, record) in &records {
            for version in record.kept() {
                if self.stop.is_cancelled() {
                    return;
                }
                if self.is_there(name, version) {
                    continue;
                }
                match self.load(name, record, version).await {
                    // Its load has said it.
                    Ok(()) | Err(KeepError::Broken(..) | KeepError::Hindered(..)) => {}
                    Err(error) => tracing::error!(model = name, version, %error, "a version is not loaded"),
                }
            }
            self.settle(name);
        }
    }

    /// Makes the first version that was found to be good the active one, where none is recorded.
    pub async fn settle_first(&self) {
        let (_, records) = self.known();
        for (name, record) in records.iter().filter(|(_, record)| record.active.is_none()) {
            let snapshot = self.place.registry.snapshot();
            let good = snapshot.models.get(name).and_then(super::Served::active);
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
        let record = self.record(name);
        if !record.versions.contains_key(&Version::new(version)) {
            return Err(Refusal::UnknownVersion(version.to_owned()).into());
        }
        if !self.is_there(name, version) {
            let bytes = record.versions.get(&Version::new(version)).map_or(0, VersionRecord::bytes);
            let loaded = match self.make_room(version, bytes) {
                Ok(()) => self.load(name, &record, version).await,
                Err(error) => Err(error),
            };
            if let Err(error) = loaded {
                self.settle(name);
                return Err(error);
            }
        }
        let changed = self.change(name, action, Some(version), order, apply).await;
        if !matches!(changed, Ok(Outcome::Changed(_))) {
            // What was loaded for it may not be needed.
            self.settle(name);
        }
        changed
    }

    /// Writes a change down, and serves accordingly.
    pub(super) async fn change(
        &self,
        name: &str,
        action: &str,
        version: Option<&str>,
        order: &Order,
        apply: impl FnOnce(&mut ModelRecord) -> Result<bool, Refusal>,
    ) -> Result<Outcome, KeepError> {
        let event = Event { who: &order.who, action, version, reason: order.reason.as_deref() };
        let key = order.key.as_ref().map(|(key, request)| (key.as_str(), request.as_str()));
        let change = Change { model: name, revision: order.revision, key, event };
        let answer = |record: &ModelRecord| {
            // Three plain values can always be written.
            serde_json::to_string(&(record.revision, &record.active, record.before.last())).unwrap_or_default()
        };
        let outcome = self.place.database.change(change, apply, answer).await?;
        if let Outcome::Changed(record) = &outcome {
            self.place.host.metrics.changed(name, action);
            tracing::info!(model = name, action, version, by = order.who, "the registry was changed");
            {
                let mut known = self.known.lock();
                let newer = known.records.get(name).is_none_or(|known| known.revision < record.revision);
                if newer {
                    known.records.insert(name.to_owned(), record.clone());
                }
            }
            self.write_down().await;
            self.settle(name);
        }
        Ok(outcome)
    }

    pub(super) fn record(&self, name: &str) -> ModelRecord {
        self.known.lock().records.get(name).cloned().unwrap_or_default()
    }

    pub(super) fn is_there(&self, name: &str, version: &str) -> bool {
        self.place.registry.snapshot().models.get(name).is_some_and(|served| served.ready(version).is_some())
    }

    /// Serves what is recorded, as far as it could be loaded.
    fn settle(&self, name: &str) {
        // Nobody settles what was true before.
        let known = self.known.lock();
        let Some(record) = known.records.get(name) else { return };
        let snapshot = self.place.registry.snapshot();
        let Some(served) = snapshot.models.get(name) else { return };
        let mut kept = record.kept();
        let answers = served.active().filter(|(_, state)| matches!(state, State::Ready(_)));
        let (mut active, before) = (record.active.as_deref(), record.before.last().map(String::as_str));
        // What answers goes on until its successor can.
        if let (Some(wanted), Some((old, _))) = (active, answers)
            && served.ready(wanted).is_none()
        {
            active = Some(old.as_str());
            kept.insert(old.as_str());
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

    /// Refuses a version of so many bytes that does not fit besides the others.
    pub(super) fn make_room(&self, version: &str, bytes: u64) -> Result<(), KeepError> {
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
                if let Origin::Mlflow(uri) = origin
                    && !directory.is_dir()
                {
                    // Another replica has registered it.
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

/// What to load.
fn source(name: &str, version: &str, directory: PathBuf, record: &VersionRecord) -> ModelSource {
    let registered = record.files.iter().map(|file| (file.path.clone(), file.sha256.clone())).collect();
    ModelSource { name: name.to_owned(), version: version.to_owned(), directory, registered }
}
