//! `GET /admin/drift`: whether texts and answers are still like before, and how right those were.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::SystemTime;

use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::App;
use super::error::{ApiError, Code, Problem};
use crate::drift::window::KEPT_WINDOWS;
use crate::drift::{Distance, Level, Signal, SignalReport, Window};
use crate::engine::drifting::{Drifting, Report};
use crate::metrics::drift::AccuracyNow;
use crate::registry::State as VersionState;

/// How much is told.
#[derive(Debug, Clone, Copy, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct HowMuch {
    /// Windows of each version, the last ones; 24 if nothing is said.
    #[param(minimum = 0, maximum = 24)]
    windows: Option<usize>,
}

/// All versions, and how they stand.
#[derive(Debug, Serialize, ToSchema)]
pub struct DriftReport {
    /// By model and version.
    pub versions: Vec<VersionDrift>,
}

/// How a version stands.
#[derive(Debug, Serialize, ToSchema)]
pub struct VersionDrift {
    /// Name of the model.
    pub model: String,
    /// The version.
    pub version: String,
    /// `loading`, `ready` or `failed`.
    pub state: &'static str,
    /// How live texts compare with the profile; none without one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub drift: Option<Compared>,
    /// How right the answers were; none before anything is told or expected.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub accuracy: Option<AccuracyState>,
}

/// How live texts compare with a profile.
#[derive(Debug, Serialize, ToSchema)]
pub struct Compared {
    /// The profile.
    pub profile: ProfileFacts,
    /// Texts of a full window.
    pub window_texts: u64,
    /// Seconds after which a window closes that has enough texts; none if only a full one does.
    pub longest_seconds: Option<f64>,
    /// Texts with which a window is judged by every signal.
    pub needed: u64,
    /// Texts in the open window.
    pub open_texts: u64,
    /// The signals.
    pub signals: Vec<SignalState>,
    /// The last windows, oldest first; at most 24, or as many as were asked for.
    pub windows: Vec<ClosedWindow>,
}

/// What a profile says of itself.
#[derive(Debug, Serialize, ToSchema)]
pub struct ProfileFacts {
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
pub struct SignalState {
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
    pub distance: Option<DistanceFound>,
}

/// How far a window was away from the profile.
#[derive(Debug, Clone, Copy, Serialize, ToSchema)]
pub struct DistanceFound {
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
pub struct ClosedWindow {
    /// Numbered from 1.
    pub number: u64,
    /// Texts in it.
    pub texts: u64,
    /// When its first text came (RFC 3339).
    pub opened: String,
    /// When it was closed.
    pub closed: String,
    /// What it was judged by.
    pub signals: Vec<WindowSignal>,
}

/// A signal after a window.
#[derive(Debug, Serialize, ToSchema)]
pub struct WindowSignal {
    /// `labels`, `confidence`, `lengths` or `unknown`.
    pub signal: &'static str,
    /// `quiet` or `drifting`.
    pub level: &'static str,
    /// How far the window was away.
    #[serde(flatten)]
    pub distance: DistanceFound,
}

/// How right a version was lately.
#[derive(Debug, Serialize, ToSchema)]
pub struct AccuracyState {
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
    get, path = "/admin/drift", tag = "admin", params(HowMuch),
    responses(
        (status = 200, body = DriftReport),
        (status = 503, body = Problem, content_type = "application/problem+json", description = "The server stops"),
    )
)]
pub async fn show(
    State(app): State<Arc<App>>,
    how_much: Result<Query<HowMuch>, QueryRejection>,
) -> Result<Json<DriftReport>, ApiError> {
    let wrong = || ApiError::at("windows", format!("the query can have `windows`, 0 to {KEPT_WINDOWS}"));
    let Query(HowMuch { windows }) = how_much.map_err(|_| wrong())?;
    let most = windows.unwrap_or(KEPT_WINDOWS);
    if most > KEPT_WINDOWS {
        return Err(wrong());
    }
    let snapshot = app.registry.snapshot();
    // Models go as the server stops: who asks must not take them for removed. Once seen here, none had gone before.
    if app.draining.load(Ordering::Relaxed) {
        return Err(ApiError::new(Code::ShuttingDown, "The server was told to stop."));
    }
    let accuracies = app.keeping.as_ref().map(|keeping| keeping.keeper().accuracies()).unwrap_or_default();
    let of = |name: &str, version: &str, state: &VersionState| {
        let loaded = if let VersionState::Ready(model) = state { Some(model) } else { None };
        let accuracy = accuracies.iter().find(|one| one.model == name && one.version == version);
        let compared = |drifting: &Drifting| Compared::of(drifting, drifting.report(), most);
        VersionDrift {
            model: name.to_owned(),
            version: version.to_owned(),
            state: state.name(),
            drift: loaded.and_then(|model| model.drifting()).map(compared),
            accuracy: accuracy.map(AccuracyState::of),
        }
    };
    let versions = snapshot.models.iter().flat_map(|(name, served)| {
        served.versions.iter().map(move |(version, state)| of(name, version.as_str(), state))
    });
    Ok(Json(DriftReport { versions: versions.collect() }))
}

impl Compared {
    fn of(drifting: &Drifting, report: Report, most: usize) -> Self {
        let Report { profile, settings, needed, open_texts, signals, windows } = report;
        Self {
            profile: ProfileFacts {
                accuracy: drifting.accuracy(),
                model: profile.model,
                version: profile.version,
                made: profile.made,
                texts: profile.texts,
            },
            window_texts: settings.texts,
            longest_seconds: settings.longest.map(|longest| longest.as_secs_f64()),
            needed,
            open_texts,
            signals: signals.into_iter().map(|(signal, since)| SignalState::of(&signal, since)).collect(),
            windows: windows
                .iter()
                .skip(windows.len().saturating_sub(most))
                .map(|(window, times)| ClosedWindow::of(window, *times))
                .collect(),
        }
    }
}

impl SignalState {
    fn of(report: &SignalReport, since: Option<SystemTime>) -> Self {
        Self {
            signal: report.signal.name(),
            level: report.level.name(),
            since: since.map(told),
            needed: report.needed,
            window: report.window,
            distance: report.distance.map(DistanceFound::from),
        }
    }
}

impl ClosedWindow {
    fn of(window: &Window, [opened, closed]: [SystemTime; 2]) -> Self {
        let judged = Signal::ALL.iter().zip(window.levels).zip(window.distances);
        let signal = |((signal, level), distance): ((&Signal, Level), Option<Distance>)| {
            Some(WindowSignal { signal: signal.name(), level: level.name(), distance: distance?.into() })
        };
        Self {
            number: window.number,
            texts: window.texts,
            opened: told(opened),
            closed: told(closed),
            signals: judged.filter_map(signal).collect(),
        }
    }
}

impl From<Distance> for DistanceFound {
    fn from(distance: Distance) -> Self {
        Self {
            value: distance.value,
            threshold: distance.threshold(),
            clear_below: distance.clear_below(),
            psi: distance.psi,
            js: distance.js,
        }
    }
}

impl AccuracyState {
    fn of(now: &AccuracyNow) -> Self {
        let AccuracyNow { labelled, expected, dropped, .. } = *now;
        Self { accuracy: now.accuracy(), labelled, expected, dropped }
    }
}

fn told(time: SystemTime) -> String {
    humantime::format_rfc3339_millis(time).to_string()
}
