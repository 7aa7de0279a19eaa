//! Keeps what is served in line with what is recorded, and makes changes to both.
//!
//! A version is loaded and checked before the record says that it answers; the record is written before it does. Whatever
//! fails on the way leaves both as they were.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicI64;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::task::{JoinError, spawn_blocking};
use tokio_util::sync::CancellationToken;

use super::Registry;
use super::database::{Change, ChangeError, Database, Done, Event, Of, Outcome, Records, Unusable};
use super::known::{Keepsake, Known};
use super::mlflow::client::Client;
use super::mlflow::pull::PullError;
use super::record::{ModelRecord, Refusal};
use super::spool::{Spool, SpoolError};
use super::store::{Store, StoreError};
use crate::engine::loading::{Host, ModelSource};
use crate::metrics::drift::AccuracyNow;

mod accuracy;
mod changes;
mod evaluating;
mod experiments;
mod feedback;
mod following;
mod looking;
mod pulling;
mod retention;
mod serving;

pub use changes::NewVersion;
use evaluating::Counting;
pub use feedback::Told;
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
    /// Where feedback waits while the database does not answer.
    pub spool: Spool,
    /// Where versions may be pulled from.
    pub mlflow: Option<Client>,
    /// Where what is known is written down, for a start while the database cannot be used.
    pub keepsake: Keepsake,
    /// The age from which feedback is deleted, if it is.
    pub retention: Option<Duration>,
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
    /// One new version is verified at a time: each needs the memory of a model.
    verifying: tokio::sync::Mutex<()>,
    reading: tokio::sync::Mutex<()>,
    writing_down: tokio::sync::Mutex<()>,
    /// What is loaded for a change that is not recorded yet.
    switching: Mutex<BTreeSet<(String, String)>>,
    /// How many changes the database counted when it was looked last.
    seen: Mutex<Option<i64>>,
    /// The epoch up to which what is served was brought in line with what is recorded.
    lined_up: Mutex<Option<i64>>,
    /// Since when the database does not answer.
    away: Mutex<Option<Instant>>,
    /// How right versions were lately, as it was looked last.
    accuracies: Mutex<Vec<AccuracyNow>>,
    /// Phases of experiments that have something to be kept.
    counting: Mutex<Vec<Counting>>,
    /// One at a time keeps it.
    keeping_counts: tokio::sync::Mutex<()>,
    /// One at a time tells the database what is true: its transactions wait for each other anyway, and others need
    /// connections too.
    telling: tokio::sync::Mutex<()>,
    /// When something was told last, in microseconds since 1970.
    told: AtomicI64,
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
    /// Arms that cannot be compared.
    #[error("{0}")]
    Unfit(String),
    /// Too many others wait.
    #[error("too many changes wait already")]
    Busy,
    /// The file of the database cannot be used.
    #[error(transparent)]
    Unusable(#[from] Unusable),
    /// Feedback can be kept nowhere.
    #[error("feedback cannot be kept: {0}")]
    Spool(#[from] SpoolError),
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
            changing: tokio::sync::Mutex::default(),
            verifying: tokio::sync::Mutex::default(),
            reading: tokio::sync::Mutex::default(),
            writing_down: tokio::sync::Mutex::default(),
            switching: Mutex::default(),
            seen: Mutex::default(),
            lined_up: Mutex::default(),
            away: Mutex::new(away),
            accuracies: Mutex::default(),
            counting: Mutex::default(),
            keeping_counts: tokio::sync::Mutex::default(),
            telling: tokio::sync::Mutex::new(()),
            told: AtomicI64::new(0),
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

    /// A model as it was recorded when it was looked last.
    #[must_use]
    pub fn recorded(&self, name: &str) -> Option<ModelRecord> {
        self.known.lock().records.get(name).cloned()
    }

    /// How long the database has not answered; none if it did when it was looked last.
    #[must_use]
    pub fn stale_for(&self) -> Option<Duration> {
        self.away.lock().map(|since| since.elapsed())
    }

    /// Why nothing can be kept, if so: neither feedback nor a change. What was known last is served.
    #[must_use]
    pub fn unusable(&self) -> Option<Unusable> {
        self.place.database.unusable()
    }

    /// What is wrong with the database's file or with the data directory, if anything.
    #[must_use]
    pub fn condition(&self) -> Option<Unusable> {
        self.place.database.condition()
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
    pub async fn history(&self, of: Of<'_>, most: i64) -> Result<Vec<Done>, ChangeError> {
        Ok(self.place.database.history(of, most).await?)
    }

    pub(super) async fn read(&self) -> Result<(), ChangeError> {
        // One after the other: what was read earlier must not be taken for a database that has gone back.
        let _alone = self.reading.lock().await;
        let read = self.place.database.read().await?;
        let is_new = self.known.lock().take_over(read);
        if is_new {
            self.write_down().await;
        }
        Ok(())
    }

    /// Writes down what is known, for a start while the database does not answer.
    async fn write_down(&self) {
        let keepsake = self.place.keepsake.clone();
        let _alone = self.writing_down.lock().await;
        let known = self.known.lock().clone();
        if let Ok(Err(error)) = spawn_blocking(move || keepsake.write(&known)).await {
            tracing::warn!(%error, "what is known of the registry could not be written down");
        }
    }

    /// What became of a request that was made before under the same Idempotency-Key: then nothing is to be done.
    ///
    /// # Errors
    /// If the key was used for another request, or the database does not answer.
    pub async fn repeated<T>(&self, order: &Order) -> Result<Option<Outcome<T>>, ChangeError> {
        let Some((key, request)) = &order.key else { return Ok(None) };
        self.place.database.repeated(key, request).await
    }

    /// Models whose recorded version does not answer here.
    #[must_use]
    pub fn unserved(&self) -> usize {
        let (known, snapshot) = (self.known.lock(), self.place.registry.snapshot());
        let answers =
            |name: &str, active: &str| snapshot.models.get(name).is_some_and(|served| served.ready(active).is_some());
        let recorded = known.records.iter().filter_map(|(name, record)| Some((name, record.active.as_deref()?)));
        recorded.filter(|(name, active)| !answers(name, active)).count()
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
        let event = Event { who: &order.who, action, version, experiment: None, reason: order.reason.as_deref() };
        let key = order.key.as_ref().map(|(key, request)| (key.as_str(), request.as_str()));
        let change = Change { model: name, revision: order.revision, key, keeps_used: true, event };
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
                    let before = known.records.insert(name.to_owned(), record.clone());
                    let gone = before.iter().flat_map(|before| before.versions.keys());
                    for version in gone.filter(|version| !record.versions.contains_key(version)) {
                        self.place.host.metrics.forget(name, version.as_str());
                    }
                }
            }
            self.write_down().await;
            self.settle(name);
        }
        Ok(outcome)
    }

    pub(super) fn record(&self, name: &str) -> ModelRecord {
        self.recorded(name).unwrap_or_default()
    }
}
