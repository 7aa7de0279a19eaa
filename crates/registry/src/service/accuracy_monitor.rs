//! The accuracy of model versions by the latest feedback.

use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use predictd_drift::accuracy_drop::{ACCURACY_WINDOW_ANSWERS, ExpectedAccuracy, has_dropped};
use predictd_engine::loaded_version::LoadedVersion;
use predictd_metrics::drift::AccuracyStatus;
use predictd_platform::clock::now_millis;

use super::registry_context::RegistryContext;
use crate::database::feedback::FeedbackTable;
use crate::feedback::store::FeedbackStore;
use crate::polling::Poller;
use crate::record::VersionRecord;

/// Time between two updates without feedback here: other replicas get some, and records may change.
const IDLE_CHECK_INTERVAL: Duration = Duration::from_secs(15);
const MIN_CHECK_INTERVAL: Duration = Duration::from_secs(1);
/// Older answers say nothing of today.
const MAX_ANSWER_AGE: Duration = Duration::from_hours(24 * 30);
/// Queries of one update that may fail; no more are made then.
const MAX_QUERY_FAILURES: usize = 2;
/// The metric of a version that says how right it was when it was tried.
const ACCURACY_METRIC: &str = "accuracy";

/// The accuracies at the last update, of versions that have feedback or an expected accuracy.
pub(super) type Accuracies = Arc<Mutex<Vec<AccuracyStatus>>>;

/// Compares the accuracy of served versions with what is expected of them.
pub(super) struct AccuracyMonitor {
    pub(super) context: Arc<RegistryContext>,
    pub(super) feedback: Arc<FeedbackStore>,
    pub(super) accuracies: Accuracies,
    pub(super) state: MonitorState,
}

/// What the monitor saw last.
#[derive(Default)]
pub(super) struct MonitorState {
    /// The time of the latest feedback, and the number of loaded versions.
    seen: (i64, usize),
    has_news: bool,
    updated: Option<Instant>,
    is_failure_logged: bool,
}

impl Poller for AccuracyMonitor {
    async fn poll(&mut self) -> Duration {
        let state = &mut self.state;
        let now = (self.feedback.last_timestamp(), self.context.registry().snapshot().ready_models().count());
        let has_news = std::mem::replace(&mut state.seen, now) != now;
        // Once more a moment after feedback came: it may not have been stored yet.
        let is_due = std::mem::replace(&mut state.has_news, has_news) || has_news;
        if (is_due || state.updated.is_none_or(|at| at.elapsed() >= IDLE_CHECK_INTERVAL))
            && self.context.database_downtime().is_none()
        {
            state.updated = Some(Instant::now());
            match self.update().await {
                Ok(()) => self.state.is_failure_logged = false,
                Err(error) if !std::mem::replace(&mut self.state.is_failure_logged, true) => {
                    tracing::warn!(%error, "accuracy unknown; database unavailable");
                }
                Err(_) => {}
            }
        }
        MIN_CHECK_INTERVAL
    }
}

impl AccuracyMonitor {
    /// Updates the accuracy of each version. One that cannot be read stays as it was.
    async fn update(&self) -> Result<(), sqlx::Error> {
        let snapshot = self.context.registry().snapshot();
        let before = self.accuracies.lock().clone();
        let mut statuses = Vec::new();
        let mut failures = Vec::new();
        for served in snapshot.ready_models() {
            let model = served.name.as_str();
            let version = served.version.as_str();
            let last = before.iter().find(|one| one.model == model && one.version == version);
            let records = &self.context.state;
            let record = records.lock().records.get(model).and_then(|record| record.version(version).ok().cloned());
            // A database that is away is not asked once for each version.
            let counts = if failures.len() < MAX_QUERY_FAILURES {
                let oldest = oldest_answer(record.as_ref());
                let most = i64::from(ACCURACY_WINDOW_ANSWERS);
                let table = FeedbackTable(&self.context.database);
                let counts = table.recent_accuracy(model, version, oldest, most);
                counts.await.map_err(|error| failures.push(error)).ok()
            } else {
                None
            };
            let Some(counts) = counts else {
                statuses.extend(last.cloned());
                continue;
            };
            statuses.extend(status(served, counts, expected_accuracy(served, record.as_ref()), last));
        }
        self.context.metrics.set_accuracies(&statuses);
        *self.accuracies.lock() = statuses;
        failures.into_iter().next().map_or(Ok(()), Err)
    }
}

/// The time from which answers count: those of today's version, not of one that had its name before.
fn oldest_answer(record: Option<&VersionRecord>) -> i64 {
    let oldest = now_millis().saturating_sub(i64::try_from(MAX_ANSWER_AGE.as_millis()).unwrap_or(i64::MAX));
    // Answers of the same millisecond count.
    record.map_or(oldest, |record| oldest.max(record.registered_at.saturating_sub(1)))
}

/// The accuracy of a version when it was tried: its recorded metric, else that of its profile.
fn expected_accuracy(served: &LoadedVersion, record: Option<&VersionRecord>) -> Option<ExpectedAccuracy> {
    let recorded = record.and_then(|record| record.metrics.get(ACCURACY_METRIC).copied());
    if let Some(share) = recorded.filter(|share| (0.0..=1.0).contains(share)) {
        return Some(ExpectedAccuracy { share, sample_texts: None });
    }
    let monitor = served.drift_monitor.as_ref()?;
    let share = monitor.accuracy()?;
    Some(ExpectedAccuracy { share, sample_texts: Some(monitor.profile.accuracy?.texts) })
}

/// The accuracy of a version, of whose labelled answers so many were correct. Logs a drop.
fn status(
    served: &LoadedVersion,
    (labelled, correct): (u64, u64),
    expected: Option<ExpectedAccuracy>,
    last: Option<&AccuracyStatus>,
) -> Option<AccuracyStatus> {
    if labelled == 0 && expected.is_none() {
        return None;
    }
    let model = served.name.as_str();
    let version = served.version.as_str();
    let before = last.and_then(|last| last.has_dropped);
    let has_dropped = expected.and_then(|expected| has_dropped(before, expected, correct, labelled));
    let expected = expected.map(|expected| expected.share);
    // What was not known before and is well is no news.
    match (before, has_dropped) {
        (None | Some(false), Some(true)) => {
            tracing::warn!(model, version, labelled, correct, expected, "accuracy drop detected");
        }
        (Some(true), Some(false)) => {
            tracing::info!(model, version, labelled, correct, expected, "accuracy drop cleared");
        }
        _ => {}
    }
    Some(AccuracyStatus {
        model: model.to_owned(),
        version: version.to_owned(),
        labelled_answers: labelled,
        correct,
        expected,
        has_dropped,
    })
}
