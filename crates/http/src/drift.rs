//! `GET /admin/drift`: whether texts and answers are still like before, and how right those were.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::SystemTime;

use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use predictd_drift::window::MAX_STORED_WINDOWS;
use predictd_drift::{Divergence, DriftLevel, DriftSignal, SignalReport, WindowResult};
use predictd_engine::drift_monitor::{DriftMonitor, DriftStatus};
use predictd_metrics::drift::AccuracyStatus;
use predictd_registry::VersionState;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::error::{ApiError, Code, Problem};
use super::state::App;

/// How much is told.
#[derive(Debug, Clone, Copy, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct DriftQuery {
    /// Windows of each version, the last ones; 24 if nothing is said.
    #[param(minimum = 0, maximum = 24)]
    windows: Option<usize>,
}

/// All versions, and how they stand.
#[derive(Debug, Serialize, ToSchema)]
pub struct DriftReportView {
    /// By model and version.
    pub versions: Vec<VersionDriftView>,
}

/// How a version stands.
#[derive(Debug, Serialize, ToSchema)]
pub struct VersionDriftView {
    /// Name of the model.
    pub model: String,
    /// The version.
    pub version: String,
    /// `loading`, `ready` or `failed`.
    pub state: &'static str,
    /// How live texts compare with the profile; none without one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub drift: Option<ProfileComparison>,
    /// How right the answers were; none before anything is told or expected.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub accuracy: Option<AccuracyView>,
}

/// How live texts compare with a profile.
#[derive(Debug, Serialize, ToSchema)]
pub struct ProfileComparison {
    /// The profile.
    pub profile: ProfileView,
    /// Texts of a full window.
    pub window_texts: u64,
    /// Seconds after which a window closes that has enough texts; none if only a full one does.
    pub longest_seconds: Option<f64>,
    /// Texts with which a window is judged by every signal.
    pub needed: u64,
    /// Texts in the open window.
    pub open_texts: u64,
    /// The signals.
    pub signals: Vec<SignalView>,
    /// The last windows, oldest first; at most 24, or as many as were asked for.
    pub windows: Vec<WindowView>,
}

/// What a profile says of itself.
#[derive(Debug, Serialize, ToSchema)]
pub struct ProfileView {
    /// The model that answered.
    pub model: String,
    /// Its version.
    pub version: String,
    /// When.
    pub made: String,
    /// Texts that it was made of.
    pub texts: u64,
    /// Share of right answers among those whose label was known.
    pub accuracy: Option<f64>,
}

/// One signal as it is now.
#[derive(Debug, Serialize, ToSchema)]
pub struct SignalView {
    /// `labels`, `confidence`, `lengths` or `unknown`.
    pub signal: &'static str,
    /// `quiet` or `drifting`.
    pub level: &'static str,
    /// Since when (RFC 3339); none if it was quiet from the start.
    pub since: Option<String>,
    /// Texts that a window must have to be judged by it; none if it is not counted.
    pub needed: Option<u64>,
    /// The last window that was judged by it.
    pub window: Option<u64>,
    /// How far that was away.
    #[serde(flatten)]
    pub distance: Option<DistanceView>,
}

/// How far a window was away from the profile.
#[derive(Debug, Clone, Copy, Serialize, ToSchema)]
pub struct DistanceView {
    /// What is judged: PSI; for unknown tokens Cohen's h.
    pub value: f64,
    /// The value from which the signal drifts.
    pub threshold: f64,
    /// The value below which a window counts as calm.
    pub clear_below: f64,
    /// Population stability index.
    pub psi: f64,
    /// Jensen-Shannon divergence, 0 to 1.
    pub js: f64,
}

/// A closed window.
#[derive(Debug, Serialize, ToSchema)]
pub struct WindowView {
    /// Numbered from 1.
    pub number: u64,
    /// Texts in it.
    pub texts: u64,
    /// When its first text came (RFC 3339).
    pub opened: String,
    /// When it was closed.
    pub closed: String,
    /// What it was judged by.
    pub signals: Vec<WindowSignalView>,
}

/// A signal after a window.
#[derive(Debug, Serialize, ToSchema)]
pub struct WindowSignalView {
    /// `labels`, `confidence`, `lengths` or `unknown`.
    pub signal: &'static str,
    /// `quiet` or `drifting`.
    pub level: &'static str,
    /// How far the window was away.
    #[serde(flatten)]
    pub distance: DistanceView,
}

/// How right a version was lately.
#[derive(Debug, Serialize, ToSchema)]
pub struct AccuracyView {
    /// Share of right answers among the last whose label was told; none if nothing was.
    pub accuracy: Option<f64>,
    /// How many these are: at most 1,000, of 30 days.
    pub labelled: u64,
    /// The share that was right when the version was tried, if that is known.
    pub expected: Option<f64>,
    /// The accuracy is below the expected one by more than four standard errors and by a point; it is back within two. None
    /// before 100 labels are told, and after a restart until it is clear. Labels must be told of a fair sample of all
    /// answers: those of wrong answers only look like a drop.
    pub dropped: Option<bool>,
}

