//! What a watcher keeps on disk: the state of servers, and the undelivered alerts.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, ErrorKind, Read, Write};
use std::path::Path;

use predictd_platform::atomic_file;
use serde::{Deserialize, Serialize};

use super::alert::Alert;
use super::drift::ActiveFindings;
use super::target_health::Target;

/// Largest file that is read.
const MAX_FILE_BYTES: u64 = 16 << 20;

/// What is remembered.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct WatchState {
    /// Servers by URL.
    pub targets: BTreeMap<String, Target>,
    /// What drifts, by server.
    #[serde(default)]
    pub drifting: BTreeMap<String, ActiveFindings>,
    /// What has dropped, of all servers.
    #[serde(default)]
    pub dropped: ActiveFindings,
    /// Alerts that are to be delivered, by channel.
    pub waiting: BTreeMap<String, Vec<Alert>>,
}

impl WatchState {
    /// Reads it; nothing is remembered if there is no file.
    ///
    /// # Errors
    /// If there is one that cannot be read.
    pub fn load(path: &Path) -> io::Result<Self> {
        let file = match File::open(path) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Self::default()),
            opened => opened?,
        };
        let mut bytes = Vec::new();
        file.take(MAX_FILE_BYTES).read_to_end(&mut bytes)?;
        Ok(serde_json::from_slice(&bytes)?)
    }

    /// Writes it: whole or not at all.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn save(&self, path: &Path) -> io::Result<()> {
        let bytes = serde_json::to_vec(self)?;
        atomic_file::replace(path, 0o666, |file| file.write_all(&bytes))
    }
}
