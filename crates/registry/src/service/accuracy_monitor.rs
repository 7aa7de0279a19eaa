//! How right model versions were lately, as what was told of their answers says.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use predictd_drift::accuracy_drop::{ACCURACY_WINDOW_ANSWERS, ExpectedAccuracy, has_dropped};
use predictd_engine::loaded_version::LoadedVersion;
use predictd_metrics::drift::AccuracyStatus;
use predictd_platform::clock::now_millis;

use super::registry_service::RegistryService;
use crate::record::VersionRecord;
use crate::version_name::VersionName;

/// How often it is looked where nothing is told here: others may be told, and what is recorded may change.
const IDLE_CHECK_INTERVAL: Duration = Duration::from_secs(15);
/// And how often at most.
const MIN_CHECK_INTERVAL: Duration = Duration::from_secs(1);
/// Answers that are older say nothing of today.
const MAX_ANSWER_AGE: Duration = Duration::from_hours(24 * 30);
/// Questions that fail until no more are asked in one look.
const MAX_QUERY_FAILURES: usize = 2;
/// The figure of a version that says how right it was when it was tried.
const ACCURACY_METRIC: &str = "accuracy";

impl RegistryService {
    /// Looks now and then how right the versions that are served were lately, until it is told to stop.
    pub async fn watch_accuracy(&self) {
        let mut told = false;
        let mut again = false;
        let mut looked = None::<Instant>;
        let mut seen = (0, 0);
        loop {
            let now = (
                self.last_feedback_timestamp.load(Ordering::Relaxed),
                self.deps.registry.snapshot().ready_models().count(),
            );
            let is_new = std::mem::replace(&mut seen, now) != now;
            // Once more a moment after something was told: it may not have been kept yet.
            let is_due = std::mem::replace(&mut again, is_new) || is_new;
            if (is_due || looked.is_none_or(|at| at.elapsed() >= IDLE_CHECK_INTERVAL))
                && self.database_downtime().is_none()
            {
                looked = Some(Instant::now());
                match self.update_accuracies().await {
                    Ok(()) => told = false,
                    // The same again and again is no news.
                    Err(error) if !std::mem::replace(&mut told, true) => {
                        tracing::warn!(%error, "accuracy unknown; database unavailable");
                    }
                    Err(_) => {}
                }
            }
            tokio::select! {
                () = tokio::time::sleep(MIN_CHECK_INTERVAL) => {}
                () = self.stop.cancelled() => return,
            }
        }
    }

    /// How right the versions were, as it was looked last: those of which anything is told or expected.
    #[must_use]
    pub fn accuracies(&self) -> Vec<AccuracyStatus> {
        self.accuracies.lock().clone()
    }

    /// Looks at each version. What is not told of one stays as it was, and keeps nothing from the others.
    async fn update_accuracies(&self) -> Result<(), sqlx::Error> {
        let snapshot = self.deps.registry.snapshot();
        let before = self.accuracies();
        let mut found = Vec::new();
        let mut failures = Vec::new();
        for served in snapshot.ready_models() {
            let model = served.name();
            let version = served.version();
            let last = before.iter().find(|one| one.model == model && one.version == version);
            // A database that is away is not asked once for each.
            let recent = if failures.len() < MAX_QUERY_FAILURES {
                let oldest = self.accuracy_cutoff(served);
                let recent = self
                    .deps
                    .database
                    .recent_accuracy(model, version, oldest, i64::from(ACCURACY_WINDOW_ANSWERS))
                    .await;
                recent.map_err(|error| failures.push(error)).ok()
            } else {
                None
            };
            let Some((labelled, correct)) = recent else {
                found.extend(last.cloned());
                continue;
            };
            let expected = self.expected_accuracy(served);
            if labelled == 0 && expected.is_none() {
                continue;
            }
            let said = last.and_then(|last| last.has_dropped);
            let dropped = expected.and_then(|expected| has_dropped(said, expected, correct, labelled));
            let model = model.to_owned();
            let version = version.to_owned();
            let expected = expected.map(|expected| expected.share);
            let now =
                AccuracyStatus { model, version, labelled_answers: labelled, correct, expected, has_dropped: dropped };
            if dropped != said {
                log_accuracy_change(&now, said);
            }
            found.push(now);
        }
        self.deps.load_context.metrics.set_accuracies(&found);
        *self.accuracies.lock() = found;
        failures.into_iter().next().map_or(Ok(()), Err)
    }

    /// From when on answers count: of today, and of this version, not of another that had its name before.
    fn accuracy_cutoff(&self, served: &LoadedVersion) -> i64 {
        let oldest = now_millis().saturating_sub(i64::try_from(MAX_ANSWER_AGE.as_millis()).unwrap_or(i64::MAX));
        // What is made in the same millisecond counts.
        self.read_version_record(served, |record| Some(record.registered_at.saturating_sub(1)))
            .map_or(oldest, |at| at.max(oldest))
    }

    /// How right a version was when it was tried: as it was recorded, else as its profile says.
    fn expected_accuracy(&self, served: &LoadedVersion) -> Option<ExpectedAccuracy> {
        let recorded = self.read_version_record(served, |record| record.metrics.get(ACCURACY_METRIC).copied());
        let recorded = recorded.filter(|share| (0.0..=1.0).contains(share));
        let profiled = || {
            let profile = served.drift_monitor()?.profile();
            Some(ExpectedAccuracy {
                share: served.drift_monitor()?.accuracy()?,
                sample_texts: Some(profile.accuracy?.texts),
            })
        };
        recorded.map(|share| ExpectedAccuracy { share, sample_texts: None }).or_else(profiled)
    }

    fn read_version_record<T>(
        &self,
        served: &LoadedVersion,
        part: impl FnOnce(&VersionRecord) -> Option<T>,
    ) -> Option<T> {
        let known = self.state.lock();
        part(known.records.get(served.name())?.versions.get(&VersionName::new(served.version()))?)
    }
}

/// Logs what is news. What was not known before and is well is none.
fn log_accuracy_change(now: &AccuracyStatus, before: Option<bool>) {
    let AccuracyStatus { model, version, labelled_answers: labelled, correct, expected, has_dropped: dropped } = now;
    match (before, dropped) {
        (_, Some(true)) => {
            tracing::warn!(model, version, labelled, correct, expected, "accuracy drop detected");
        }
        (Some(true), Some(false)) => {
            tracing::info!(model, version, labelled, correct, expected, "accuracy drop cleared");
        }
        _ => {}
    }
}
