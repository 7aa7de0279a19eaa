//! Whether what a model version is asked is still like its profile: counted as texts are answered.

use std::time::{Duration, Instant, SystemTime};

use parking_lot::Mutex;

use super::loading::ModelSource;
use crate::clock;
use crate::drift::profile::Accuracy;
use crate::drift::{Drift, Level, Profile, Settings, Signal, SignalReport, Window, real};
use crate::metrics::drift::SignalNow;
use crate::metrics::model::ModelMetrics;
use crate::text::heads::{Decision, Head, Outcome};
use crate::text::manifest::ManifestError;
use crate::text::pipeline::Pipeline;
use crate::text::tokenizer::Tokenizer;

/// The file of a model directory.
pub const FILE: &str = "profile.json";

/// What is said of a profile of another graph.
pub const OF_ANOTHER: &str =
    "profile.json was made with another graph than this one: make it anew, or live texts may seem to drift";

/// Compares what a model version is asked with its profile.
#[derive(Debug)]
pub struct Drifting {
    names: [String; 2],
    profile: Facts,
    settings: Settings,
    began: (Instant, SystemTime),
    live: Mutex<Live>,
    metrics: ModelMetrics,
}

#[derive(Debug)]
struct Live {
    drift: Drift,
    /// When each signal came to its level; none if it was quiet from the start.
    since: [Option<Duration>; 4],
}

/// What a profile says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Facts {
    /// The model that answered.
    pub model: String,
    /// Its version.
    pub version: String,
    /// When.
    pub made: String,
    /// Texts that it was made of.
    pub texts: u64,
    /// How often the answers were right, if that was known.
    pub accuracy: Option<Accuracy>,
}

/// How it stands.
#[derive(Debug, Clone)]
pub struct Report {
    /// What the profile says of itself.
    pub profile: Facts,
    /// When a window closes.
    pub settings: Settings,
    /// Texts with which a window is judged by every signal.
    pub needed: u64,
    /// Texts in the open window.
    pub open_texts: u64,
    /// Each signal, and when it came to its level.
    pub signals: [(SignalReport, Option<SystemTime>); 4],
    /// The last windows, oldest first, with the times when they were opened and closed.
    pub windows: Vec<(Window, [SystemTime; 2])>,
}

impl Drifting {
    /// With no texts yet; nothing if the model has no profile.
    ///
    /// # Errors
    /// [`ManifestError`] naming the file, if the profile is not one of this model.
    pub(super) fn of(
        profile: Option<&Profile>,
        pipeline: &Pipeline,
        source: &ModelSource,
        (settings, metrics): (Settings, &ModelMetrics),
    ) -> Result<Option<Self>, ManifestError> {
        let Some((profile, drift)) =
            profile.map(|profile| Ok((profile, begun(profile, pipeline, settings)?))).transpose()?
        else {
            return Ok(None);
        };
        let Profile { model, model_version, made, texts, accuracy, .. } = profile.clone();
        let names = [source.name.clone(), source.version.clone()];
        let (window, needed) = (settings.texts, drift.needed());
        if window < needed {
            let (model, version) = (&source.name, &source.version);
            tracing::warn!(
                model,
                version,
                window,
                needed,
                "a window of --drift-window texts is too small for some signal of the profile: it is not judged"
            );
        }
        metrics.drift_begins();
        Ok(Some(Self {
            names,
            profile: Facts { model, version: model_version, made, texts, accuracy },
            settings,
            began: (Instant::now(), clock::now()),
            live: Mutex::new(Live { drift, since: [None; 4] }),
            metrics: metrics.clone(),
        }))
    }

    /// A text was answered so, now or from the cache.
    pub fn answered(&self, decision: &Decision, tokens: usize, unknown: usize) {
        let Some((label, confidence)) = counted(decision) else { return };
        self.observe(|drift, now| drift.record(now, label, confidence, tokens, unknown).copied());
    }

    /// Closes a window whose time is over, for when no more texts come.
    pub fn close_if_due(&self) {
        self.observe(|drift, now| drift.close_if_due(now).copied());
    }

    fn observe(&self, count: impl FnOnce(&mut Drift, Duration) -> Option<Window>) {
        let now = self.began.0.elapsed();
        let closed = {
            let mut live = self.live.lock();
            let closed = count(&mut live.drift, now);
            for (since, changed) in live.since.iter_mut().zip(closed.map(|window| window.changed).unwrap_or_default()) {
                *since = if changed { Some(now) } else { *since };
            }
            closed
        };
        if let Some(window) = closed {
            self.tell(&window);
        }
    }

