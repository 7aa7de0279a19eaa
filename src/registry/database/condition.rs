//! Whether the file of a database can be used.

use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::ChangeError;
use super::opening::is_damage;
use crate::registry::data_directory::{Anchor, Lost};

/// Why nothing can be kept in the database, or read from it. Predictions go on from what was known last.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Unusable {
    /// Its directory or its file is not the one that was opened.
    #[error("the data directory was removed or replaced while the server ran: put it back, or restart the server")]
    Lost,
    /// The file cannot be read as a database.
    #[error(
        "the registry's database is damaged: stop the server and put a backup in its place with `predictd database restore FILE`"
    )]
    Damaged,
}

impl Unusable {
    /// A word for it, in answers and metrics.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Lost => "lost",
            Self::Damaged => "damaged",
        }
    }

    /// What an error of the database says of its file, if anything.
    #[must_use]
    pub fn of(error: &sqlx::Error) -> Option<Self> {
        match error {
            sqlx::Error::Io(error) => error.get_ref()?.downcast_ref().copied(),
            _ => None,
        }
    }
}

impl From<Unusable> for sqlx::Error {
    fn from(unusable: Unusable) -> Self {
        Self::Io(io::Error::other(unusable))
    }
}

impl From<Lost> for Unusable {
    fn from(_: Lost) -> Self {
        Self::Lost
    }
}

/// Time for which an error that told of damage counts.
const SUSPECT_TIME: Duration = Duration::from_secs(2);

/// Whether the file can be used. A database elsewhere has none.
#[derive(Debug, Default)]
pub(super) struct Condition {
    anchor: Option<Anchor>,
    damaged: AtomicBool,
    /// Until when an error that told of damage counts: a disk that failed for a moment may be well again.
    suspect: Mutex<Option<Instant>>,
}

impl Condition {
    /// That of the database in this directory.
    pub(super) fn of(anchor: Anchor) -> Self {
        Self { anchor: Some(anchor), ..Self::default() }
    }

    pub(super) fn directory(&self) -> Option<&Path> {
        self.anchor.as_ref().map(Anchor::path)
    }

    /// The file was opened, and is what is used from now on.
    pub(super) fn hold(&self) {
        self.anchor.iter().for_each(Anchor::hold_database);
    }

    /// The file cannot be read as a database.
    pub(super) fn mark_damaged(&self) {
        self.damaged.store(true, Ordering::Relaxed);
    }

    /// Looks whether the file can be used.
    pub(super) fn check(&self) -> Result<(), Unusable> {
        let is_suspect = self.suspect.lock().is_some_and(|until| Instant::now() < until);
        if is_suspect || self.damaged.load(Ordering::Relaxed) {
            return Err(Unusable::Damaged);
        }
        Ok(self.anchor.as_ref().map_or(Ok(()), Anchor::check)?)
    }

    /// The same after a transaction, whose connection is still open: what it wrote is where a restart looks for it.
    pub(super) fn check_written(&self) -> Result<(), Unusable> {
        Ok(self.anchor.as_ref().map_or(Ok(()), Anchor::check_written)?)
    }

    /// Notes what an error says of the file.
    pub(super) fn record_damage(&self, error: sqlx::Error) -> sqlx::Error {
        if is_damage(&error) {
            *self.suspect.lock() = Some(Instant::now() + SUSPECT_TIME);
            return Unusable::Damaged.into();
        }
        error
    }

    /// The same for the error of a change.
    pub(super) fn record_damage_of_change(&self, error: ChangeError) -> ChangeError {
        match error {
            ChangeError::Database(error) => ChangeError::Database(self.record_damage(error)),
            ChangeError::Unknown(error) => ChangeError::Unknown(self.record_damage(error)),
            error => error,
        }
    }
}
