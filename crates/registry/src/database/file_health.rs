//! Whether the file of a database can be used.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::error::{ChangeError, is_damage_error};
use crate::data_directory::DataDirectory;

/// Why nothing can be kept in the database, or read from it. Predictions go on from what was known last.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum StorageFault {
    /// Its directory or its file is not the one that was opened.
    #[error("the data directory was removed or replaced while the server ran: put it back, or restart the server")]
    DirectoryLost,
    /// The file cannot be read as a database.
    #[error(
        "the registry's database is damaged: stop the server and put a backup in its place with `predictd database restore FILE`"
    )]
    DatabaseDamaged,
}

impl StorageFault {
    /// A word for it, in answers and metrics.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::DirectoryLost => "lost",
            Self::DatabaseDamaged => "damaged",
        }
    }

    /// What an error of the database says of its file, if anything.
    #[must_use]
    pub fn from_error(error: &sqlx::Error) -> Option<Self> {
        match error {
            sqlx::Error::Io(error) => error.get_ref()?.downcast_ref().copied(),
            _ => None,
        }
    }
}

impl From<StorageFault> for sqlx::Error {
    fn from(unusable: StorageFault) -> Self {
        Self::Io(io::Error::other(unusable))
    }
}

/// Time for which an error that reported damage counts.
const SUSPECT_DURATION: Duration = Duration::from_secs(2);

/// Whether the file and the data directory can be used. A database elsewhere has no file.
#[derive(Debug, Default)]
pub(super) struct DatabaseFileHealth {
    pub(super) directory: Option<DataDirectory>,
    /// The file cannot be read as a database.
    pub(super) is_damaged: AtomicBool,
    /// Until when an error that reported damage counts: a disk that failed for a moment may be well again.
    suspect_until: Mutex<Option<Instant>>,
}

impl DatabaseFileHealth {
    /// That of a database with this data directory.
    pub(super) fn new(directory: DataDirectory) -> Self {
        Self { directory: Some(directory), ..Self::default() }
    }

    /// What is wrong with the file or with the data directory.
    pub(super) fn fault(&self) -> Option<StorageFault> {
        self.damage().or_else(|| {
            let lost = self.directory.as_ref().filter(|directory| !directory.check_identity());
            lost.map(|_| StorageFault::DirectoryLost)
        })
    }

    /// What errors said of the file. Looks at no disk.
    pub(super) fn damage(&self) -> Option<StorageFault> {
        let is_suspect = self.suspect_until.lock().is_some_and(|until| Instant::now() < until);
        (is_suspect || self.is_damaged.load(Ordering::Relaxed)).then_some(StorageFault::DatabaseDamaged)
    }

    /// Notes what an error says of the file.
    pub(super) fn record_damage(&self, error: sqlx::Error) -> sqlx::Error {
        if is_damage_error(&error) {
            *self.suspect_until.lock() = Some(Instant::now() + SUSPECT_DURATION);
            return StorageFault::DatabaseDamaged.into();
        }
        error
    }

    /// The same for the error of a change.
    pub(super) fn record_change_damage(&self, error: ChangeError) -> ChangeError {
        match error {
            ChangeError::Database(error) => ChangeError::Database(self.record_damage(error)),
            ChangeError::OutcomeUnknown(error) => ChangeError::OutcomeUnknown(self.record_damage(error)),
            error => error,
        }
    }
}
