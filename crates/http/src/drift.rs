//! `GET /admin/drift`: whether texts and answers are still like before, and how right those were.

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
use predictd_drift::{Divergence, DriftLevel, DriftSignal, SignalReport, WindowResult};
use predictd_engine::drift_monitor::{DriftMonitor, DriftStatus};
use predictd_metrics::drift::AccuracyStatus;
use predictd_registry::VersionState;
use serde::Deserialize;
use utoipa::IntoParams;

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
    // Models go as the server stops: a client must not take them for removed. Once seen here, none had gone before.
    if app.draining.load(Ordering::Relaxed) {
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
                state: state.name().to_owned(),
                drift: loaded
                    .and_then(|model| model.drift_monitor())
                    .map(|monitor| profile_comparison(monitor, monitor.report(), max_windows)),
                accuracy: accuracy.map(accuracy_view),
            });
        }
    }
    Ok(Json(DriftReportView { versions }))
}

fn profile_comparison(drifting: &DriftMonitor, report: DriftStatus, most: usize) -> ProfileComparison {
    let DriftStatus { profile, settings, min_window_items: needed, open_window_items: open_texts, signals, windows } =
        report;
    ProfileComparison {
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
        signals: signals.into_iter().map(|(signal, since)| signal_view(&signal, since)).collect(),
        windows: windows
            .iter()
            .skip(windows.len().saturating_sub(most))
            .map(|(window, times)| window_view(window, *times))
            .collect(),
    }
}

fn signal_view(report: &SignalReport, since: Option<SystemTime>) -> SignalView {
    SignalView {
        signal: report.signal.name().to_owned(),
        level: report.level.name().to_owned(),
        since: since.map(format_time),
        needed: report.min_window_texts,
        window: report.last_window,
        distance: report.divergence.map(distance_view),
    }
}

fn window_view(window: &WindowResult, [opened, closed]: [SystemTime; 2]) -> WindowView {
    let judged = DriftSignal::ALL.iter().zip(window.levels).zip(window.divergences);
    let signal = |((signal, level), distance): ((&DriftSignal, DriftLevel), Option<Divergence>)| {
        Some(WindowSignalView {
            signal: signal.name().to_owned(),
            level: level.name().to_owned(),
            distance: distance_view(distance?),
        })
    };
    WindowView {
        number: window.number,
        texts: window.texts,
        opened: format_time(opened),
        closed: format_time(closed),
        signals: judged.filter_map(signal).collect(),
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

fn accuracy_view(now: &AccuracyStatus) -> AccuracyView {
    let AccuracyStatus { labelled_answers: labelled, expected, has_dropped: dropped, .. } = *now;
    AccuracyView { accuracy: now.accuracy(), labelled, expected, dropped }
}

fn format_time(time: SystemTime) -> String {
    humantime::format_rfc3339_millis(time).to_string()
}
