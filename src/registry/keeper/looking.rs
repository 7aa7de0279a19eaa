//! Notices what others change, whether the database answers, and what the store need not keep.

use std::time::{Duration, Instant};

use tokio::task::spawn_blocking;

use super::Keeper;
use crate::registry::record::{ModelRecord, VersionRecord};

/// How often it is looked whether somebody else changed something.
const LOOK: Duration = Duration::from_millis(500);
/// How often the store is cleared of what nothing needs.
const COLLECT: Duration = Duration::from_hours(1);

impl Keeper {
    /// Looks now and then whether somebody else changed something, and follows, until it is told to stop.
    pub async fn follow(&self) {
        let mut collected: Option<Instant> = None;
        loop {
            tokio::select! {
                () = tokio::time::sleep(LOOK) => {}
                () = self.stop.cancelled() => return,
            }
            let Ok(epoch) = self.place.database.epoch().await else {
                if self.goes_away() {
                    tracing::error!("the database does not answer: what was known last is served");
                }
                continue;
            };
            if self.away.lock().take().is_some() {
                tracing::warn!("the database answers again");
            }
            let is_known = epoch == self.known.lock().epoch;
            if is_known && collected.is_some_and(|at| at.elapsed() < COLLECT) {
                continue;
            }
            let _alone = self.changing.lock().await;
            if is_known {
                self.collect().await;
                collected = Some(Instant::now());
                continue;
            }
            match self.read().await {
                Ok(()) => self.bring_in_line().await,
                Err(error) => tracing::error!(%error, "what is recorded could not be read"),
            }
        }
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
