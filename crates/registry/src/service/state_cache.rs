//! The registry's state in memory: what the records say, and its copy in the state file.

use parking_lot::{Mutex, MutexGuard};
use tokio::task::spawn_blocking;

use crate::database::Database;
use crate::registry_state::{RegistryState, StateFile};

/// The state as it was read or committed last.
pub(super) struct StateCache {
    state: Mutex<RegistryState>,
    file: StateFile,
    refresh_lock: tokio::sync::Mutex<()>,
    file_lock: tokio::sync::Mutex<()>,
}

impl StateCache {
    pub(super) fn new(state: RegistryState, file: StateFile) -> Self {
        Self {
            state: Mutex::new(state),
            file,
            refresh_lock: tokio::sync::Mutex::default(),
            file_lock: tokio::sync::Mutex::default(),
        }
    }

    /// The state. No change is applied while it is locked.
    pub(super) fn lock(&self) -> MutexGuard<'_, RegistryState> {
        self.state.lock()
    }

    /// Reads the database.
    pub(super) async fn refresh(&self, database: &Database) -> Result<(), sqlx::Error> {
        // One after the other: an earlier read must not look like a database that has gone back.
        let _lock = self.refresh_lock.lock().await;
        let read = database.read_state().await?;
        let is_new = self.lock().merge(read);
        if is_new {
            self.write_file().await;
        }
        Ok(())
    }

    /// Writes the state file, for a start while the database does not answer.
    pub(super) async fn write_file(&self) {
        let file = self.file.clone();
        let _lock = self.file_lock.lock().await;
        let state = self.lock().clone();
        if let Ok(Err(error)) = spawn_blocking(move || file.write(&state)).await {
            tracing::warn!(%error, "state file could not be written");
        }
    }
}
