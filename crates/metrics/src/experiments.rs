//! What experiments are counted by. Names of experiments and arms are an operator's.

use std::collections::BTreeSet;

use parking_lot::Mutex;
use prometheus::{Gauge, GaugeVec, IntCounterVec, Result};

use predictd_stats::to_f64;

use super::metric_factory::MetricFactory;

/// An arm at this moment.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ArmStatus<'a> {
    /// Its name.
    pub name: &'a str,
    /// Its part of the users.
    pub weight: f64,
    /// Answers with feedback.
    pub labelled: u64,
    /// The part of them that was right; 0 as long as there are none.
    pub accuracy: f64,
    /// 1 if it is better than the control, -1 if it is worse, 0 as long as that is not sure.
    pub better: f64,
}

/// The metrics of all experiments.
#[derive(Debug)]
pub struct ExperimentMetrics {
    requests: IntCounterVec,
    shadows: IntCounterVec,
    weight: GaugeVec,
    labelled: GaugeVec,
    accuracy: GaugeVec,
    better: GaugeVec,
    mismatch: GaugeVec,
    shadow_queue_items: Gauge,
    known_arms: Mutex<BTreeSet<(String, String)>>,
}

impl ExperimentMetrics {
    pub(super) fn new(metrics: MetricFactory<'_>) -> Result<Self> {
        const ARM_LABELS: [&str; 2] = ["experiment", "arm"];
        const OUTCOME_LABELS: [&str; 3] = ["experiment", "arm", "outcome"];
        Ok(Self {
            requests: metrics.counter_vec(
                "predictd_experiment_requests_total",
                "Requests that this process gave to an arm: answered by it, failed by it (the control answered then, if it could), or of a client that left before.",
                &OUTCOME_LABELS,
            )?,
            shadows: metrics.counter_vec(
                "predictd_shadow_items_total",
                "Texts for a shadow: the same labels (agreed), others (differed), an error (failed), or not shown because there was other work (skipped).",
                &OUTCOME_LABELS,
            )?,
            weight: metrics.gauge_vec("predictd_experiment_weight", "The arm's part of the users, 0 to 1.", &ARM_LABELS)?,
            labelled: metrics.gauge_vec(
                "predictd_experiment_labelled_predictions",
                "Answers of the arm in this phase whose true label was told, to any replica.",
                &ARM_LABELS,
            )?,
            accuracy: metrics.gauge_vec("predictd_experiment_accuracy", "The part of them that was right.", &ARM_LABELS)?,
            better: metrics.gauge_vec(
                "predictd_experiment_verdict",
                "1 for an arm that is better than the control however often one looks, -1 for one that is worse, 0 as long as that is not sure.",
                &ARM_LABELS,
            )?,
            mismatch: metrics.gauge_vec(
                "predictd_experiment_sample_ratio_mismatch",
                "1 if users are not spread over the arms as the weights say: nothing else counts then.",
                &["experiment"],
            )?,
            shadow_queue_items: metrics.gauge("predictd_shadow_queue_items", "Texts that wait to be shown to a shadow.")?,
            known_arms: Mutex::default(),
        })
    }

    /// What became of a request of an arm, in a word.
    pub fn record_request(&self, experiment: &str, arm: &str, outcome: &str) {
        self.requests.with_label_values(&[experiment, arm, outcome]).inc();
        self.remember_arm(experiment, arm);
    }

    fn remember_arm(&self, experiment: &str, arm: &str) {
        let mut seen = self.known_arms.lock();
        if !seen.iter().any(|(known, name)| known == experiment && name == arm) {
            seen.insert((experiment.to_owned(), arm.to_owned()));
        }
    }

    /// What became of a text for a shadow, in a word.
    pub fn record_shadow(&self, experiment: &str, arm: &str, outcome: &str) {
        self.shadows.with_label_values(&[experiment, arm, outcome]).inc();
        self.remember_arm(experiment, arm);
    }

    /// So many texts wait for shadows.
    pub fn set_shadow_queue_items(&self, texts: usize) {
        self.shadow_queue_items.set(to_f64(texts as u64));
    }

    /// What an experiment showed when it was looked at.
    pub fn set_results<'a>(&self, experiment: &str, arms: impl IntoIterator<Item = ArmStatus<'a>>, mismatch: bool) {
        let mut seen = self.known_arms.lock();
        for arm in arms {
            let names = [experiment, arm.name];
            seen.insert((experiment.to_owned(), arm.name.to_owned()));
            self.weight.with_label_values(&names).set(arm.weight);
            self.labelled.with_label_values(&names).set(to_f64(arm.labelled));
            self.accuracy.with_label_values(&names).set(arm.accuracy);
            self.better.with_label_values(&names).set(arm.better);
        }
        self.mismatch.with_label_values(&[experiment]).set(mismatch.into());
    }

    /// Only these run here: what was counted and measured of others goes.
    pub fn retain_experiments(&self, running: &BTreeSet<&str>) {
        self.known_arms.lock().retain(|(experiment, arm)| {
            if running.contains(experiment.as_str()) {
                return true;
            }
            for gauge in [&self.weight, &self.labelled, &self.accuracy, &self.better] {
                // It may be gone already.
                gauge.remove_label_values(&[experiment, arm]).ok();
            }
            for outcome in ["answered", "failed", "left", "agreed", "differed", "skipped"] {
                self.requests.remove_label_values(&[experiment, arm, outcome]).ok();
                self.shadows.remove_label_values(&[experiment, arm, outcome]).ok();
            }
            self.mismatch.remove_label_values(&[experiment]).ok();
            false
        });
    }
}
