//! Whether what a model version is asked is still like its profile: counted as texts are answered.

use std::time::{Duration, Instant, SystemTime};

use parking_lot::Mutex;
use predictd_drift::profile::ProfileAccuracy;
use predictd_drift::{DriftDetector, DriftLevel, DriftSignal, Profile, SignalReport, WindowResult, WindowSettings};
use predictd_metrics::SignalGauges;
use predictd_metrics::version_metrics::VersionMetrics;
use predictd_platform::clock;
use predictd_stats::to_f64;
use predictd_text::heads::{Head, HeadOutcome, HeadOutput};
use predictd_text::manifest::ManifestError;
use predictd_text::pipeline::Pipeline;

use super::model_source::ModelSource;

/// The file of a model directory.
pub const PROFILE_FILE: &str = "profile.json";

/// What is said of a profile of another graph.
pub const PROFILE_MISMATCH_WARNING: &str =
    "profile.json was made with another graph; make a new profile, or false drift may be detected";

/// Compares what a model version is asked with its profile.
pub struct DriftMonitor {
    /// What the profile says of itself.
    pub profile: ProfileMetadata,
    name_and_version: [String; 2],
    started_at: (Instant, SystemTime),
    state: Mutex<DriftMonitorState>,
    metrics: VersionMetrics,
}

struct DriftMonitorState {
    drift: DriftDetector,
    /// When each signal came to its level; none if it was quiet from the start.
    level_since: [Option<SystemTime>; 4],
}

/// What a profile says of itself. Its labels and counts, which may take much memory, are not kept.
pub struct ProfileMetadata {
    /// The model that answered.
    pub model: String,
    /// Its version.
    pub model_version: String,
    /// When.
    pub made: String,
    /// Texts that it was made of.
    pub texts: u64,
    /// How often the answers were right, if that was known.
    pub accuracy: Option<ProfileAccuracy>,
}

/// How it stands.
pub struct DriftStatus {
    /// When a window closes.
    pub settings: WindowSettings,
    /// Texts with which a window is judged by every signal.
    pub min_window_items: u64,
    /// Texts in the open window.
    pub open_window_items: u64,
    /// Each signal, and when it came to its level.
    pub signals: Vec<(SignalReport, Option<SystemTime>)>,
    /// The last windows, oldest first, with the times when they were opened and closed.
    pub windows: Vec<(WindowResult, [SystemTime; 2])>,
}

impl DriftMonitor {
    /// With no texts yet.
    pub(super) fn new(profile: Profile, drift: DriftDetector, source: &ModelSource, metrics: &VersionMetrics) -> Self {
        let ModelSource { name: model, version, .. } = source;
        let window = drift.settings.texts;
        let min_window = drift.min_window_texts();
        if window < min_window {
            tracing::warn!(
                model,
                version,
                window,
                min_window,
                "--drift-window too small for some drift signals; these signals not evaluated"
            );
        }
        metrics.init_drift_windows();
        let Profile { model: profile_model, model_version, made, texts, accuracy, .. } = profile;
        Self {
            profile: ProfileMetadata { model: profile_model, model_version, made, texts, accuracy },
            name_and_version: [model.clone(), version.clone()],
            started_at: (Instant::now(), clock::now()),
            state: Mutex::new(DriftMonitorState { drift, level_since: [None; 4] }),
            metrics: metrics.clone(),
        }
    }

    /// A text was answered so, now or from the cache.
    pub fn record(&self, decision: &HeadOutput, tokens: usize, unknown: usize) {
        let Some((label, confidence)) = observation(decision) else { return };
        self.update(|drift, now| drift.record(now, label, confidence, tokens, unknown));
    }

    /// Closes a window whose time is over, for when no more texts come.
    pub fn close_window_if_due(&self) {
        self.update(DriftDetector::close_if_due);
    }

    fn update(&self, count: impl FnOnce(&mut DriftDetector, Duration) -> Option<&WindowResult>) {
        let now = self.started_at.0.elapsed();
        let mut live = self.state.lock();
        let Some(window) = count(&mut live.drift, now).copied() else { return };
        for (since, changed) in live.level_since.iter_mut().zip(window.level_changed) {
            if changed {
                *since = Some(self.started_at.1 + now);
            }
        }
        drop(live);
        self.report_window(&window);
    }

