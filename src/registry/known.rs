//! What was recorded when the database answered last: in memory, and in a file for a start while it does not.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::database::Records;

/// The file in the data directory.
const FILE: &str = "registry.json";

/// What was recorded.
#[derive(Debug, Default, Clone, PartialEq, Serialize, Deserialize)]
pub struct Known {
    /// How many changes there had been.
    pub epoch: i64,
    /// The models.
    pub records: Records,
}

/// The file.
#[derive(Debug, Clone)]
pub struct Keepsake(PathBuf);

impl Keepsake {
    /// The file in a data directory.
    #[must_use]
    pub fn within(data: &Path) -> Self {
        Self(data.join(FILE))
    }

    /// What was written last; nothing if nothing was, or it cannot be read.
    #[must_use]
    pub fn read(&self) -> Option<Known> {
        let bytes = fs::read(&self.0).ok()?;
        match serde_json::from_slice(&bytes) {
            Ok(known) => Some(known),
            Err(error) => {
                tracing::warn!(file = %self.0.display(), %error, "what was known of the registry cannot be read");
                None
            }
        }
    }

    /// Writes what is known: whole, or not at all.
    ///
    /// # Errors
    /// If the disk does not allow it.
    pub fn write(&self, known: &Known) -> io::Result<()> {
        let draft = self.0.with_extension(format!("{}.draft", std::process::id()));
        let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&draft)?;
        let written = serde_json::to_writer(&mut file, known).map_err(io::Error::from);
        let written = written.and_then(|()| file.flush()).and_then(|()| file.sync_all());
        written.and_then(|()| fs::rename(&draft, &self.0)).inspect_err(|_| {
            // It is of no use any more.
            fs::remove_file(&draft).ok();
        })?;
        self.0.parent().map_or(Ok(()), |directory| File::open(directory)?.sync_all())
    }
}