/// Whether texts and answers are like those of each version's profile, and how right the answers were.
#[utoipa::path(
    get, path = "/admin/drift", tag = "admin", params(DriftQuery),
    responses(
        (status = 200, body = DriftReportView),
        (status = 503, body = Problem, content_type = "application/problem+json", description = "The server stops"),
    )
)]
pub async fn show(
    State(app): State<Arc<App>>,
    query: Result<Query<DriftQuery>, QueryRejection>,
) -> Result<Json<DriftReportView>, ApiError> {
    let windows = query.ok().map(|Query(DriftQuery { windows })| windows.unwrap_or(MAX_STORED_WINDOWS));
    let Some(max_windows) = windows.filter(|&windows| windows <= MAX_STORED_WINDOWS) else {
        let detail = format!("the query can have `windows`, 0 to {MAX_STORED_WINDOWS}");
        return Err(ApiError::at_pointer("windows", detail));
    };
    let snapshot = app.models.registry.snapshot();
    // Models go as the server stops: who asks must not take them for removed. Once seen here, none had gone before.
    if app.lifecycle.draining.load(Ordering::Relaxed) {
        return Err(ApiError::new(Code::ShuttingDown, "The server was told to stop."));
    }
    let accuracies =
        app.models.registry_runtime.as_ref().map(|runtime| runtime.services().accuracies()).unwrap_or_default();
    let mut versions = Vec::new();
    for (name, served) in &snapshot.models {
        for (version, state) in &served.versions {
            let loaded = if let VersionState::Ready(model) = state { Some(model) } else { None };
            let accuracy =
                accuracies.iter().find(|accuracy| accuracy.model == *name && accuracy.version == version.as_str());
            versions.push(VersionDriftView {
                model: name.clone(),
                version: version.as_str().to_owned(),
                state: state.name(),
                drift: loaded
                    .and_then(|model| model.drift_monitor())
                    .map(|monitor| ProfileComparison::from_report(monitor, monitor.report(), max_windows)),
                accuracy: accuracy.map(AccuracyView::from_accuracy),
            });
        }
    }
    Ok(Json(DriftReportView { versions }))
}

impl ProfileComparison {
    fn from_report(drifting: &DriftMonitor, report: DriftStatus, most: usize) -> Self {
        let DriftStatus {
            profile,
            settings,
            min_window_items: needed,
            open_window_items: open_texts,
            signals,
            windows,
        } = report;
        Self {
            profile: ProfileView {
                accuracy: drifting.accuracy(),
                model: profile.model,
                version: profile.version,
                made: profile.created,
                texts: profile.item_count,
            },
            window_texts: settings.texts,
            longest_seconds: settings.max_age.map(|longest| longest.as_secs_f64()),
            needed,
            open_texts,
            signals: signals.into_iter().map(|(signal, since)| SignalView::from_report(&signal, since)).collect(),
            windows: windows
                .iter()
                .skip(windows.len().saturating_sub(most))
                .map(|(window, times)| WindowView::from_window(window, *times))
                .collect(),
        }
    }
}

impl SignalView {
    fn from_report(report: &SignalReport, since: Option<SystemTime>) -> Self {
        Self {
            signal: report.signal.name(),
            level: report.level.name(),
            since: since.map(format_time),
            needed: report.min_window_texts,
            window: report.last_window,
            distance: report.divergence.map(DistanceView::from),
        }
    }
}

impl WindowView {
    fn from_window(window: &WindowResult, [opened, closed]: [SystemTime; 2]) -> Self {
        let judged = DriftSignal::ALL.iter().zip(window.levels).zip(window.divergences);
        let signal = |((signal, level), distance): ((&DriftSignal, DriftLevel), Option<Divergence>)| {
            Some(WindowSignalView { signal: signal.name(), level: level.name(), distance: distance?.into() })
        };
        Self {
            number: window.number,
            texts: window.texts,
            opened: format_time(opened),
            closed: format_time(closed),
            signals: judged.filter_map(signal).collect(),
        }
    }
}

impl From<Divergence> for DistanceView {
    fn from(distance: Divergence) -> Self {
        Self {
            value: distance.value,
            threshold: distance.threshold(),
            clear_below: distance.clear_threshold(),
            psi: distance.psi,
            js: distance.js,
        }
    }
}

impl AccuracyView {
    fn from_accuracy(now: &AccuracyStatus) -> Self {
        let AccuracyStatus { labelled_answers: labelled, expected, has_dropped: dropped, .. } = *now;
        Self { accuracy: now.accuracy(), labelled, expected, dropped }
    }
}

fn format_time(time: SystemTime) -> String {
    humantime::format_rfc3339_millis(time).to_string()
}
