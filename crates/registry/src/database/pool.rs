//! The database itself: its connections, whether it can be used, and all that it holds of models and experiments.

use std::path::Path;
use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use sqlx::any::{AnyConnectOptions, AnyPoolOptions, install_default_drivers};
use sqlx::migrate::{MigrateError, Migrator};
use sqlx::{AnyPool, ConnectOptions, Executor, Row};
use tokio::time::timeout;

use super::change::{AuditEntry, HistoryFilter};
use super::error::{NO_ANSWER_MESSAGE, OpenError};
use super::file_health::{DatabaseFileHealth, StorageFault};
use super::rows;
use super::setup::{EmbeddedMigrations, POSTGRES_SETUP, SQLITE_SETUP, probe};
use super::timeouts::{
    FILE_ACQUIRE_TIMEOUT, MIGRATION_TIMEOUT, PROBE_TIMEOUT, QUERY_TIMEOUT, SERVER_ACQUIRE_TIMEOUT, with_timeout,
};
use crate::data_directory::DataDirectory;
use crate::registry_state::RegistryState;

/// The database.
#[derive(Debug, Clone)]
pub struct Database {
    pub(super) pool: AnyPool,
    connect_options: AnyConnectOptions,
    /// It is SQLite's.
    pub(super) is_sqlite: bool,
    is_initialized: Arc<AtomicBool>,
    pub(super) file_health: Arc<DatabaseFileHealth>,
    /// The data directory of a server whose database is elsewhere: feedback that waits and versions lie there.
    separate_directory: Option<Arc<DataDirectory>>,
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
    pub(super) fn ensure_usable(&self) -> Result<(), sqlx::Error> {
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
                Ok((rows::read_models(&mut connection).await?, rows::read_experiments(&mut connection).await?))
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
