//! Notices what others change, whether the database answers, and what the store need not keep.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::task::spawn_blocking;

use super::Keeper;
use super::experiments::Publish;
use super::serving::Why;
use crate::registry::database::Unusable;
use crate::registry::directory::{self, Gone};
use crate::registry::record::{ModelRecord, VersionRecord};

/// How often it is looked whether somebody else changed something.
const LOOK: Duration = Duration::from_millis(500);
/// When what could not be loaded is tried for the first time again, and how often at last.
const FIRST_AGAIN: Duration = Duration::from_secs(10);
const LAST_AGAIN: Duration = Duration::from_mins(10);
/// How often the store is cleared of what nothing needs.
const COLLECT: Duration = Duration::from_hours(1);

/// When what could not be loaded is tried again: ever more seldom.
struct Again {
    at: Instant,
    pause: Duration,
}

impl Default for Again {
    fn default() -> Self {
        Self { at: Instant::now() + FIRST_AGAIN, pause: FIRST_AGAIN }
    }
}

impl Again {
    fn is_due(&self) -> bool {
        self.at <= Instant::now()
    }

    fn pause(&mut self) {
        self.pause = (self.pause * 2).min(LAST_AGAIN);
        self.at = Instant::now() + self.pause;
    }
}

impl Keeper {
    /// Looks now and then whether the database answers, and what it counts, until it is told to stop.
    pub async fn watch_database(self: Arc<Self>) {
        let mut condition = self.condition();
        loop {
            let looked = self.look_at_database().await;
            let before = std::mem::replace(&mut condition, self.condition());
            if condition != before {
                self.log_database_condition(condition);
            }
            match looked {
                Ok(epoch) => {
                    *self.seen.lock() = Some(epoch);
                    if epoch != self.known.lock().epoch {
                        // What ends an experiment, or moves users in it, waits for no load.
                        match self.read().await {
                            Ok(()) => self.publish(Publish::Known),
                            Err(error) => tracing::error!(%error, "what is recorded could not be read"),
                        }
                    }
                    if self.away.lock().take().is_some() {
                        tracing::warn!("the database answers again");
                    }
                }
                Err(reason) => {
                    if self.goes_away() {
                        tracing::error!(reason, "the database does not answer: what was known last is served");
                    }
                }
            }
            tokio::select! {
                () = tokio::time::sleep(LOOK) => {}
                () = self.stop.cancelled() => return,
            }
        }
    }

    /// Says what has become of the file of the database.
    fn log_database_condition(&self, condition: Option<Unusable>) {
        let directory = self.place.database.directory().map(|path| path.display().to_string());
        match condition {
            None => tracing::warn!(directory, "the data directory is back"),
            Some(Unusable::Lost) => tracing::error!(
                directory,
                "the data directory was removed or replaced: what has to be written there is refused until it is back or the server is restarted"
            ),
            Some(reason @ Unusable::Damaged) => tracing::error!(
                directory,
                %reason,
                "the database cannot be used: what was known last is served, feedback and changes are refused"
            ),
        }
    }

    /// Follows what others change, until it is told to stop.
    pub async fn follow(&self) {
        let mut collected: Option<Instant> = None;
        let mut again = Again::default();
        loop {
            tokio::select! {
                () = tokio::time::sleep(LOOK) => {}
                () = self.stop.cancelled() => return,
            }
            let Some(epoch) = self.seen.lock().filter(|_| self.stale_for().is_none()) else { continue };
            let is_known = Some(epoch) == *self.lined_up.lock();
            let is_collected = collected.is_some_and(|at| at.elapsed() < COLLECT);
            if is_known && is_collected && !again.is_due() {
                continue;
            }
            let _alone = self.changing.lock().await;
            if !is_known {
                match self.read().await {
                    Ok(()) => self.bring_in_line(Why::Change).await,
                    Err(error) => tracing::error!(%error, "what is recorded could not be read"),
                }
                again = Again::default();
            } else if !is_collected {
                self.collect().await;
                collected = Some(Instant::now());
            } else {
                // Files may have come since, or what they came from may be back.
                if self.lacks_something() {
                    self.bring_in_line(Why::Again).await;
                }
                again.pause();
            }
        }
    }

    /// How many changes there were, once the database can be used and has the operator's own models.
    async fn look_at_database(&self) -> Result<i64, String> {
        let database = &self.place.database;
        if !database.has_begun() {
            database.begin().await.map_err(|error| error.to_string())?;
        }
        let found = self.found.lock().clone();
        if !found.is_empty() {
            directory::record(database, &found, Gone::Stays).await.map_err(|error| error.to_string())?;
            self.found.lock().clear();
        }
        database.epoch().await.map_err(|error| error.to_string())
    }

    /// True if something is to be loaded that is not.
    fn lacks_something(&self) -> bool {
        let known = self.known.lock();
        known
            .records
            .iter()
            .any(|(name, record)| known.kept(name, record).into_iter().any(|version| !self.is_there(name, version)))
    }

    /// The database does not answer; true if it did before.
    fn goes_away(&self) -> bool {
        let mut away = self.away.lock();
        let answered = away.is_none();
        away.get_or_insert_with(Instant::now);
        answered
    }

    /// Deletes files of the store that nothing that is recorded needs.
    async fn collect(&self) {
        let versions =
            |record: &ModelRecord| record.versions.values().filter_map(VersionRecord::digest).collect::<Vec<_>>();
        let named = self.known.lock().records.values().flat_map(versions).collect();
        let store = self.place.store.clone();
        match spawn_blocking(move || store.collect(&named)).await {
            Ok(Ok(0)) => {}
            Ok(Ok(gone)) => tracing::info!(gone, "files that nothing needs were deleted from the store"),
            Ok(Err(error)) => tracing::warn!(%error, "the store could not be cleared of what nothing needs"),
            Err(error) => tracing::error!(%error, "clearing the store was given up"),
        }
    }
}
