//! Whether what model versions are asked, and how right they are, is still as it was.

use std::collections::BTreeSet;

use parking_lot::Mutex;
use prometheus::{GaugeVec, Registry, opts};

use super::registration::register;
use super::version_status::{SignalStatus, VersionStatus};

/// How right a model version was lately.
#[derive(Debug, Clone, PartialEq)]
pub struct AccuracyStatus {
    /// Name of the model.
    pub model: String,
    /// The version.
    pub version: String,
    /// Answers whose true label was told.
    pub labelled_answers: u64,
    /// Those of them that were right.
    pub correct: u64,
    /// The share that was right when the version was tried.
    pub expected: Option<f64>,
    /// The recent share is clearly lower; none as long as it is not known.
    pub has_dropped: Option<bool>,
}

impl AccuracyStatus {
    /// The share that was right; none if nothing was told.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "a small number")]
    pub fn accuracy(&self) -> Option<f64> {
        (self.labelled_answers > 0).then(|| self.correct as f64 / self.labelled_answers as f64)
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
    pub(super) fn new(registry: &Registry) -> Result<Self, prometheus::Error> {
        let labels = ["model", "version", "signal"];
        let gauge = |name: &str, help: &str| register(registry, GaugeVec::new(opts!(name, help), &labels)?);
        Ok(Self {
            distance: gauge(
                "predictd_drift_divergence",
                "How far the last window of texts was from the version's profile: PSI; for unknown tokens Cohen's h.",
            )?,
            threshold: gauge("predictd_drift_threshold", "The distance from which the signal drifts.")?,
            drifting: gauge(
                "predictd_drift_detected",
                "1 while live texts are not like those of the version's profile.",
            )?,
        })
    }

    /// Forgets what was true at the last scrape.
    pub(super) fn update(&self, versions: &[VersionStatus]) {
        let Self { distance, threshold, drifting } = self;
        [distance, threshold, drifting].into_iter().for_each(GaugeVec::reset);
        for version in versions {
            for SignalStatus { signal, is_drifting: drifts, distance: found } in &version.signals {
                let names = [version.model.as_str(), version.version.as_str(), signal];
                drifting.with_label_values(&names).set(f64::from(u8::from(*drifts)));
                if let Some((value, limit)) = found {
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
    /// Versions that were put down last.
    known_versions: Mutex<BTreeSet<[String; 2]>>,
}

impl AccuracyGauges {
    pub(super) fn new(registry: &Registry) -> Result<Self, prometheus::Error> {
        let labels = ["model", "version"];
        let gauge = |name: &str, help: &str| register(registry, GaugeVec::new(opts!(name, help), &labels)?);
        Ok(Self {
            accuracy: gauge(
                "predictd_feedback_accuracy",
                "Share of right answers among the version's last 1,000 whose true label was told, of 30 days.",
            )?,
            labelled: gauge("predictd_feedback_labelled_predictions", "How many answers that is the share of.")?,
            expected: gauge(
                "predictd_accuracy_expected",
                "Share of right answers when the version was tried: as it was recorded, else that of its profile.",
            )?,
            dropped: gauge(
                "predictd_accuracy_dropped",
                "1 while the accuracy is clearly below the expected one; nothing while that is not known.",
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

    /// Puts down what was found, and forgets what is not found any more. A scrape meanwhile misses nothing.
    pub(super) fn update(&self, found: &[AccuracyStatus]) {
        let mut there = self.known_versions.lock();
        let now: BTreeSet<[String; 2]> = found.iter().map(|one| [one.model.clone(), one.version.clone()]).collect();
        for [model, version] in there.difference(&now) {
            self.remove_version(model, version);
        }
        for one in found {
            let names = [one.model.as_str(), one.version.as_str()];
            let set = |gauge: &GaugeVec, value: Option<f64>| match value {
                Some(value) => gauge.with_label_values(&names).set(value),
                None => _ = gauge.remove_label_values(&names),
            };
            set(&self.accuracy, one.accuracy());
            #[expect(clippy::cast_precision_loss, reason = "a small number")]
            set(&self.labelled, Some(one.labelled_answers as f64));
            set(&self.expected, one.expected);
            set(&self.dropped, one.has_dropped.map(|dropped| f64::from(u8::from(dropped))));
        }
        *there = now;
    }
}
