//! The database that outlasts the process: models, versions, what was done by whom.
//!
//! SQLite or PostgreSQL, with the same statements. A change is one transaction that begins by counting the epoch, whose
//! row it holds until its end: changes follow each other, in all processes that share the database.

pub mod experiments;
pub mod feedback;
mod file_health;
mod model_changes;
pub mod retention;
mod rows;
mod setup;
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

use super::data_directory::DataDirectory;
use super::record::{ModelRecord, RecordError};
use super::registry_state::RegistryState;
use crate::clock;
use crate::experiments::experiment::ExperimentError;
use file_health::DatabaseFileHealth;
pub use file_health::StorageFault;
pub use setup::OpenError;
use setup::{EmbeddedMigrations, NO_ANSWER_MESSAGE, POSTGRES_SETUP, SQLITE_SETUP, probe};
use transactions::{ConnectionGuard, finish_transaction, increment_epoch, store_answer};

/// Longest wait for a connection to a server, and for that to a file, which waits for a disk at most.
const SERVER_ACQUIRE_TIMEOUT: Duration = Duration::from_secs(1);
const FILE_ACQUIRE_TIMEOUT: Duration = Duration::from_secs(5);
/// Longest wait for the first one.
const PROBE_TIMEOUT: Duration = Duration::from_secs(5);
/// Longest time in which tables are brought up to date.
const MIGRATION_TIMEOUT: Duration = Duration::from_mins(10);
/// Longest wait for an answer. A server that stands still does not say that it does.
const QUERY_TIMEOUT: Duration = Duration::from_secs(2);
/// The same for a change, which may have to wait for another.
const CHANGE_TIMEOUT: Duration = Duration::from_secs(4);
/// How long answers to writes are known by their Idempotency-Key.
const IDEMPOTENCY_KEY_RETENTION: Duration = Duration::from_hours(24);

/// The database.
#[derive(Debug, Clone)]
pub struct Database {
    pool: AnyPool,
    connect_options: AnyConnectOptions,
    /// It is SQLite's.
    is_sqlite: bool,
    is_initialized: Arc<AtomicBool>,
    file_health: Arc<DatabaseFileHealth>,
    /// The data directory of a server whose database is elsewhere: feedback that waits and versions lie there.
    separate_directory: Option<Arc<DataDirectory>>,
}

/// Models by name.
pub type ModelRecords = BTreeMap<String, ModelRecord>;

/// A change of one model.
#[derive(Debug, Clone, Copy)]
pub struct ChangeRequest<'a> {
    /// The model.
    pub target: &'a str,
    /// The revision that the change was decided on; none: any.
    pub expected_revision: Option<i64>,
    /// The writer's Idempotency-Key, and what tells its request from others.
    pub idempotency_key: Option<(&'a str, &'a str)>,
    /// It is refused if it would take a version from an experiment.
    pub protects_experiments: bool,
    /// What is done, for the history.
    pub audit: AuditDetails<'a>,
}

