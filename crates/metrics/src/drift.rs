//! Whether what model versions are asked, and how right they are, is still as it was.

use std::collections::BTreeSet;

use parking_lot::Mutex;
use prometheus::{GaugeVec, Result};

use predictd_stats::to_f64;

use super::metric_factory::MetricFactory;
use super::version_gauges::{SignalGauges, VersionGauges};

/// How right a model version was lately.
#[derive(Debug, Clone, PartialEq)]
pub struct AccuracyStatus {
    /// Name of the model.
    pub model: String,
    /// The version.
    pub version: String,
    /// Answers with feedback.
    pub labelled_answers: u64,
    /// Those of them that were right.
    pub correct: u64,
    /// The share that was right when the version was tried.
    pub expected: Option<f64>,
    /// The recent share is clearly lower; none as long as it is not known.
    pub has_dropped: Option<bool>,
}

impl AccuracyStatus {
    /// The share that was right; none without feedback.
    #[must_use]
    pub fn accuracy(&self) -> Option<f64> {
        (self.labelled_answers > 0).then(|| to_f64(self.correct) / to_f64(self.labelled_answers))
    }
}

/// What is true of drift at the moment of a scrape only.
#[derive(Debug)]
pub(super) struct DriftGauges {
    distance: GaugeVec,
    threshold: GaugeVec,
    drifting: GaugeVec,
}

impl DriftGauges {
    pub(super) fn new(metrics: MetricFactory<'_>) -> Result<Self> {
        let labels = ["model", "version", "signal"];
        Ok(Self {
            distance: metrics.gauge_vec(
                "predictd_drift_divergence",
                "How far the last window of texts was from the version's profile: PSI; for unknown tokens Cohen's h.",
                &labels,
            )?,
            threshold: metrics.gauge_vec(
                "predictd_drift_threshold",
                "The distance from which the signal drifts.",
                &labels,
            )?,
            drifting: metrics.gauge_vec(
                "predictd_drift_detected",
                "1 while live texts are not like those of the version's profile.",
                &labels,
            )?,
        })
    }

    /// Forgets what was true at the last scrape.
    pub(super) fn update(&self, versions: &[VersionGauges]) {
        let Self { distance, threshold, drifting } = self;
        [distance, threshold, drifting].into_iter().for_each(GaugeVec::reset);
        for version in versions {
            for SignalGauges { signal, is_drifting, distance: measured } in &version.signals {
                let names = [version.model.as_str(), version.version.as_str(), signal];
                drifting.with_label_values(&names).set((*is_drifting).into());
                if let Some((value, limit)) = measured {
                    distance.with_label_values(&names).set(*value);
                    threshold.with_label_values(&names).set(*limit);
                }
            }
        }
    }
}

/// How right model versions were lately.
#[derive(Debug)]
pub(super) struct AccuracyGauges {
    accuracy: GaugeVec,
    labelled: GaugeVec,
    expected: GaugeVec,
    dropped: GaugeVec,
    /// Versions that have gauges.
    known_versions: Mutex<BTreeSet<[String; 2]>>,
}

impl AccuracyGauges {
    pub(super) fn new(metrics: MetricFactory<'_>) -> Result<Self> {
        let labels = ["model", "version"];
        Ok(Self {
            accuracy: metrics.gauge_vec(
                "predictd_feedback_accuracy",
                "Share of right answers among the version's last 1,000 whose true label was told, of 30 days.",
                &labels,
            )?,
            labelled: metrics.gauge_vec(
                "predictd_feedback_labelled_predictions",
                "How many answers that is the share of.",
                &labels,
            )?,
            expected: metrics.gauge_vec(
                "predictd_accuracy_expected",
                "Share of right answers when the version was tried: as it was recorded, else that of its profile.",
                &labels,
            )?,
            dropped: metrics.gauge_vec(
                "predictd_accuracy_dropped",
                "1 while the accuracy is clearly below the expected one; nothing while that is not known.",
                &labels,
            )?,
            known_versions: Mutex::default(),
        })
    }

    pub(super) fn remove_version(&self, model: &str, version: &str) {
        for gauge in [&self.accuracy, &self.labelled, &self.expected, &self.dropped] {
            // Not each version has each of them.
            gauge.remove_label_values(&[model, version]).ok();
        }
    }

    /// Sets the gauges of these versions and removes those of others. A scrape meanwhile misses nothing.
    pub(super) fn update(&self, accuracies: &[AccuracyStatus]) {
        let mut known_versions = self.known_versions.lock();
        let versions: BTreeSet<[String; 2]> =
            accuracies.iter().map(|accuracy| [accuracy.model.clone(), accuracy.version.clone()]).collect();
        for [model, version] in known_versions.difference(&versions) {
            self.remove_version(model, version);
        }
        for accuracy in accuracies {
            let names = [accuracy.model.as_str(), accuracy.version.as_str()];
            for (gauge, value) in [
                (&self.accuracy, accuracy.accuracy()),
                (&self.labelled, Some(to_f64(accuracy.labelled_answers))),
                (&self.expected, accuracy.expected),
                (&self.dropped, accuracy.has_dropped.map(f64::from)),
            ] {
                match value {
                    Some(value) => gauge.with_label_values(&names).set(value),
                    None => _ = gauge.remove_label_values(&names),
                }
            }
        }
        *known_versions = versions;
    }
}
