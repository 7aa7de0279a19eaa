//! An answer of the engine as a prediction on the wire.

use predictd_api::predictions::{ArmAttribution, FoundEntity, LabelScore, ModelVersionName, OneOrMany, Prediction};
use predictd_experiments::counters::AnswerSource;
use predictd_inference::response::{InferenceResponse, ItemAnswer};
use predictd_text::entities::Entity;
use predictd_text::heads::{HeadOutcome, top_k};

use super::call_error::CallError;
use super::error::{ApiError, Code};

/// What a request asks of its answers.
#[derive(Debug, Clone, Copy)]
pub struct ResponseOptions {
    /// One score per label.
    pub probabilities: bool,
    /// The best labels, this many.
    pub top_k: Option<u32>,
    /// The model's own scores instead of probabilities.
    pub raw_scores: bool,
}

/// The wire form of the next answer.
///
/// # Errors
/// [`CallError`] if there is none.
pub fn next_prediction(answers: &mut InferenceResponse, options: ResponseOptions) -> Result<Prediction, CallError> {
    Ok(to_prediction(answers.next_answer()?, options)?)
}

/// The wire form of an answer.
///
/// # Errors
/// [`ApiError`] if an answer names a label that the model does not have, which cannot happen
/// with a model that was checked when it was loaded.
fn to_prediction(answer: ItemAnswer, options: ResponseOptions) -> Result<Prediction, ApiError> {
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
            let labelled = indices.iter().map(|&index| labelled_score(labels, &scores, index));
            let (labels, scores) = labelled.collect::<Result<_, _>>()?;
            prediction = Some(OneOrMany::Many(labels));
            confidence = Some(OneOrMany::Many(scores));
        }
        HeadOutcome::Score(score) => {
            let raw = output.raw_scores.first().filter(|_| options.raw_scores);
            number = Some(*raw.unwrap_or(score));
        }
        HeadOutcome::Entities(found) => {
            let found = found.iter().cloned();
            let views =
                found.map(|Entity { label, score, start, end, text }| FoundEntity { label, score, start, end, text });
            entities = Some(views.collect());
        }
    }
    let has_labels = prediction.is_some();
    let top = options.top_k.filter(|_| has_labels).map(|k| best_labels(labels, &scores, k as usize)).transpose()?;
    let model = ModelVersionName { name: answer.model.name.clone(), version: answer.model.version.clone() };
    let fell_back = answer.source != AnswerSource::Arm;
    Ok(Prediction {
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

/// The label at this index, with its score.
fn labelled_score(labels: &[String], scores: &[f32], index: usize) -> Result<(String, f32), ApiError> {
    let label = labels.get(index).cloned().zip(scores.get(index).copied());
    label.ok_or_else(|| ApiError::new(Code::Internal, "The model's labels do not fit its scores."))
}

/// The best labels, at most `k`.
fn best_labels(labels: &[String], scores: &[f32], k: usize) -> Result<Vec<LabelScore>, ApiError> {
    let best = top_k(scores, k).into_iter().map(|(index, _)| labelled_score(labels, scores, index));
    best.map(|best| best.map(|(label, score)| LabelScore { label, score })).collect()
}