/// What is done, by whom and why.
#[derive(Debug, Clone, Copy)]
pub struct AuditDetails<'a> {
    /// Who does it.
    pub actor: &'a str,
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
pub struct AuditEntry {
    /// The epoch that it made.
    pub epoch: i64,
    /// When, in milliseconds since 1970.
    pub timestamp_ms: i64,
    /// Who did it.
    pub actor: String,
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
pub enum HistoryFilter<'a> {
    /// Everything.
    All,
    /// What concerns a model.
    Model(&'a str),
    /// What concerns an experiment.
    Experiment(&'a str),
}

/// What became of a change of a model, or an experiment.
#[derive(Debug, Clone, PartialEq)]
pub enum ChangeOutcome<T = ModelRecord> {
    /// It is so now.
    Changed(T),
    /// It was so already.
    Unchanged(T),
    /// The same request was answered before, so.
    Repeated(String),
}

/// Why there is no change.
#[derive(Debug, thiserror::Error)]
pub enum ChangeError {
    /// The model does not allow it.
    #[error(transparent)]
    Record(#[from] RecordError),
    /// The experiment does not allow it.
    #[error(transparent)]
    Experiment(#[from] ExperimentError),
    /// It has changed since; its revision now.
    #[error("it has changed meanwhile: its revision is {0}")]
    RevisionMismatch(i64),
    /// The Idempotency-Key was used for another request.
    #[error("the Idempotency-Key was used for another request")]
    IdempotencyKeyReused,
    /// The database does not answer, or not well: nothing was changed.
    #[error("the database: {0}")]
    Database(#[from] sqlx::Error),
    /// It fell silent at the very end: the change may have been made.
    #[error("the database, at the end of a change: {0}")]
    OutcomeUnknown(sqlx::Error),
}

/// Now, in milliseconds since 1970.
#[must_use]
pub fn now_millis() -> i64 {
    let since = clock::since_unix_epoch(clock::now());
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
        let database = Self::connect_lazy(url)?;
        database.initialize().await?;
        Ok(database)
    }

    /// A database that has yet to begin to answer.
    ///
    /// # Errors
    /// [`OpenError::Invalid`] if the URL cannot be used.
    pub fn connect_lazy(url: &str) -> Result<Self, OpenError> {
        install_default_drivers();
        let is_file = url.starts_with("sqlite:");
        let setup: &'static [&'static str] = if is_file { &SQLITE_SETUP } else { &POSTGRES_SETUP };
        let at = AnyConnectOptions::from_str(url).map_err(|error| OpenError::from(&error))?;
        let at = at.disable_statement_logging();
        let acquire = if is_file { FILE_ACQUIRE_TIMEOUT } else { SERVER_ACQUIRE_TIMEOUT };
        let pool = connection_pool(&at, 4, acquire, setup);
        Ok(Self {
            pool,
            connect_options: at,
            is_sqlite: is_file,
            is_initialized: Arc::new(AtomicBool::new(false)),
            file_health: Arc::default(),
            separate_directory: None,
        })
    }

    /// The same, whose file is in this directory: it is used as long as both are what was opened.
    #[must_use]
    pub fn with_data_directory(self, directory: DataDirectory) -> Self {
        Self { file_health: Arc::new(DatabaseFileHealth::new(directory)), ..self }
    }

    /// The same, with a data directory that has no part of it.
    #[must_use]
    pub fn with_separate_directory(self, directory: DataDirectory) -> Self {
        Self { separate_directory: Some(Arc::new(directory)), ..self }
    }

    /// What is wrong with the database's file or with the data directory, if anything. A database elsewhere takes feedback
    /// and changes all the same; only what has to wait on disk is refused.
    #[must_use]
    pub fn storage_fault(&self) -> Option<StorageFault> {
        let lost = self.separate_directory.as_ref().and_then(|directory| directory.check_identity().err());
        self.database_fault().or(lost.map(StorageFault::from))
    }

    /// The same, whose file is damaged: it is not touched.
    #[must_use]
    pub fn with_damage(self) -> Self {
        self.file_health.mark_damaged();
        self
    }

    /// Why nothing can be kept in it, if so.
    #[must_use]
    pub fn database_fault(&self) -> Option<StorageFault> {
        self.file_health.check().err()
    }

    /// The data directory, where it is watched.
    #[must_use]
    pub fn data_directory(&self) -> Option<&Path> {
        self.file_health.directory().or(self.separate_directory.as_ref().map(|directory| directory.path()))
    }

    /// Looks whether the database can be used, and brings its tables up to date.
    ///
    /// # Errors
    /// [`OpenError`]
    pub async fn initialize(&self) -> Result<(), OpenError> {
        if let Some(unusable) = self.database_fault() {
            return Err(OpenError::Unavailable(unusable.to_string()));
        }
        // A pool would try again until its time is over, and not say why.
        let first = timeout(PROBE_TIMEOUT, probe(&self.connect_options, self.is_sqlite.then_some(&SQLITE_SETUP)));
        first.await.map_err(|_| OpenError::Unavailable(NO_ANSWER_MESSAGE.to_owned()))??;
        let migrator =
            Migrator::new(EmbeddedMigrations).await.map_err(|error| OpenError::Invalid(error.to_string()))?;
        // A large table takes its time to be changed; a look that finds nothing to do does not.
        let time = if self.is_migrated().await? { PROBE_TIMEOUT } else { MIGRATION_TIMEOUT };
        let setup: &'static [&'static str] = if self.is_sqlite { &SQLITE_SETUP } else { &[] };
        let alone = connection_pool(&self.connect_options, 1, PROBE_TIMEOUT, setup);
        let migrated = timeout(time, migrator.run(&alone)).await;
        timeout(QUERY_TIMEOUT, alone.close()).await.ok();
        let migrated = migrated.map_err(|_| OpenError::Unavailable(NO_ANSWER_MESSAGE.to_owned()))?;
        migrated.map_err(|error| match error {
            MigrateError::VersionMissing(_) => OpenError::Invalid("it was made by a newer predictd".to_owned()),
            MigrateError::Execute(error) | MigrateError::ExecuteMigration(error, _) => OpenError::from(&error),
            error => OpenError::Invalid(error.to_string()),
        })?;
        self.file_health.record_identity();
        self.is_initialized.store(true, Ordering::Relaxed);
        Ok(())
    }

    /// True if its tables are up to date, as far as one look can tell.
    async fn is_migrated(&self) -> Result<bool, OpenError> {
        let done = sqlx::query_scalar::<_, i64>("SELECT COUNT(*) FROM _sqlx_migrations");
        match with_timeout(QUERY_TIMEOUT, done.fetch_one(&self.pool)).await {
            Ok(done) => Ok(done >= EmbeddedMigrations::count()),
            Err(error) => match OpenError::from(&error) {
                error @ (OpenError::Unavailable(_) | OpenError::Damaged(_)) => Err(error),
                // It has no tables yet; whatever else is wrong shows when they are made.
                OpenError::Invalid(_) => Ok(false),
            },
        }
    }

    /// True once it was found that it can be used.
    #[must_use]
    pub fn is_initialized(&self) -> bool {
        self.is_initialized.load(Ordering::Relaxed)
    }

    /// An error while the tables may not be there, or the file is not what was opened.
    fn ensure_usable(&self) -> Result<(), sqlx::Error> {
        self.file_health.check()?;
        if self.is_initialized() { Ok(()) } else { Err(sqlx::Error::PoolTimedOut) }
    }

    /// How many changes there were.
    ///
    /// # Errors
    /// If the database does not answer.
    pub async fn epoch(&self) -> Result<i64, sqlx::Error> {
        self.ensure_usable()?;
        let read = sqlx::query("SELECT epoch FROM registry WHERE id = 1").fetch_one(&self.pool);
        with_timeout(QUERY_TIMEOUT, read).await.map_err(|error| self.file_health.record_damage(error))?.try_get(0)
    }

    /// All models and experiments, with the epoch they belong to.
    ///
    /// # Errors
    /// If the database does not answer, or holds what cannot be read.
    pub async fn read_state(&self) -> Result<RegistryState, sqlx::Error> {
        loop {
            let epoch = self.epoch().await?;
            let read = async {
                let mut connection = self.pool.acquire().await?;
                Ok((rows::read_models(&mut connection).await?, experiments::read_experiments(&mut connection).await?))
            };
            let read = with_timeout(QUERY_TIMEOUT, read).await;
            let (records, experiments) = read.map_err(|error| self.file_health.record_damage(error))?;
            // What was read in between two changes belongs together.
            if self.epoch().await? == epoch {
                return Ok(RegistryState { epoch, records, experiments });
            }
        }
    }

    /// What was done last, the last first.
    ///
    /// # Errors
    /// If the database does not answer.
    pub async fn history(&self, of: HistoryFilter<'_>, most: i64) -> Result<Vec<AuditEntry>, sqlx::Error> {
        self.ensure_usable()?;
        with_timeout(QUERY_TIMEOUT, rows::read_history(&self.pool, of, most)).await
    }

    /// Ends all connections.
    pub async fn close(&self) {
        if self.database_fault() == Some(StorageFault::DirectoryLost) {
            // The last connection would delete the log that has its name now: that of another database. The end of the
            // process closes them without that.
            std::mem::forget(self.pool.clone());
            return;
        }
        self.pool.close().await;
    }
}

/// Connections that are made when they are needed, and set up.
fn connection_pool(at: &AnyConnectOptions, most: u32, acquire: Duration, setup: &'static [&'static str]) -> AnyPool {
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
async fn with_timeout<T>(
    time: Duration,
    query: impl Future<Output = Result<T, sqlx::Error>>,
) -> Result<T, sqlx::Error> {
    timeout(time, query).await.unwrap_or(Err(sqlx::Error::PoolTimedOut))
}
