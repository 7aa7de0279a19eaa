//! What is looked at when a database is opened, and how its tables come to be.

use std::pin::Pin;

use sqlx::any::AnyConnectOptions;
use sqlx::error::BoxDynError;
use sqlx::migrate::{Migration, MigrationSource, MigrationType};
use sqlx::{AnyConnection, Connection, Executor, Row, SqlStr};

use super::error::{DAMAGED_MESSAGE, OpenError};

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
const MIGRATIONS: [(i64, &str, &str); 5] = [
    (1, "models", include_str!("0001_models.sql")),
    (2, "feedback", include_str!("0002_feedback.sql")),
    (3, "experiments", include_str!("0003_experiments.sql")),
    (4, "recent feedback", include_str!("0004_recent_feedback.sql")),
    (5, "old feedback", include_str!("0005_old_feedback.sql")),
];

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
