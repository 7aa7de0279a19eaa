//! What an experiment shows, on the wire.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// What an experiment shows so far.
#[derive(Debug, Serialize, Deserialize)]
pub struct ExperimentResultsView {
    /// Its name.
    pub experiment: String,
    /// `draft`, `running`, `paused` or `ended`.
    pub state: String,
    /// The phase, from 1.
    pub phase: u32,
    /// When the phase began (RFC 3339).
    pub began: Option<String>,
    /// All of it in plain words.
    pub verdict: String,
    /// About how many users there were that said who they are.
    pub users: f64,
    /// Of those looked at, users whom several arms answered.
    pub users_in_several_arms: usize,
    /// The chance of such a spread of users over the arms, where it is so small that nothing else counts.
    pub mismatch: Option<f64>,
    /// The arms that answer.
    pub arms: Vec<ArmResultView>,
    /// The arms that only see texts.
    pub shadows: Vec<ShadowResultView>,
}

/// What an arm did.
#[derive(Debug, Serialize, Deserialize)]
pub struct ArmResultView {
    /// Its name.
    pub name: String,
    /// True for the one that others are compared with.
    pub control: bool,
    /// The model.
    pub model: String,
    /// The version.
    pub version: Option<String>,
    /// Its part of the users, 0 to 1.
    pub weight: f64,
    /// Its part of the requests so far.
    pub share: Option<f64>,
    /// Requests that it was given.
    pub requests: u64,
    /// Texts in them.
    pub texts: u64,
    /// Those of the requests that named no user.
    pub anonymous: u64,
    /// Requests that it failed, by the kind of error; the control answered them, if it could.
    pub failed: BTreeMap<String, u64>,
    /// Requests whose client left before it had answered.
    pub left: u64,
    /// How long it took for those that it answered, and how long clients waited who left.
    pub milliseconds: LatencyQuantiles,
    /// What feedback says of it.
    pub feedback: ArmFeedbackView,
    /// What feedback says of it and the control.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub against_control: Option<ControlComparisonView>,
}

/// What a shadow did.
#[derive(Debug, Serialize, Deserialize)]
pub struct ShadowResultView {
    /// Its name.
    pub name: String,
    /// The model.
    pub model: String,
    /// The version.
    pub version: Option<String>,
    /// The part of the texts that it is to see.
    pub weight: f64,
    /// Texts whose answers were compared.
    pub compared: u64,
    /// The part of them with the same labels.
    pub agreement: Option<f64>,
    /// The mean difference of the confidence in the label that was answered.
    pub distance: Option<f64>,
    /// Texts that it was not shown, because there was other work.
    pub skipped: u64,
    /// Texts that it failed.
    pub failed: u64,
    /// How long it took.
    pub milliseconds: LatencyQuantiles,
}

/// Times that parts of all stay within, to 5 %.
#[derive(Debug, Serialize, Deserialize)]
pub struct LatencyQuantiles {
    /// Half of them.
    pub p50: Option<f64>,
    /// 90 of 100.
    pub p90: Option<f64>,
    /// 99 of 100.
    pub p99: Option<f64>,
}

/// What feedback says of an arm.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct ArmFeedbackView {
    /// Answers with feedback, failed texts included.
    pub labelled: u64,
    /// Those that were right.
    pub correct: u64,
    /// Those that it failed: they count as wrong.
    pub failed: u64,
    /// The part that was right.
    pub accuracy: Option<f64>,
    /// What holds the accuracy with 95 %, for one look (Wilson).
    pub interval: [f64; 2],
    /// How far confidence and accuracy are apart on average (expected calibration error, 15 bins).
    pub calibration_error: Option<f64>,
    /// The mean F1 of all classes that were there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub macro_f1: Option<f64>,
    /// Every class.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub classes: Vec<ClassView>,
    /// The most frequent mistakes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub mistakes: Vec<ConfusionCellView>,
    /// All answers against all truths; `(no answer)` where the arm failed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub confusion: Vec<ConfusionCellView>,
    /// Answers by their confidence.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub calibration: Vec<CalibrationBinView>,
    /// True if there were too many different pairs of answer and truth: only the most frequent are in these lists.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub incomplete: bool,
}

/// A class.
#[derive(Debug, Serialize, Deserialize)]
pub struct ClassView {
    /// Its label.
    pub label: String,
    /// Of the answers with it, the part that was right.
    pub precision: Option<f64>,
    /// Of the texts of the class, the part that was recognised.
    pub recall: Option<f64>,
    /// The harmonic mean of both.
    pub f1: Option<f64>,
    /// Texts of the class.
    pub support: u64,
}

/// What was answered where something was true.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConfusionCellView {
    /// The true label.
    pub actual: String,
    /// The label that was answered.
    pub predicted: String,
    /// How often.
    pub count: u64,
}

/// Answers of similar confidence.
#[derive(Debug, Serialize, Deserialize)]
pub struct CalibrationBinView {
    /// Least and highest confidence.
    pub confidence: [f64; 2],
    /// How many.
    pub count: u64,
    /// The part that was right.
    pub accuracy: f64,
    /// Their mean confidence.
    pub mean_confidence: f64,
}

/// An arm against the control.
#[derive(Debug, Serialize, Deserialize)]
pub struct ControlComparisonView {
    /// In plain words.
    pub verdict: String,
    /// `better`, `worse` or `not-yet`, by what is known now.
    pub decision: String,
    /// Accuracy less that of the control.
    pub difference: Option<f64>,
    /// What holds the true difference, however often one looks.
    pub interval: Option<[f64; 2]>,
    /// The chance of such a difference where there is none, however often one looks.
    pub p: Option<f64>,
    /// Labelled answers that are still needed by plan, of the control and of the arm.
    pub needed: Option<[u64; 2]>,
    /// When one could be sure for the first time: this stands.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub decided: Option<FirstDecisionView>,
}

/// The first decision.
#[derive(Debug, Serialize, Deserialize)]
pub struct FirstDecisionView {
    /// Better than the control, or worse.
    pub better: bool,
    /// When (RFC 3339).
    pub at: String,
    /// What was said.
    pub verdict: String,
}