    /// Counts a window that was judged by any signal, and logs what it changed.
    fn report_window(&self, window: &WindowResult) {
        if window.divergences.iter().any(Option::is_some) {
            self.metrics.record_drift_window();
        }
        let [model, version] = &self.name_and_version;
        let WindowResult { number, texts, .. } = *window;
        let signals = DriftSignal::ALL.iter().zip(window.level_changed).zip(window.levels).zip(window.divergences);
        for (((signal, changed), level), divergence) in signals {
            let Some(divergence) = divergence.filter(|_| changed) else { continue };
            let signal = signal.name();
            let value = divergence.value;
            let threshold = divergence.threshold();
            match level {
                DriftLevel::Drifting => {
                    tracing::warn!(model, version, signal, value, threshold, window = number, texts, "drift detected");
                }
                DriftLevel::Quiet => {
                    tracing::info!(model, version, signal, value, threshold, window = number, texts, "drift cleared");
                }
            }
        }
    }

    /// The share of right answers among the texts of the profile, if it was known.
    #[must_use]
    pub fn accuracy(&self) -> Option<f64> {
        let ProfileAccuracy { texts, correct } = self.profile.accuracy.filter(|accuracy| accuracy.texts > 0)?;
        Some(to_f64(correct) / to_f64(texts))
    }

    /// Each signal that there is, for metrics.
    #[must_use]
    pub fn current_signals(&self) -> Vec<SignalGauges> {
        let signals = self.state.lock().drift.signal_reports().into_iter();
        let evaluated = signals.filter(|signal| signal.min_window_texts.is_some());
        let statuses = evaluated.map(|signal| SignalGauges {
            signal: signal.signal.name(),
            is_drifting: signal.level == DriftLevel::Drifting,
            distance: signal.divergence.map(|distance| (distance.value, distance.threshold())),
        });
        statuses.collect()
    }

    /// How it stands.
    #[must_use]
    pub fn report(&self) -> DriftStatus {
        let DriftMonitorState { drift, level_since } = &*self.state.lock();
        let at = |since: Duration| self.started_at.1 + since;
        DriftStatus {
            settings: drift.settings,
            min_window_items: drift.min_window_texts(),
            open_window_items: drift.open_texts(),
            signals: drift.signal_reports().into_iter().zip(*level_since).collect(),
            windows: drift
                .stored_windows()
                .map(|window| (*window, [window.opened_at, window.closed_at].map(at)))
                .collect(),
        }
    }
}

/// Starts to compare with a profile.
///
/// # Errors
/// [`ManifestError`] naming the file, if the profile is not one of this model.
pub(super) fn start_drift(
    profile: &Profile,
    pipeline: &Pipeline,
    settings: WindowSettings,
) -> Result<DriftDetector, ManifestError> {
    let error = |reason: String| ManifestError::new(PROFILE_FILE, reason);
    if !has_labels(pipeline) {
        return Err(error("the model's answers are not labels of texts: there is nothing to compare".to_owned()));
    }
    if profile.unknown.is_some() && !has_unknown_token(pipeline) {
        return Err(error("unknown: the model has no token for what its tokenizer does not know".to_owned()));
    }
    let reference = profile.reference(pipeline.labels()).map_err(error)?;
    Ok(DriftDetector::new(reference, settings))
}

/// True if the answers are labels of texts, which can be counted.
#[must_use]
pub fn has_labels(pipeline: &Pipeline) -> bool {
    !pipeline.head().is_numeric() && !matches!(pipeline.head(), Head::Entities(..))
}

/// True if it is known which tokens the tokenizer does not know.
#[must_use]
pub fn has_unknown_token(pipeline: &Pipeline) -> bool {
    pipeline.tokenizer().is_some_and(|tokenizer| tokenizer.unknown_id.is_some())
}

/// What is counted of an answer: the index of its label, of several the surest, and how sure that is. Nothing of an
/// answer that is no label of a text.
#[must_use]
pub fn observation(decision: &HeadOutput) -> Option<(Option<usize>, f32)> {
    let probability = |label_index: usize| decision.probabilities.get(label_index).copied().unwrap_or_default();
    match &decision.outcome {
        HeadOutcome::Label(label_index) => Some((Some(*label_index), probability(*label_index))),
        HeadOutcome::Labels(places) => {
            let surest = places.iter().copied().max_by(|a, b| probability(*a).total_cmp(&probability(*b)));
            Some((surest, surest.map_or(0.0, probability)))
        }
        HeadOutcome::Score(_) | HeadOutcome::Entities(_) => None,
    }
}
