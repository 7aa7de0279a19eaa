//! `GET /admin/drift`: drift and accuracy of each version.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::SystemTime;

use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use predictd_api::drift::{
    AccuracyView, DistanceView, DriftReportView, ProfileComparison, ProfileView, SignalView, VersionDriftView,
    WindowSignalView, WindowView,
};
use predictd_drift::window::MAX_STORED_WINDOWS;
use predictd_drift::{Divergence, DriftSignal, SignalReport, WindowResult};
use predictd_engine::drift_monitor::{DriftMonitor, DriftStatus};
use predictd_metrics::drift::AccuracyStatus;
use predictd_registry::Snapshot;
use serde::Deserialize;

use super::error::{ApiError, Code};
use super::state::ModelState;

/// The query of the report.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DriftQuery {
    /// Windows of each version, the last ones, 0 to 24; 24 by default.
    windows: Option<usize>,
}

/// Whether texts and answers are like those of each version's profile, and how right the answers were.
#[utoipa::path(get, path = "/admin/drift")]
pub async fn show(
    State(models): State<Arc<ModelState>>,
    query: Result<Query<DriftQuery>, QueryRejection>,
) -> Result<Json<DriftReportView>, ApiError> {
    let windows = query.ok().map(|Query(DriftQuery { windows })| windows.unwrap_or(MAX_STORED_WINDOWS));
    let Some(max_windows) = windows.filter(|&windows| windows <= MAX_STORED_WINDOWS) else {
        let detail = format!("the query can have `windows`, 0 to {MAX_STORED_WINDOWS}");
        return Err(ApiError::at_pointer("windows", detail));
    };
    let snapshot = models.registry.snapshot();
    // Models are unloaded as the server stops: a client must not take them for removed. The snapshot is older than this check.
    if models.draining.load(Ordering::Relaxed) {
        return Err(ApiError::new(Code::ShuttingDown, "The server was told to stop."));
    }
    let accuracies = models.registry_runtime.as_ref().map(|runtime| runtime.services().accuracies());
    let versions = version_views(&snapshot, &accuracies.unwrap_or_default(), max_windows);
    Ok(Json(DriftReportView { versions }))
}

fn version_views(snapshot: &Snapshot, accuracies: &[AccuracyStatus], max_windows: usize) -> Vec<VersionDriftView> {
    let mut versions = Vec::new();
    for (name, served) in &snapshot.models {
        for (version, state) in &served.versions {
            let monitor = state.ready().and_then(|model| model.drift_monitor.as_ref());
            let accuracy =
                accuracies.iter().find(|accuracy| accuracy.model == *name && accuracy.version == version.as_str());
            versions.push(VersionDriftView {
                model: name.clone(),
                version: version.as_str().to_owned(),
                state: state.name().to_owned(),
                drift: monitor.map(|monitor| profile_comparison(monitor, max_windows)),
                accuracy: accuracy.map(accuracy_view),
            });
        }
    }
    versions
}

fn profile_comparison(monitor: &DriftMonitor, max_windows: usize) -> ProfileComparison {
    let DriftStatus { settings, min_window_items: needed, open_window_items: open_texts, signals, windows } =
        monitor.report();
    let profile = &monitor.profile;
    ProfileComparison {
        profile: ProfileView {
            accuracy: monitor.accuracy(),
            model: profile.model.clone(),
            version: profile.model_version.clone(),
            made: profile.made.clone(),
            texts: profile.texts,
        },
        window_texts: settings.texts,
        longest_seconds: settings.max_age.map(|max_age| max_age.as_secs_f64()),
        needed,
        open_texts,
        signals: signals.into_iter().map(signal_view).collect(),
        windows: windows.iter().skip(windows.len().saturating_sub(max_windows)).map(window_view).collect(),
    }
}

fn signal_view((report, since): (SignalReport, Option<SystemTime>)) -> SignalView {
    SignalView {
        signal: report.signal.name().to_owned(),
        level: report.level.name().to_owned(),
        since: since.map(format_time),
        needed: report.min_window_texts,
        window: report.last_window,
        distance: report.divergence.map(distance_view),
    }
}

fn window_view(&(window, [opened, closed]): &(WindowResult, [SystemTime; 2])) -> WindowView {
    let signals = DriftSignal::ALL.iter().zip(window.levels).zip(window.divergences);
    let signals = signals.filter_map(|((signal, level), distance)| {
        Some(WindowSignalView {
            signal: signal.name().to_owned(),
            level: level.name().to_owned(),
            distance: distance_view(distance?),
        })
    });
    WindowView {
        number: window.number,
        texts: window.texts,
        opened: format_time(opened),
        closed: format_time(closed),
        signals: signals.collect(),
    }
}

fn distance_view(distance: Divergence) -> DistanceView {
    DistanceView {
        value: distance.value,
        threshold: distance.threshold(),
        clear_below: distance.clear_threshold(),
        psi: distance.psi,
        js: distance.js,
    }
}

fn accuracy_view(status: &AccuracyStatus) -> AccuracyView {
    AccuracyView {
        accuracy: status.accuracy(),
        labelled: status.labelled_answers,
        expected: status.expected,
        dropped: status.has_dropped,
    }
}

fn format_time(time: SystemTime) -> String {
    humantime::format_rfc3339_millis(time).to_string()
}
