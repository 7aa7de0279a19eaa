//! How right model versions were lately, as what was told of their answers says.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::Keeper;
use crate::drift::accuracy::{MOST_ANSWERS, has_dropped};
use crate::engine::drifting::Drifting;
use crate::engine::model::Model;
use crate::metrics::drift::AccuracyNow;
use crate::registry::database::now;
use crate::registry::version::Version;

/// How often it is looked where nothing is told here: others may be told, and what is recorded may change.
const LOOK: Duration = Duration::from_secs(15);
/// And how often at most.
const PAUSE: Duration = Duration::from_secs(1);
/// Answers that are older say nothing of today.
const OLDEST: Duration = Duration::from_hours(24 * 30);
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

    async fn look_at_accuracy(&self) -> Result<(), sqlx::Error> {
        let snapshot = self.place.registry.snapshot();
        let oldest = now().saturating_sub(i64::try_from(OLDEST.as_millis()).unwrap_or(i64::MAX));
        let before = self.accuracies();
        let mut found = Vec::new();
        for served in snapshot.loaded() {
            let (model, version) = (served.name(), served.version());
            let (labelled, correct) =
                self.place.database.recent(model, version, oldest, i64::from(MOST_ANSWERS)).await?;
            let expected = self.expected(served);
            if labelled == 0 && expected.is_none() {
                continue;
            }
            let dropped = before.iter().any(|one| one.dropped && one.model == model && one.version == version);
            let now_dropped = expected.is_some_and(|expected| has_dropped(dropped, expected, correct, labelled));
            if now_dropped && !dropped {
                tracing::warn!(
                    model,
                    version,
                    labelled,
                    correct,
                    expected,
                    "the model is less often right than it was when it was tried"
                );
            } else if dropped && !now_dropped {
                tracing::info!(
                    model,
                    version,
                    labelled,
                    correct,
                    expected,
                    "the model is as often right as it was when it was tried"
                );
            }
            let (model, version) = (model.to_owned(), version.to_owned());
            found.push(AccuracyNow { model, version, labelled, correct, expected, dropped: now_dropped });
        }
        self.place.host.metrics.accuracies(&found);
        *self.accuracies.lock() = found;
        Ok(())
    }

    /// How right a version was when it was tried: as it was recorded, else as its profile says.
    fn expected(&self, served: &Model) -> Option<f64> {
        let recorded = self
            .known
            .lock()
            .records
            .get(served.name())
            .and_then(|record| record.versions.get(&Version::new(served.version()))?.metrics.get(FIGURE).copied());
        let profiled = || served.drifting().and_then(Drifting::accuracy);
        recorded.filter(|share| (0.0..=1.0).contains(share)).or_else(profiled)
    }
}
