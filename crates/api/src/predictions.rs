//! The answers of `POST /predict` and `POST /batch_predict`.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::problem::Problem;

/// The answer to one text.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct Prediction {
    /// The label; a list of labels for a multi-label model; left out for regression.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prediction: Option<OneOrMany<String>>,
    /// Probability of the label, or of each of the labels; raw scores if those were asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub confidence: Option<OneOrMany<f32>>,
    /// The number that a regression or scoring model gives.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub score: Option<f32>,
    /// What a model that labels tokens found in the text, in its order.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub entities: Option<Vec<FoundEntity>>,
    /// One probability (or raw score) per label, in the order of the labels at /models/{name}.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub probabilities: Option<Vec<f32>>,
    /// The best labels, best first.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub top: Option<Vec<LabelScore>>,
    /// Which model answered.
    pub model: ModelVersionName,
    /// The experiment that chose the version.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub experiment: Option<ArmAttribution>,
    /// Identifies this answer in feedback. Valid for 30 days.
    pub prediction_id: String,
    /// Tokens the model saw, special tokens included; words for a model that takes the text itself.
    pub tokens: usize,
    /// True if the model did not see the whole text.
    pub truncated: bool,
}

/// One value, or a list of them.
#[derive(Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(untagged)]
pub enum OneOrMany<T> {
    /// Exactly one.
    One(T),
    /// Any number.
    Many(Vec<T>),
}

/// A label with its score.
#[derive(Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct LabelScore {
    /// The label.
    pub label: String,
    /// Its probability, or its raw score if those were asked for.
    pub score: f32,
}

/// Something that was found in a text.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct FoundEntity {
    /// Its kind, or its whole label where tokens stand by themselves.
    pub label: String,
    /// Probability of the label, the mean over its tokens or words.
    pub score: f32,
    /// Where it begins, in Unicode code points from the beginning of the text.
    pub start: usize,
    /// Where it ends: the code point after its last.
    pub end: usize,
    /// What stands there.
    pub text: String,
}

/// A model version.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ModelVersionName {
    /// Name of the model.
    pub name: String,
    /// Its version.
    pub version: String,
}

/// An arm of an experiment.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ArmAttribution {
    /// The experiment.
    pub name: String,
    /// The arm that the request was given to.
    pub arm: String,
    /// True if that arm failed, and the control answered.
    pub fell_back: bool,
}

/// The answers, in the order of the texts.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct BatchAnswer {
    /// One per text.
    pub results: Vec<BatchItem>,
}

/// The answer to one text of a batch, or why there is none.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct BatchItem {
    /// Place of the text in the request, from 0.
    pub text_index: usize,
    /// The answer, or the error of this text.
    #[serde(flatten)]
    pub outcome: ItemOutcome,
}

/// What became of one text.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(untagged)]
pub enum ItemOutcome {
    /// It was answered.
    Answered(Box<Prediction>),
    /// It could not be answered; the other texts are not concerned.
    Failed {
        /// Why.
        error: Box<Problem>,
    },
}