    /// Counts a window that was judged by any signal, and logs what it changed.
    fn tell(&self, window: &Window) {
        if window.distances.iter().any(Option::is_some) {
            self.metrics.drift_window();
        }
        let [model, version] = &self.names;
        let changed = Signal::ALL.iter().zip(window.changed).zip(window.levels).zip(window.distances);
        for (((signal, _), level), distance) in changed.filter(|(((_, changed), _), _)| *changed) {
            let Some(distance) = distance else { continue };
            let (signal, number, texts) = (signal.name(), window.number, window.texts);
            let (value, threshold) = (distance.value, distance.threshold());
            match level {
                Level::Drifting => {
                    tracing::warn!(
                        model,
                        version,
                        signal,
                        value,
                        threshold,
                        window = number,
                        texts,
                        "live texts drift from the profile"
                    );
                }
                Level::Quiet => {
                    tracing::info!(
                        model,
                        version,
                        signal,
                        value,
                        threshold,
                        window = number,
                        texts,
                        "live texts are like the profile again"
                    );
                }
            }
        }
    }

    /// What the profile says of itself.
    #[must_use]
    pub fn profile(&self) -> &Facts {
        &self.profile
    }

    /// The share of right answers among the texts of the profile, if it was known.
    #[must_use]
    pub fn accuracy(&self) -> Option<f64> {
        let Accuracy { texts, correct } = self.profile.accuracy.filter(|accuracy| accuracy.texts > 0)?;
        Some(real(correct) / real(texts))
    }

    /// Each signal that there is, for metrics.
    #[must_use]
    pub fn signals_now(&self) -> Vec<SignalNow> {
        let signals = self.live.lock().drift.report();
        let there = signals.iter().filter(|signal| signal.needed.is_some());
        let now = |signal: &SignalReport| SignalNow {
            signal: signal.signal.name(),
            drifting: signal.level == Level::Drifting,
            distance: signal.distance.map(|distance| (distance.value, distance.threshold())),
        };
        there.map(now).collect()
    }

    /// How it stands.
    #[must_use]
    pub fn report(&self) -> Report {
        let at = |since: Duration| self.began.1 + since;
        let live = self.live.lock();
        let Live { drift, since: [labels, confidence, lengths, unknown] } = &*live;
        let [a, b, c, d] = drift.report();
        Report {
            profile: self.profile.clone(),
            settings: self.settings,
            needed: drift.needed(),
            open_texts: drift.open_texts(),
            signals: [(a, labels.map(at)), (b, confidence.map(at)), (c, lengths.map(at)), (d, unknown.map(at))],
            windows: drift.windows().map(|window| (*window, [at(window.opened), at(window.closed)])).collect(),
        }
    }
}

/// Refuses a profile that is not one of this model.
///
/// # Errors
/// [`ManifestError`] naming the file.
pub(super) fn check(profile: Option<&Profile>, pipeline: &Pipeline) -> Result<(), ManifestError> {
    profile.map_or(Ok(()), |profile| begun(profile, pipeline, Settings::default()).map(|_| ()))
}

fn begun(profile: &Profile, pipeline: &Pipeline, settings: Settings) -> Result<Drift, ManifestError> {
    let error = |reason: String| ManifestError::new(FILE, reason);
    if !has_labels(pipeline) {
        return Err(error("the model's answers are not labels of texts: there is nothing to compare".to_owned()));
    }
    if profile.unknown.is_some() && !counts_unknown(pipeline) {
        return Err(error("unknown: the model has no token for what its tokenizer does not know".to_owned()));
    }
    let reference = profile.reference(pipeline.labels()).map_err(|wrong| error(wrong.to_string()))?;
    Ok(Drift::new(reference, settings))
}

/// True if the answers are labels of texts, which can be counted.
#[must_use]
pub fn has_labels(pipeline: &Pipeline) -> bool {
    !pipeline.head().is_number() && !matches!(pipeline.head(), Head::Entities(..))
}

/// True if it is known which tokens the tokenizer does not know.
#[must_use]
pub fn counts_unknown(pipeline: &Pipeline) -> bool {
    pipeline.tokenizer().is_some_and(Tokenizer::has_unknown)
}

/// What is counted of an answer: the place of its label, of several the surest, and how sure that is. Nothing of an
/// answer that is no label of a text.
#[must_use]
pub fn counted(decision: &Decision) -> Option<(Option<usize>, f32)> {
    let probability = |place: usize| decision.probabilities.get(place).copied().unwrap_or_default();
    match &decision.outcome {
        Outcome::Label(place) => Some((Some(*place), probability(*place))),
        Outcome::Labels(places) => {
            let surest = places.iter().copied().max_by(|a, b| probability(*a).total_cmp(&probability(*b)));
            Some((surest, surest.map_or(0.0, probability)))
        }
        Outcome::Score(_) | Outcome::Entities(_) => None,
    }
}
