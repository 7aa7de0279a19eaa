//! How right model versions were lately, as what was told of their answers says.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::Keeper;
use crate::drift::accuracy::{Expected, MOST_ANSWERS, has_dropped};
use crate::engine::model::Model;
use crate::metrics::drift::AccuracyNow;
use crate::registry::database::now;
use crate::registry::record::VersionRecord;
use crate::registry::version::Version;

/// How often it is looked where nothing is told here: others may be told, and what is recorded may change.
const LOOK: Duration = Duration::from_secs(15);
/// And how often at most.
const PAUSE: Duration = Duration::from_secs(1);
/// Answers that are older say nothing of today.
const OLDEST: Duration = Duration::from_hours(24 * 30);
/// Questions that fail until no more are asked in one look.
const MOST_FAILURES: usize = 2;
/// The figure of a version that says how right it was when it was tried.
const FIGURE: &str = "accuracy";

impl Keeper {
    /// Looks now and then how right the versions that are served were lately, until it is told to stop.
    pub async fn watch_accuracy(&self) {
        let (mut told, mut again, mut looked, mut seen) = (false, false, None::<Instant>, (0, 0));
        loop {
            let now = (self.told.load(Ordering::Relaxed), self.place.registry.snapshot().loaded().count());
            let is_new = std::mem::replace(&mut seen, now) != now;
            // Once more a moment after something was told: it may not have been kept yet.
            let is_due = std::mem::replace(&mut again, is_new) || is_new;
            if (is_due || looked.is_none_or(|at| at.elapsed() >= LOOK)) && self.stale_for().is_none() {
                looked = Some(Instant::now());
                match self.look_at_accuracy().await {
                    Ok(()) => told = false,
                    // The same again and again is no news.
                    Err(error) if !std::mem::replace(&mut told, true) => {
                        tracing::warn!(%error, "it is not known how right the models are: the database does not tell");
                    }
                    Err(_) => {}
                }
            }
            tokio::select! {
                () = tokio::time::sleep(PAUSE) => {}
                () = self.stop.cancelled() => return,
            }
        }
    }

    /// How right the versions were, as it was looked last: those of which anything is told or expected.
    #[must_use]
    pub fn accuracies(&self) -> Vec<AccuracyNow> {
        self.accuracies.lock().clone()
    }

    /// Looks at each version. What is not told of one stays as it was, and keeps nothing from the others.
    async fn look_at_accuracy(&self) -> Result<(), sqlx::Error> {
        let snapshot = self.place.registry.snapshot();
        let before = self.accuracies();
        let (mut found, mut failures) = (Vec::new(), Vec::new());
        for served in snapshot.loaded() {
            let (model, version) = (served.name(), served.version());
            let last = before.iter().find(|one| one.model == model && one.version == version);
            // A database that is away is not asked once for each.
            let recent = if failures.len() < MOST_FAILURES {
                let oldest = self.oldest(served);
                let recent = self.place.database.recent(model, version, oldest, i64::from(MOST_ANSWERS)).await;
                recent.map_err(|error| failures.push(error)).ok()
            } else {
                None
            };
            let Some((labelled, correct)) = recent else {
                found.extend(last.cloned());
                continue;
            };
            let expected = self.expected(served);
            if labelled == 0 && expected.is_none() {
                continue;
            }
            let said = last.and_then(|last| last.dropped);
            let dropped = expected.and_then(|expected| has_dropped(said, expected, correct, labelled));
            let (model, version) = (model.to_owned(), version.to_owned());
            let expected = expected.map(|expected| expected.share);
            let now = AccuracyNow { model, version, labelled, correct, expected, dropped };
            if dropped != said {
                tell(&now, said);
            }
            found.push(now);
        }
        self.place.host.metrics.accuracies(&found);
        *self.accuracies.lock() = found;
        failures.into_iter().next().map_or(Ok(()), Err)
    }

    /// From when on answers count: of today, and of this version, not of another that had its name before.
    fn oldest(&self, served: &Model) -> i64 {
        let oldest = now().saturating_sub(i64::try_from(OLDEST.as_millis()).unwrap_or(i64::MAX));
        // What is made in the same millisecond counts.
        self.of_record(served, |record| Some(record.registered_at.saturating_sub(1)))
            .map_or(oldest, |at| at.max(oldest))
    }

    /// How right a version was when it was tried: as it was recorded, else as its profile says.
    fn expected(&self, served: &Model) -> Option<Expected> {
        let recorded = self.of_record(served, |record| record.metrics.get(FIGURE).copied());
        let recorded = recorded.filter(|share| (0.0..=1.0).contains(share));
        let profiled = || {
            let profile = served.drifting()?.profile();
            Some(Expected { share: served.drifting()?.accuracy()?, texts: Some(profile.accuracy?.texts) })
        };
        recorded.map(|share| Expected { share, texts: None }).or_else(profiled)
    }

    fn of_record<T>(&self, served: &Model, part: impl FnOnce(&VersionRecord) -> Option<T>) -> Option<T> {
        let known = self.known.lock();
        part(known.records.get(served.name())?.versions.get(&Version::new(served.version()))?)
    }
}

/// Logs what is news. What was not known before and is well is none.
fn tell(now: &AccuracyNow, before: Option<bool>) {
    let AccuracyNow { model, version, labelled, correct, expected, dropped } = now;
    match (before, dropped) {
        (_, Some(true)) => {
            tracing::warn!(
                model,
                version,
                labelled,
                correct,
                expected,
                "the model is less often right than it was when it was tried"
            );
        }
        (Some(true), Some(false)) => {
            tracing::info!(
                model,
                version,
                labelled,
                correct,
                expected,
                "the model is as often right as it was when it was tried"
            );
        }
        _ => {}
    }
}
