//! Why the database cannot be opened, or changes nothing.

use predictd_experiments::experiment::ExperimentError;
use sqlx::error::DatabaseError;
use sqlx::migrate::MigrateError;

use crate::record::RecordError;

pub(super) const DAMAGED_MESSAGE: &str = "the file is damaged: put a backup in its place";

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
    /// The stored answer to the same request has another form.
    #[error("the answer to the same request cannot be read any more")]
    UnreadableAnswer(serde_json::Error),
    /// The database does not answer, or not well: nothing was changed.
    #[error("the database: {0}")]
    Database(#[from] sqlx::Error),
    /// It fell silent at the very end: the change may have been made.
    #[error("the database, at the end of a change: {0}")]
    OutcomeUnknown(sqlx::Error),
}

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
            ChangeError::Database(sqlx::Error::ColumnDecode { .. } | sqlx::Error::Decode(_)) => {
                Self::Damaged("what is recorded cannot be read".to_owned())
            }
            ChangeError::Database(error) | ChangeError::OutcomeUnknown(error) => error.into(),
            error => Self::Invalid(error.to_string()),
        }
    }
}

impl From<MigrateError> for OpenError {
    fn from(error: MigrateError) -> Self {
        match error {
            MigrateError::VersionMissing(_) => Self::Invalid("it was made by a newer predictd".to_owned()),
            MigrateError::Execute(error) | MigrateError::ExecuteMigration(error, _) => error.into(),
            error => Self::Invalid(error.to_string()),
        }
    }
}

impl From<sqlx::Error> for OpenError {
    fn from(error: sqlx::Error) -> Self {
        let code = error.as_database_error().and_then(DatabaseError::code);
        // Of PostgreSQL: it starts, stops, takes too long, lacks something, takes no changes, or lost this connection.
        let passes = code.is_some_and(|code| {
            ["57P0", "08", "53"].iter().any(|class| code.starts_with(class))
                || ["57014", "55P03", "25006"].contains(&&*code)
        });
        match error {
            sqlx::Error::PoolTimedOut => Self::Unavailable("it does not answer".to_owned()),
            sqlx::Error::Configuration(_) => Self::Invalid("the URL cannot be used".to_owned()),
            sqlx::Error::Io(_) => Self::Unavailable(error.to_string()),
            _ if passes => Self::Unavailable(error.to_string()),
            _ => match sqlite_error_code(&error) {
                Some(SQLITE_CORRUPT) => Self::Damaged(DAMAGED_MESSAGE.to_owned()),
                Some(SQLITE_NOTADB) => {
                    Self::Damaged("the file is not a database: put a backup in its place".to_owned())
                }
                Some(SQLITE_CANTOPEN) => Self::Invalid("the file cannot be opened".to_owned()),
                _ => Self::Invalid(error.to_string()),
            },
        }
    }
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
