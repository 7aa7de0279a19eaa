//! What is looked at when a database is opened, and how its tables come to be.

use std::pin::Pin;

use sqlx::any::AnyConnectOptions;
use sqlx::error::{BoxDynError, DatabaseError};
use sqlx::migrate::{Migration, MigrationSource, MigrationType};
use sqlx::{AnyConnection, Connection, Executor, Row, SqlStr};

use super::ChangeError;

/// What is set for each connection to SQLite.
pub(super) const SQLITE_SETUP: [&str; 6] = [
    "PRAGMA journal_mode = WAL",
    "PRAGMA synchronous = FULL",
    "PRAGMA busy_timeout = 2000",
    "PRAGMA foreign_keys = ON",
    "PRAGMA trusted_schema = OFF",
    // What is deleted is overwritten in the file: texts of clients among it. The write-ahead log holds it until
    // `Database::truncate_wal`, a file of the spool until it is drained; a file system may keep blocks of removed files.
    "PRAGMA secure_delete = ON",
];
/// And to PostgreSQL.
pub(super) const POSTGRES_SETUP: [&str; 2] = ["SET statement_timeout = '2s'", "SET lock_timeout = '2s'"];
pub(super) const NO_ANSWER_MESSAGE: &str = "it does not answer";
const DAMAGED_MESSAGE: &str = "the file is damaged: put a backup in its place";
const MIGRATIONS: [(i64, &str, &str); 5] = [
    (1, "models", include_str!("0001_models.sql")),
    (2, "feedback", include_str!("0002_feedback.sql")),
    (3, "experiments", include_str!("0003_experiments.sql")),
    (4, "recent feedback", include_str!("0004_recent_feedback.sql")),
    (5, "old feedback", include_str!("0005_old_feedback.sql")),
];

/// Why a database cannot be used. It does not name the URL, which may hold a password.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    /// It does not answer, or not now.
    #[error("{0}")]
    Unavailable(String),
    /// Its file is damaged, or no database at all.
    #[error("{0}")]
    Damaged(String),
    /// It never will be, as things are.
    #[error("{0}")]
    Invalid(String),
}

impl From<ChangeError> for OpenError {
    fn from(error: ChangeError) -> Self {
        match error {
            ChangeError::Database(error) | ChangeError::OutcomeUnknown(error) => Self::from(&error),
            error => Self::Invalid(error.to_string()),
        }
    }
}

impl From<&sqlx::Error> for OpenError {
    fn from(error: &sqlx::Error) -> Self {
        let code = error.as_database_error().and_then(DatabaseError::code);
        // Of PostgreSQL: it starts, stops, takes too long, lacks something, takes no changes, or lost this connection.
        let passes = |code: &str| {
            ["57P0", "08", "53"].iter().any(|class| code.starts_with(class))
                || ["57014", "55P03", "25006"].contains(&code)
        };
        match error {
            sqlx::Error::Io(_) | sqlx::Error::PoolTimedOut => Self::Unavailable(describe_error(error)),
            _ if code.as_deref().is_some_and(passes) => Self::Unavailable(describe_error(error)),
            _ if is_damage_error(error) => Self::Damaged(describe_error(error)),
            _ => Self::Invalid(describe_error(error)),
        }
    }
}

/// Says what is wrong with a database, if anything. A file that is damaged must not be written to.
pub(super) async fn probe(at: &AnyConnectOptions, file: Option<&[&'static str]>) -> Result<(), OpenError> {
    let plain = |error: sqlx::Error| OpenError::from(&error);
    let mut connection = AnyConnection::connect_with(at).await.map_err(plain)?;
    if let Some(setup) = file {
        for statement in setup {
            connection.execute(*statement).await.map_err(plain)?;
        }
        let row = sqlx::query("PRAGMA quick_check(1)").fetch_one(&mut connection).await.map_err(plain)?;
        if row.try_get::<String, _>(0).map_err(plain)? != "ok" {
            return Err(OpenError::Damaged(DAMAGED_MESSAGE.to_owned()));
        }
    }
    connection.close().await.map_err(plain)
}

/// SQLite's numbers for what can be wrong with a file.
const SQLITE_CORRUPT: u16 = 11;
const SQLITE_CANTOPEN: u16 = 14;
const SQLITE_NOTADB: u16 = 26;

/// SQLite's number of an error, without its details; those of PostgreSQL have five characters.
fn sqlite_error_code(error: &sqlx::Error) -> Option<u16> {
    let code = error.as_database_error().and_then(DatabaseError::code)?;
    let number: u16 = code.parse().ok().filter(|_| code.len() < 5)?;
    Some(number & 0xff)
}

/// True for an error that says that a file is no whole database.
pub(super) fn is_damage_error(error: &sqlx::Error) -> bool {
    matches!(sqlite_error_code(error), Some(SQLITE_CORRUPT | SQLITE_NOTADB))
}

/// What went wrong, without a URL.
fn describe_error(error: &sqlx::Error) -> String {
    match sqlite_error_code(error) {
        Some(SQLITE_CORRUPT) => return DAMAGED_MESSAGE.to_owned(),
        Some(SQLITE_NOTADB) => return "the file is not a database: put a backup in its place".to_owned(),
        Some(SQLITE_CANTOPEN) => return "the file cannot be opened".to_owned(),
        _ => {}
    }
    match error {
        sqlx::Error::Configuration(_) => "the URL cannot be used".to_owned(),
        sqlx::Error::PoolTimedOut => NO_ANSWER_MESSAGE.to_owned(),
        error => error.to_string(),
    }
}

/// The migrations that are part of the program.
#[derive(Debug)]
pub(super) struct EmbeddedMigrations;

impl EmbeddedMigrations {
    /// How many there are.
    pub(super) fn count() -> i64 {
        i64::try_from(MIGRATIONS.len()).unwrap_or(i64::MAX)
    }
}

impl MigrationSource<'static> for EmbeddedMigrations {
    fn resolve(self) -> Pin<Box<dyn Future<Output = Result<Vec<Migration>, BoxDynError>> + Send + 'static>> {
        let all = MIGRATIONS.map(|(version, name, sql)| {
            Migration::new(version, name.into(), MigrationType::Simple, SqlStr::from_static(sql), false)
        });
        Box::pin(async move { Ok(all.into()) })
    }
}
