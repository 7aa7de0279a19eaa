//! The database that outlasts the process: models, versions, what was done by whom.
//!
//! SQLite or PostgreSQL, with the same statements. A change is one transaction that begins by counting the epoch, whose
//! row it holds until its end: changes follow each other, in all processes that share the database.

mod changing;
mod condition;
pub mod experiments;
pub mod feedback;
mod opening;
pub mod retention;
mod rows;
mod transactions;

use std::collections::BTreeMap;
use std::path::Path;
use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use sqlx::any::{AnyConnectOptions, AnyPoolOptions, install_default_drivers};
use sqlx::migrate::{MigrateError, Migrator};
use sqlx::{AnyPool, ConnectOptions, Executor, Row};
use tokio::time::timeout;

use super::data_directory::Anchor;
use super::known::Known;
use super::record::{ModelRecord, Refusal};
use crate::clock;
use crate::experiments::experiment::ExperimentError;
use condition::Condition;
pub use condition::Unusable;
pub use opening::OpenError;
use opening::{Embedded, FOR_A_FILE, FOR_A_SERVER, NO_ANSWER, first_look};
use transactions::{Held, count, remember, settle};

/// Longest wait for a connection to a server, and for that to a file, which waits for a disk at most.
const ACQUIRE: Duration = Duration::from_secs(1);
const ACQUIRE_FILE: Duration = Duration::from_secs(5);
/// Longest wait for the first one.
const FIRST: Duration = Duration::from_secs(5);
/// Longest time in which tables are brought up to date.
const LONGEST_MIGRATION: Duration = Duration::from_mins(10);
/// Longest wait for an answer. A server that stands still does not say that it does.
const ANSWER: Duration = Duration::from_secs(2);
/// The same for a change, which may have to wait for another.
const CHANGE: Duration = Duration::from_secs(4);
/// How long answers to writes are known by their Idempotency-Key.
const KEYS_KEPT: Duration = Duration::from_hours(24);

/// The database.
#[derive(Debug, Clone)]
pub struct Database {
    pool: AnyPool,
    at: AnyConnectOptions,
    /// It is SQLite's.
    is_file: bool,
    has_begun: Arc<AtomicBool>,
    condition: Arc<Condition>,
    /// The data directory of a server whose database is elsewhere: feedback that waits and versions lie there.
    beside: Option<Arc<Anchor>>,
}

/// Models by name.
pub type Records = BTreeMap<String, ModelRecord>;

/// A change of one model.
#[derive(Debug, Clone, Copy)]
pub struct Change<'a> {
    /// The model.
    pub model: &'a str,
    /// The revision that the change was decided on; none: any.
    pub revision: Option<i64>,
    /// The writer's Idempotency-Key, and what tells its request from others.
    pub key: Option<(&'a str, &'a str)>,
    /// It is refused if it would take a version from an experiment.
    pub keeps_used: bool,
    /// What is done, for the history.
    pub event: Event<'a>,
}

/// What is done, by whom and why.
#[derive(Debug, Clone, Copy)]
pub struct Event<'a> {
    /// Who does it.
    pub who: &'a str,
    /// Such as `activate`.
    pub action: &'a str,
    /// The version that it is about.
    pub version: Option<&'a str>,
    /// The experiment that it is about.
    pub experiment: Option<&'a str>,
    /// Why, in the words of who does it.
    pub reason: Option<&'a str>,
}

/// What was done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Done {
    /// The epoch that it made.
    pub epoch: i64,
    /// When, in milliseconds since 1970.
    pub at: i64,
    /// Who did it.
    pub who: String,
    /// Such as `activate`.
    pub action: String,
    /// The model.
    pub model: String,
    /// The version.
    pub version: Option<String>,
    /// The experiment.
    pub experiment: Option<String>,
    /// Why.
    pub reason: Option<String>,
}

