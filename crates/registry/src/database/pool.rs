//! The database itself: its connections, whether it can be used, and all that it holds of models and experiments.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use sqlx::any::{AnyConnectOptions, AnyPoolOptions, install_default_drivers};
use sqlx::{AnyPool, ConnectOptions, Executor};
use tokio::time::timeout;

use super::error::{ChangeError, OpenError};
use super::file_health::{DatabaseFileHealth, StorageFault};
use super::rows;
use super::setup::{MIGRATIONS, POSTGRES_SETUP, SQLITE_SETUP, migrator, probe};
use super::timeouts::{
    CHANGE_TIMEOUT, FILE_ACQUIRE_TIMEOUT, MIGRATION_TIMEOUT, PROBE_TIMEOUT, QUERY_TIMEOUT, SERVER_ACQUIRE_TIMEOUT,
    with_timeout,
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
    /// Since when it does not answer.
    down_since: Arc<Mutex<Option<Instant>>>,
    pub(super) file_health: Arc<DatabaseFileHealth>,
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
        let is_sqlite = url.starts_with("sqlite:");
        let (acquire, setup) =
            if is_sqlite { (FILE_ACQUIRE_TIMEOUT, SQLITE_SETUP) } else { (SERVER_ACQUIRE_TIMEOUT, POSTGRES_SETUP) };
        let connect_options = url.parse::<AnyConnectOptions>()?.disable_statement_logging();
        Ok(Self {
            pool: connection_pool(&connect_options, 4, acquire, setup),
            connect_options,
            is_sqlite,
            is_initialized: Arc::default(),
            down_since: Arc::default(),
            file_health: Arc::default(),
        })
    }

    /// The same with a data directory, which has the file if there is one: that is used as long as both are what was
    /// opened. Feedback that waits and versions lie there in any case.
    #[must_use]
    pub fn with_data_directory(self, directory: DataDirectory) -> Self {
        Self { file_health: Arc::new(DatabaseFileHealth::new(directory)), ..self }
    }

    /// What is wrong with the database's file or with the data directory, if anything. A database elsewhere takes feedback
    /// and changes all the same; only what has to wait on disk is refused.
    #[must_use]
    pub fn storage_fault(&self) -> Option<StorageFault> {
        self.file_health.fault()
    }

    /// The same, whose file is damaged: it is not touched.
    #[must_use]
    pub fn with_damage(self) -> Self {
        self.file_health.is_damaged.store(true, Ordering::Relaxed);
        self
    }

    /// Why nothing can be kept in it, if so.
    #[must_use]
    pub fn database_fault(&self) -> Option<StorageFault> {
        if self.is_sqlite { self.file_health.fault() } else { self.file_health.damage() }
    }

    /// The data directory, where it is watched.
    #[must_use]
    pub fn data_directory(&self) -> Option<&Path> {
        self.file_health.directory.as_ref().map(|directory| &*directory.path)
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
        with_timeout(PROBE_TIMEOUT, probe(&self.connect_options, self.is_sqlite)).await?;
        // A large table takes its time to be changed; a look that finds nothing to do does not.
        let time = if self.is_migrated().await? { PROBE_TIMEOUT } else { MIGRATION_TIMEOUT };
        let alone =
            connection_pool(&self.connect_options, 1, PROBE_TIMEOUT, if self.is_sqlite { SQLITE_SETUP } else { &[] });
        let migrated = with_timeout(time, async { migrator().run(&alone).await.map_err(OpenError::from) }).await;
        timeout(QUERY_TIMEOUT, alone.close()).await.ok();
        migrated?;
        if self.is_sqlite {
            self.file_health.directory.iter().for_each(DataDirectory::record_database_identity);
        }
        self.is_initialized.store(true, Ordering::Relaxed);
        Ok(())
    }

    /// True if its tables are up to date, as far as one look can tell.
    async fn is_migrated(&self) -> Result<bool, OpenError> {
        let done = sqlx::query_scalar("SELECT COUNT(*) FROM _sqlx_migrations");
        match with_timeout(QUERY_TIMEOUT, done.fetch_one(&self.pool)).await.map_err(OpenError::from) {
            Ok(done) => Ok(rows::count_from(done) >= MIGRATIONS.len() as u64),
            // It has no tables yet; whatever else is wrong shows when they are made.
            Err(OpenError::Invalid(_)) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// True once it was found that it can be used.
    #[must_use]
    pub fn is_initialized(&self) -> bool {
        self.is_initialized.load(Ordering::Relaxed)
    }

    /// How long it has not answered; none if it answered last.
    #[must_use]
    pub fn downtime(&self) -> Option<Duration> {
        self.down_since.lock().map(|since| since.elapsed())
    }

    /// Remembers that it does not answer. True if it did before.
    pub(crate) fn mark_down(&self) -> bool {
        let mut down_since = self.down_since.lock();
        let is_new = down_since.is_none();
        down_since.get_or_insert_with(Instant::now);
        is_new
    }

    /// Remembers that it answers. True if it did not before.
    pub(crate) fn mark_up(&self) -> bool {
        self.down_since.lock().take().is_some()
    }

    /// An error while the tables may not be there, or the file is not what was opened.
    pub(super) fn ensure_usable(&self) -> Result<(), sqlx::Error> {
        match self.database_fault() {
            Some(fault) => Err(fault.into()),
            None if self.is_initialized() => Ok(()),
            None => Err(sqlx::Error::PoolTimedOut),
        }
    }

    /// What a query says in its time, unless the database cannot be used.
    pub(super) async fn query<T, E: From<sqlx::Error>>(
        &self,
        query: impl Future<Output = Result<T, E>>,
    ) -> Result<T, E> {
        self.ensure_usable()?;
        with_timeout(QUERY_TIMEOUT, query).await
    }

    /// Writes to the database. What takes too long may have been written.
    pub(super) async fn write<T>(&self, write: impl Future<Output = Result<T, ChangeError>>) -> Result<T, ChangeError> {
        self.ensure_usable()?;
        // In a box: the futures of callers would hold it twice.
        timeout(CHANGE_TIMEOUT, Box::pin(write))
            .await
            .unwrap_or(Err(ChangeError::OutcomeUnknown(sqlx::Error::PoolTimedOut)))
    }

    /// Looks, while the connection of a transaction is open, whether what it wrote is where a restart looks for it.
    pub(super) fn check_after_write(&self) -> Result<(), sqlx::Error> {
        match &self.file_health.directory {
            Some(directory) if self.is_sqlite && !directory.check_after_write() => {
                Err(StorageFault::DirectoryLost.into())
            }
            _ => Ok(()),
        }
    }

    /// How many changes there were.
    ///
    /// # Errors
    /// If the database does not answer.
    pub async fn epoch(&self) -> Result<i64, sqlx::Error> {
        self.query(sqlx::query_scalar("SELECT epoch FROM registry WHERE id = 1").fetch_one(&self.pool))
            .await
            .map_err(|error| self.file_health.record_damage(error))
    }

    /// All models and experiments, with the epoch they belong to.
    ///
    /// # Errors
    /// If the database does not answer, or holds what cannot be read.
    pub async fn read_state(&self) -> Result<RegistryState, sqlx::Error> {
        loop {
            let epoch = self.epoch().await?;
            let read = self.query(async {
                let mut connection = self.pool.acquire().await?;
                Ok((rows::read_models(&mut connection).await?, rows::read_experiments(&mut connection).await?))
            });
            let (records, experiments) = read.await.map_err(|error| self.file_health.record_damage(error))?;
            // What was read in between two changes belongs together.
            if self.epoch().await? == epoch {
                return Ok(RegistryState { epoch, records, experiments });
            }
        }
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
    options
        .after_connect(move |connection, _| {
            Box::pin(async move {
                for statement in setup {
                    connection.execute(*statement).await?;
                }
                Ok(())
            })
        })
        .connect_lazy_with(at.clone())
}
