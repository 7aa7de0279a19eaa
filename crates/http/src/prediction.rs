//! One prediction on the wire.

use predictd_experiments::counters::AnswerSource;
use predictd_inference::response::ItemAnswer;
use predictd_text::entities::Entity;
use predictd_text::heads::{HeadOutcome, top_k};
use serde::Serialize;
use utoipa::ToSchema;

use super::error::{ApiError, Code};

/// What a request wants to see of an answer.
#[derive(Debug, Clone, Copy)]
pub struct ResponseOptions {
    /// One score per label.
    pub probabilities: bool,
    /// The best labels, this many.
    pub top_k: Option<u32>,
    /// The model's own scores instead of probabilities.
    pub raw_scores: bool,
}

/// The answer to one text.
#[derive(Debug, Serialize, ToSchema)]
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
    /// Names this answer when its true label is told later. Good for 30 days.
    pub prediction_id: String,
    /// Tokens the model saw, special tokens included; words for a model that takes the text itself.
    pub tokens: usize,
    /// True if the model did not see the whole text.
    pub truncated: bool,
}

/// One value, or a list of them.
#[derive(Debug, Serialize, ToSchema)]
#[serde(untagged)]
pub enum OneOrMany<T> {
    /// Exactly one.
    One(T),
    /// Any number.
    Many(Vec<T>),
}

/// A label with its score.
#[derive(Debug, Serialize, ToSchema)]
pub struct LabelScore {
    /// The label.
    pub label: String,
    /// Its probability, or its raw score if those were asked for.
    pub score: f32,
}

/// Something that was found in a text.
#[derive(Debug, Serialize, ToSchema)]
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
#[derive(Debug, Serialize, ToSchema)]
pub struct ModelVersionName {
    /// Name of the model.
    pub name: String,
    /// Its version.
    pub version: String,
}

/// An arm of an experiment.
#[derive(Debug, Serialize, ToSchema)]
pub struct ArmAttribution {
    /// The experiment.
    pub name: String,
    /// The arm that the request was given to.
    pub arm: String,
    /// True if that arm failed, and the control answered.
    pub fell_back: bool,
}

impl Prediction {
    /// The wire form of an answer.
    ///
    /// # Errors
    /// [`ApiError`] if an answer names a label that the model does not have, which cannot happen
    /// with a model that was checked when it was loaded.
    pub fn from_answer(answer: ItemAnswer, options: ResponseOptions) -> Result<Self, ApiError> {
        let output = &answer.output.prediction;
        let scores = output.scores(options.raw_scores);
        let labels = answer.labels();
        let mut prediction = None;
        let mut confidence = None;
        let mut number = None;
        let mut entities = None;
        match &output.outcome {
            HeadOutcome::Label(index) => {
                let (label, score) = labelled_score(labels, &scores, *index)?;
                prediction = Some(OneOrMany::One(label));
                confidence = Some(OneOrMany::One(score));
            }
            HeadOutcome::Labels(indices) => {
                let chosen = indices.iter().map(|&index| labelled_score(labels, &scores, index));
                let (labels, scores) = chosen.collect::<Result<_, _>>()?;
                prediction = Some(OneOrMany::Many(labels));
                confidence = Some(OneOrMany::Many(scores));
            }
            HeadOutcome::Score(score) => {
                let raw = output.raw_scores.first().filter(|_| options.raw_scores);
                number = Some(*raw.unwrap_or(score));
            }
            HeadOutcome::Entities(found) => {
                let found = found.iter().cloned();
                let shown = found.map(|Entity { label, score, start, end, text }| FoundEntity {
                    label,
                    score,
                    start,
                    end,
                    text,
                });
                entities = Some(shown.collect());
            }
        }
        let has_labels = prediction.is_some();
        let top = options.top_k.filter(|_| has_labels).map(|k| best_labels(labels, &scores, k as usize)).transpose()?;
        let model = ModelVersionName { name: answer.model.name.clone(), version: answer.model.version.clone() };
        let fell_back = answer.source != AnswerSource::Arm;
        Ok(Self {
            prediction,
            confidence,
            score: number,
            entities,
            top,
            probabilities: (options.probabilities && has_labels).then_some(scores),
            model,
            experiment: answer.experiment_and_arm.map(|(name, arm)| ArmAttribution { name, arm, fell_back }),
            prediction_id: answer.prediction_id,
            tokens: answer.output.tokens,
            truncated: answer.output.truncated,
        })
    }
}

/// The label at this place, with its score.
fn labelled_score(labels: &[String], scores: &[f32], index: usize) -> Result<(String, f32), ApiError> {
    let label = labels.get(index).cloned().zip(scores.get(index).copied());
    label.ok_or_else(|| ApiError::new(Code::Internal, "The model's labels do not fit its scores."))
}

/// The best labels, at most `k`.
fn best_labels(labels: &[String], scores: &[f32], k: usize) -> Result<Vec<LabelScore>, ApiError> {
    let best = top_k(scores, k).into_iter().map(|(index, _)| labelled_score(labels, scores, index));
    best.map(|best| best.map(|(label, score)| LabelScore { label, score })).collect()
}