/// Whose history.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Of<'a> {
    /// Everything.
    All,
    /// What concerns a model.
    Model(&'a str),
    /// What concerns an experiment.
    Experiment(&'a str),
}

/// What became of a change of a model, or an experiment.
#[derive(Debug, Clone, PartialEq)]
pub enum Outcome<T = ModelRecord> {
    /// It is so now.
    Changed(T),
    /// It was so already.
    AsItWas(T),
    /// The same request was answered before, so.
    Repeated(String),
}

/// Why there is no change.
#[derive(Debug, thiserror::Error)]
pub enum ChangeError {
    /// The model does not allow it.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The experiment does not allow it.
    #[error(transparent)]
    Experiment(#[from] ExperimentError),
    /// It has changed since; its revision now.
    #[error("it has changed meanwhile: its revision is {0}")]
    Stale(i64),
    /// The Idempotency-Key was used for another request.
    #[error("the Idempotency-Key was used for another request")]
    OtherRequest,
    /// The database does not answer, or not well: nothing was changed.
    #[error("the database: {0}")]
    Database(#[from] sqlx::Error),
    /// It fell silent at the very end: the change may have been made.
    #[error("the database, at the end of a change: {0}")]
    Unknown(sqlx::Error),
}

/// Now, in milliseconds since 1970.
#[must_use]
pub fn now() -> i64 {
    let since = clock::since_1970(clock::now());
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

/// The URL of a SQLite file.
///
/// # Errors
/// If the path cannot be one.
pub fn sqlite_url(path: &Path) -> Result<String, String> {
    let absolute = std::path::absolute(path).map_err(|error| error.to_string())?;
    let url = reqwest::Url::from_file_path(absolute).map_err(|()| "the path cannot be written as a URL".to_owned())?;
    Ok(format!("sqlite://{}?mode=rwc", url.path()))
}

impl Database {
    /// Opens the database and brings its tables up to date.
    ///
    /// # Errors
    /// [`OpenError`]
    pub async fn open(url: &str) -> Result<Self, OpenError> {
        let database = Self::later(url)?;
        database.begin().await?;
        Ok(database)
    }

    /// A database that has yet to begin to answer.
    ///
    /// # Errors
    /// [`OpenError::Wrong`] if the URL cannot be used.
    pub fn later(url: &str) -> Result<Self, OpenError> {
        install_default_drivers();
        let is_file = url.starts_with("sqlite:");
        let setup: &'static [&'static str] = if is_file { &FOR_A_FILE } else { &FOR_A_SERVER };
        let at = AnyConnectOptions::from_str(url).map_err(|error| OpenError::from(&error))?;
        let at = at.disable_statement_logging();
        let acquire = if is_file { ACQUIRE_FILE } else { ACQUIRE };
        let pool = pool_of(&at, 4, acquire, setup);
        Ok(Self {
            pool,
            at,
            is_file,
            has_begun: Arc::new(AtomicBool::new(false)),
            condition: Arc::default(),
            beside: None,
        })
    }

    /// The same, whose file is in this directory: it is used as long as both are what was opened.
    #[must_use]
    pub fn kept_in(self, directory: Anchor) -> Self {
        Self { condition: Arc::new(Condition::of(directory)), ..self }
    }

    /// The same, with a data directory that has no part of it.
    #[must_use]
    pub fn beside(self, directory: Anchor) -> Self {
        Self { beside: Some(Arc::new(directory)), ..self }
    }

    /// What is wrong with the database's file or with the data directory, if anything. A database elsewhere takes feedback
    /// and changes all the same; only what has to wait on disk is refused.
    #[must_use]
    pub fn condition(&self) -> Option<Unusable> {
        let lost = self.beside.as_ref().and_then(|directory| directory.check().err());
        self.unusable().or(lost.map(Unusable::from))
    }

    /// The same, whose file is damaged: it is not touched.
    #[must_use]
    pub fn marked_damaged(self) -> Self {
        self.condition.mark_damaged();
        self
    }

    /// Why nothing can be kept in it, if so.
    #[must_use]
    pub fn unusable(&self) -> Option<Unusable> {
        self.condition.check().err()
    }

    /// The data directory, where it is watched.
    #[must_use]
    pub fn directory(&self) -> Option<&Path> {
        self.condition.directory().or(self.beside.as_ref().map(|directory| directory.path()))
    }

    /// Looks whether the database can be used, and brings its tables up to date.
    ///
    /// # Errors
    /// [`OpenError`]
    pub async fn begin(&self) -> Result<(), OpenError> {
        if let Some(unusable) = self.unusable() {
            return Err(OpenError::Away(unusable.to_string()));
        }
        // A pool would try again until its time is over, and not say why.
        let first = timeout(FIRST, first_look(&self.at, self.is_file.then_some(&FOR_A_FILE)));
        first.await.map_err(|_| OpenError::Away(NO_ANSWER.to_owned()))??;
        let migrator = Migrator::new(Embedded).await.map_err(|error| OpenError::Wrong(error.to_string()))?;
        // A large table takes its time to be changed; a look that finds nothing to do does not.
        let time = if self.is_current().await? { FIRST } else { LONGEST_MIGRATION };
        let setup: &'static [&'static str] = if self.is_file { &FOR_A_FILE } else { &[] };
        let alone = pool_of(&self.at, 1, FIRST, setup);
        let migrated = timeout(time, migrator.run(&alone)).await;
        timeout(ANSWER, alone.close()).await.ok();
        let migrated = migrated.map_err(|_| OpenError::Away(NO_ANSWER.to_owned()))?;
        migrated.map_err(|error| match error {
            MigrateError::VersionMissing(_) => OpenError::Wrong("it was made by a newer predictd".to_owned()),
            MigrateError::Execute(error) | MigrateError::ExecuteMigration(error, _) => OpenError::from(&error),
            error => OpenError::Wrong(error.to_string()),
        })?;
        self.condition.hold();
        self.has_begun.store(true, Ordering::Relaxed);
        Ok(())
    }

    /// True if its tables are up to date, as far as one look can tell.
    async fn is_current(&self) -> Result<bool, OpenError> {
        let done = sqlx::query_scalar::<_, i64>("SELECT COUNT(*) FROM _sqlx_migrations");
        match within(ANSWER, done.fetch_one(&self.pool)).await {
            Ok(done) => Ok(done >= Embedded::count()),
            Err(error) => match OpenError::from(&error) {
                error @ (OpenError::Away(_) | OpenError::Damaged(_)) => Err(error),
                // It has no tables yet; whatever else is wrong shows when they are made.
                OpenError::Wrong(_) => Ok(false),
            },
        }
    }

    /// True once it was found that it can be used.
    #[must_use]
    pub fn has_begun(&self) -> bool {
        self.has_begun.load(Ordering::Relaxed)
    }

    /// An error while the tables may not be there, or the file is not what was opened.
    fn check(&self) -> Result<(), sqlx::Error> {
        self.condition.check()?;
        if self.has_begun() { Ok(()) } else { Err(sqlx::Error::PoolTimedOut) }
    }

    /// How many changes there were.
    ///
    /// # Errors
    /// If the database does not answer.
    pub async fn epoch(&self) -> Result<i64, sqlx::Error> {
        self.check()?;
        let read = sqlx::query("SELECT epoch FROM registry WHERE id = 1").fetch_one(&self.pool);
        within(ANSWER, read).await.map_err(|error| self.condition.record_damage(error))?.try_get(0)
    }

    /// All models and experiments, with the epoch they belong to.
    ///
    /// # Errors
    /// If the database does not answer, or holds what cannot be read.
    pub async fn read(&self) -> Result<Known, sqlx::Error> {
        loop {
            let epoch = self.epoch().await?;
            let read = async {
                let mut connection = self.pool.acquire().await?;
                Ok((rows::all(&mut connection).await?, experiments::all(&mut connection).await?))
            };
            let read = within(ANSWER, read).await;
            let (records, experiments) = read.map_err(|error| self.condition.record_damage(error))?;
            // What was read in between two changes belongs together.
            if self.epoch().await? == epoch {
                return Ok(Known { epoch, records, experiments });
            }
        }
    }

    /// What was done last, the last first.
    ///
    /// # Errors
    /// If the database does not answer.
    pub async fn history(&self, of: Of<'_>, most: i64) -> Result<Vec<Done>, sqlx::Error> {
        self.check()?;
        within(ANSWER, rows::history(&self.pool, of, most)).await
    }

    /// Ends all connections.
    pub async fn close(&self) {
        if self.unusable() == Some(Unusable::Lost) {
            // The last connection would delete the log that has its name now: that of another database. The end of the
            // process closes them without that.
            std::mem::forget(self.pool.clone());
            return;
        }
        self.pool.close().await;
    }
}

/// Connections that are made when they are needed, and set up.
fn pool_of(at: &AnyConnectOptions, most: u32, acquire: Duration, setup: &'static [&'static str]) -> AnyPool {
    let mut options = AnyPoolOptions::new().max_connections(most).acquire_timeout(acquire);
    if at.database_url.scheme() == "sqlite" {
        // A file is opened once: by its name another might be found later.
        options = options.idle_timeout(None).max_lifetime(None);
    }
    let options = options.after_connect(move |connection, _| {
        Box::pin(async move {
            for statement in setup {
                connection.execute(*statement).await?;
            }
            Ok(())
        })
    });
    options.connect_lazy_with(at.clone())
}

/// What a query says in this time.
async fn within<T>(time: Duration, query: impl Future<Output = Result<T, sqlx::Error>>) -> Result<T, sqlx::Error> {
    timeout(time, query).await.unwrap_or(Err(sqlx::Error::PoolTimedOut))
}
