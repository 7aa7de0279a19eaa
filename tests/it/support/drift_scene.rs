//! A server process with a drift profile: its texts, feedback, and the report of drift.

use std::path::{Path, PathBuf};

use predictd::api::drift::{AccuracyView, DriftReportView, ProfileComparison, VersionDriftView};
use predictd::api::predictions::{BatchAnswer, BatchItem};
use serde_json::{Value, json};

use crate::support::answers::{item_answer, label};
use crate::support::daemon::{Daemon, predictd};
use crate::support::daemon_requests::{get_ok, post, post_ok};
use crate::support::model_builder::sample_models::threshold_model;

/// A server's directories, with a model that answers `a` for texts whose numbers have a sum of 50 or more, else `b`.
pub(crate) struct DriftScene {
    pub(crate) models: tempfile::TempDir,
    pub(crate) data: tempfile::TempDir,
}

impl DriftScene {
    pub(crate) fn new() -> Self {
        let [models, data] = [(); 2].map(|()| tempfile::tempdir().unwrap());
        threshold_model().model().labels(&["a", "b"]).write(models.path(), "m", "1");
        Self { models, data }
    }

    /// With a profile of texts that are half `a`, half `b`; three of four answers to them are right.
    pub(crate) fn with_profile() -> Self {
        let scene = Self::new();
        scene.write_profile(&scene.version_dir());
        scene
    }

    /// The directory of the version.
    pub(crate) fn version_dir(&self) -> PathBuf {
        self.models.path().join("m").join("1")
    }

    pub(crate) fn write_profile(&self, directory: &Path) {
        let texts = self.data.path().join("texts.jsonl");
        let lines = ["a", "b", "b", "b"].into_iter().zip(["60", "10 20", "70", "12 22"]).cycle().take(400);
        let lines = lines.map(|(label, text)| json!({ "text": text, "label": label }).to_string() + "\n");
        std::fs::write(&texts, lines.collect::<String>()).unwrap();
        let output = predictd(&["profile", directory.to_str().unwrap(), "--texts", texts.to_str().unwrap()]).output();
        let output = output.unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }

    pub(crate) fn start(&self, options: &[&str]) -> Daemon {
        Daemon::start_with(self.models.path(), self.data.path(), options)
    }
}

/// Sends so many texts in one request: these, again and again. Returns the answers.
pub(crate) fn predict_texts(daemon: &Daemon, texts: &[&str], count: usize) -> Vec<BatchItem> {
    let texts: Vec<&str> = texts.iter().copied().cycle().take(count).collect();
    post_ok::<BatchAnswer>(daemon.address, "/batch_predict", &json!(texts)).results
}

/// Sends so many texts of the profile, and feedback on each answer: its label, or the other one.
pub(crate) fn post_feedback_on_profile_texts(daemon: &Daemon, count: usize, right: bool) {
    let feedback_item = |item: &BatchItem| {
        let answer = item_answer(item);
        let label = label(answer);
        let other = if label == "a" { "b" } else { "a" };
        json!({ "prediction_id": answer.prediction_id, "actual": if right { label } else { other } })
    };
    let items: Vec<Value> = predict_texts(daemon, &PROFILE_TEXTS, count).iter().map(feedback_item).collect();
    let answer = post(daemon.address, "/feedback", &json!(items));
    assert_eq!(answer.status, 200, "{answer:?}");
}

/// Texts like those of the profile.
pub(crate) const PROFILE_TEXTS: [&str; 4] = ["60", "10 20", "70", "12 22"];

/// How the only version stands.
pub(crate) fn drift_report(daemon: &Daemon) -> VersionDriftView {
    let mut versions = get_ok::<DriftReportView>(daemon.admin, "/admin/drift").versions;
    assert_eq!(versions.len(), 1, "{versions:?}");
    versions.remove(0)
}

/// How live texts of the only version compare with its profile.
pub(crate) fn profile_comparison(daemon: &Daemon) -> ProfileComparison {
    drift_report(daemon).drift.unwrap()
}

/// The accuracy of the only version; none before there is feedback or an expected accuracy.
pub(crate) fn reported_accuracy(daemon: &Daemon) -> Option<AccuracyView> {
    drift_report(daemon).accuracy
}

/// The accuracy that is expected of the only version.
pub(crate) fn expected_accuracy(daemon: &Daemon) -> Option<f64> {
    reported_accuracy(daemon)?.expected
}

/// Whether the accuracy of the only version dropped; none as long as that is unknown.
pub(crate) fn reported_drop(daemon: &Daemon) -> Option<bool> {
    reported_accuracy(daemon)?.dropped
}

/// The levels of `labels`, `confidence`, `lengths` and `unknown`.
pub(crate) fn signal_levels(daemon: &Daemon) -> Vec<String> {
    profile_comparison(daemon).signals.into_iter().map(|signal| signal.level).collect()
}
