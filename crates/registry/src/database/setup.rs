//! What is looked at when a database is opened, and how its tables come to be.

use sqlx::any::AnyConnectOptions;
use sqlx::migrate::{Migration, MigrationType, Migrator};
use sqlx::{AnyConnection, Connection, Executor, SqlStr};

use super::error::{DAMAGED_MESSAGE, OpenError};

/// What is set for each connection to SQLite.
pub(super) const SQLITE_SETUP: &[&str] = &[
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
pub(super) const POSTGRES_SETUP: &[&str] = &["SET statement_timeout = '2s'", "SET lock_timeout = '2s'"];
pub(super) const MIGRATIONS: [(i64, &str, &str); 5] = [
    (1, "models", include_str!("0001_models.sql")),
    (2, "feedback", include_str!("0002_feedback.sql")),
    (3, "experiments", include_str!("0003_experiments.sql")),
    (4, "recent feedback", include_str!("0004_recent_feedback.sql")),
    (5, "old feedback", include_str!("0005_old_feedback.sql")),
];

/// Says what is wrong with a database, if anything. A file that is damaged must not be written to.
pub(super) async fn probe(at: &AnyConnectOptions, is_file: bool) -> Result<(), OpenError> {
    let mut connection = AnyConnection::connect_with(at).await?;
    if is_file {
        for statement in SQLITE_SETUP {
            connection.execute(*statement).await?;
        }
        let found: String = sqlx::query_scalar("PRAGMA quick_check(1)").fetch_one(&mut connection).await?;
        if found != "ok" {
            return Err(OpenError::Damaged(DAMAGED_MESSAGE.to_owned()));
        }
    }
    Ok(connection.close().await?)
}

/// The migrations that are part of the program.
pub(super) fn migrator() -> Migrator {
    Migrator::with_migrations(
        MIGRATIONS
            .map(|(version, name, sql)| {
                Migration::new(version, name.into(), MigrationType::Simple, SqlStr::from_static(sql), false)
            })
            .into(),
    )
}
