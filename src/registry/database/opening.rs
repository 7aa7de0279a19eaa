//! What is looked at when a database is opened, and how its tables come to be.

use std::pin::Pin;

use sqlx::any::AnyConnectOptions;
use sqlx::error::{BoxDynError, DatabaseError};
use sqlx::migrate::{Migration, MigrationSource, MigrationType};
use sqlx::{AnyConnection, Connection, Executor, Row, SqlStr};

use super::ChangeError;

/// What is set for each connection to SQLite.
pub(super) const FOR_A_FILE: [&str; 5] = [
    "PRAGMA journal_mode = WAL",
    "PRAGMA synchronous = FULL",
    "PRAGMA busy_timeout = 2000",
    "PRAGMA foreign_keys = ON",
    "PRAGMA trusted_schema = OFF",
];
/// And to PostgreSQL.
pub(super) const FOR_A_SERVER: [&str; 2] = ["SET statement_timeout = '2s'", "SET lock_timeout = '2s'"];
pub(super) const NO_ANSWER: &str = "it does not answer";
const DAMAGED: &str = "the file is damaged: put a backup in its place";
const MIGRATIONS: [(i64, &str, &str); 3] = [
    (1, "models", include_str!("0001_models.sql")),
    (2, "feedback", include_str!("0002_feedback.sql")),
    (3, "experiments", include_str!("0003_experiments.sql")),
];

/// Why a database cannot be used. It does not name the URL, which may hold a password.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    /// It does not answer, or not now.
    #[error("{0}")]
    Away(String),
    /// It never will be, as things are.
    #[error("{0}")]
    Wrong(String),
}

impl From<ChangeError> for OpenError {
    fn from(error: ChangeError) -> Self {
        match error {
            ChangeError::Database(error) | ChangeError::Unknown(error) => Self::from(&error),
            error => Self::Wrong(error.to_string()),
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
            sqlx::Error::Io(_) | sqlx::Error::PoolTimedOut => Self::Away(plain(error)),
            _ if code.as_deref().is_some_and(passes) => Self::Away(plain(error)),
            _ => Self::Wrong(plain(error)),
        }
    }
}

/// Says what is wrong with a database, if anything. A file that is damaged must not be written to.
pub(super) async fn first_look(at: &AnyConnectOptions, file: Option<&[&'static str]>) -> Result<(), OpenError> {
    let plain = |error: sqlx::Error| OpenError::from(&error);
    let mut connection = AnyConnection::connect_with(at).await.map_err(plain)?;
    if let Some(setup) = file {
        for statement in setup {
            connection.execute(*statement).await.map_err(plain)?;
        }
        let row = sqlx::query("PRAGMA quick_check(1)").fetch_one(&mut connection).await.map_err(plain)?;
        if row.try_get::<String, _>(0).map_err(plain)? != "ok" {
            return Err(OpenError::Wrong(DAMAGED.to_owned()));
        }
    }
    connection.close().await.map_err(plain)
}

/// What went wrong, without a URL.
fn plain(error: &sqlx::Error) -> String {
    // SQLite's numbers for what can be wrong with a file.
    let code = error.as_database_error().and_then(DatabaseError::code);
    match code.as_deref() {
        Some("11") => return DAMAGED.to_owned(),
        Some("26") => return "the file is not a database: put a backup in its place".to_owned(),
        Some("14") => return "the file cannot be opened".to_owned(),
        _ => {}
    }
    match error {
        sqlx::Error::Configuration(_) => "the URL cannot be used".to_owned(),
        sqlx::Error::PoolTimedOut => NO_ANSWER.to_owned(),
        error => error.to_string(),
    }
}

/// The migrations that are part of the program.
#[derive(Debug)]
pub(super) struct Embedded;

impl MigrationSource<'static> for Embedded {
    fn resolve(self) -> Pin<Box<dyn Future<Output = Result<Vec<Migration>, BoxDynError>> + Send + 'static>> {
        let all = MIGRATIONS.map(|(version, name, sql)| {
            Migration::new(version, name.into(), MigrationType::Simple, SqlStr::from_static(sql), false)
        });
        Box::pin(async move { Ok(all.into()) })
    }
}
