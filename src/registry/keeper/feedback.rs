//! Keeps what is told of earlier answers: in the database, or on disk until that answers.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::task::spawn_blocking;
use tokio::time::timeout;

use super::{KeepError, Keeper};
use crate::clock;
use crate::registry::database::ChangeError;
use crate::registry::database::feedback::Page;
use crate::registry::feedback::{Feedback, Kept};
use crate::registry::spool::Waiting;

/// How often it is looked whether something waits.
const LOOK: Duration = Duration::from_millis(500);
/// When it is tried again where that failed.
const AGAIN: Duration = Duration::from_secs(2);
/// Longest wait for those who tell the database something before: a database that answers and does not write holds
/// nobody up for long, since there is the disk.
const LONGEST_TURN: Duration = Duration::from_secs(2);
/// Kept in one transaction, at most.
const AT_A_TIME: usize = 500;

/// What became of something that was told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Told {
    /// It is in the database.
    Kept(Kept),
    /// It waits on disk until the database answers.
    Waits,
}

impl Keeper {
    /// A time for something that is told now, in microseconds since 1970: no two have the same.
    pub fn moment(&self) -> i64 {
        let now = clock::since_1970(clock::now());
        let now = i64::try_from(now.as_micros()).unwrap_or(i64::MAX);
        let later = |last: i64| Some(now.max(last + 1));
        let before = self.told.fetch_update(Ordering::Relaxed, Ordering::Relaxed, later);
        now.max(before.unwrap_or_default() + 1)
    }

    /// Keeps what was told, in its order.
    ///
    /// # Errors
    /// [`KeepError::Unusable`] and [`KeepError::Spool`] if neither the database nor the disk takes it. A part may have been kept: to tell all of it
    /// once more does no harm.
    pub async fn tell(self: Arc<Self>, told: Vec<Feedback>) -> Result<Vec<Told>, KeepError> {
        let mut all = Vec::with_capacity(told.len());
        for some in told.chunks(AT_A_TIME) {
            self.unusable().map_or(Ok(()), Err)?;
            let alone = timeout(LONGEST_TURN, self.telling.lock()).await.ok();
            if alone.is_some() && self.stale_for().is_none() {
                match self.place.database.tell_now(some).await {
                    Ok(kept) => {
                        all.extend(kept.into_iter().map(Told::Kept));
                        continue;
                    }
                    Err(error) => {
                        // What is kept where a restart does not look for it waits nowhere.
                        self.unusable().map_or(Ok(()), Err)?;
                        tracing::warn!(%error, "feedback waits on disk: the database did not take it");
                    }
                }
            }
            drop(alone);
            let (keeper, some) = (Arc::clone(&self), some.to_vec());
            let waits = some.len();
            spawn_blocking(move || keeper.place.spool.append(&some)).await??;
            all.extend(std::iter::repeat_n(Told::Waits, waits));
        }
        for told in &all {
            self.place.host.metrics.told(told.name());
        }
        Ok(all)
    }

    /// What was told after this place, in its order, as much as `page` holds; true if there may be more.
    ///
    /// # Errors
    /// If the database does not answer.
    pub async fn told(
        &self,
        model: Option<&str>,
        after: (i64, &str),
        page: Page,
    ) -> Result<(Vec<Feedback>, bool), ChangeError> {
        Ok(self.place.database.told(model, after, page).await?)
    }

    /// Bytes of feedback that wait for the database.
    #[must_use]
    pub fn waiting(&self) -> u64 {
        self.place.spool.bytes()
    }

    /// Hands over what waits, whenever the database answers, until it is told to stop. It may take long: whoever follows
    /// changes does not wait for it.
    pub async fn hand_over(self: Arc<Self>) {
        loop {
            if self.place.spool.is_pending() && self.seen.lock().is_some() && self.stale_for().is_none() {
                self.hand_over_all().await;
            }
            tokio::select! {
                // What could not be handed over is not tried again at once.
                () = tokio::time::sleep(if self.place.spool.is_pending() { AGAIN } else { LOOK }) => {}
                () = self.stop.cancelled() => return,
            }
        }
    }

    async fn hand_over_all(self: &Arc<Self>) {
        let keeper = Arc::clone(self);
        let waiting = match spawn_blocking(move || keeper.place.spool.hand_over()).await {
            Ok(Ok(waiting)) => waiting,
            Ok(Err(error)) => return self.waits_on(&error),
            Err(error) => return self.waits_on(&error),
        };
        for file in waiting {
            match self.hand_over_one(file).await {
                Ok(0) => {}
                Ok(told) => tracing::info!(told, "feedback that waited on disk is in the database"),
                // The next file may be a good one.
                Err(error) => self.waits_on(&*error),
            }
            if self.stale_for().is_some() || self.stop.is_cancelled() {
                return self.place.spool.put_back();
            }
        }
    }

    fn waits_on(&self, error: &dyn std::fmt::Display) {
        tracing::warn!(%error, "feedback on disk waits on");
        self.place.spool.put_back();
    }

    async fn hand_over_one(&self, mut file: Waiting) -> Result<usize, Box<dyn std::error::Error + Send + Sync>> {
        let mut told = 0;
        loop {
            let read = spawn_blocking(move || file.next(AT_A_TIME).map(|next| (file, next)));
            let (rest, next) = read.await??;
            file = rest;
            if next.is_empty() {
                spawn_blocking(|| file.done()).await??;
                return Ok(told);
            }
            let _alone = self.telling.lock().await;
            self.place.database.tell(&next).await?;
            told += next.len();
        }
    }
}

impl Told {
    /// A word for it, in answers and metrics.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Kept(Kept::New) => "stored",
            Self::Kept(Kept::Corrected) => "corrected",
            Self::Kept(Kept::Unchanged | Kept::Older) => "unchanged",
            Self::Waits => "waiting",
        }
    }
}
