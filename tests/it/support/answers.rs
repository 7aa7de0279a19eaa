//! Parts of answers that many tests look at.

use predictd::api::predictions::{BatchItem, ItemOutcome, OneOrMany, Prediction};
use predictd::api::problem::Problem;

/// The only label of an answer.
#[track_caller]
pub(crate) fn label(answer: &Prediction) -> &str {
    match &answer.prediction {
        Some(OneOrMany::One(label)) => label,
        _ => panic!("no single label: {answer:?}"),
    }
}

/// The labels of a multi-label answer.
#[track_caller]
pub(crate) fn labels(answer: &Prediction) -> &[String] {
    match &answer.prediction {
        Some(OneOrMany::Many(labels)) => labels,
        _ => panic!("no list of labels: {answer:?}"),
    }
}

/// The confidence in the only label of an answer.
#[track_caller]
pub(crate) fn confidence(answer: &Prediction) -> f64 {
    match &answer.confidence {
        Some(OneOrMany::One(confidence)) => f64::from(*confidence),
        _ => panic!("no single confidence: {answer:?}"),
    }
}

/// The confidence in each label of a multi-label answer.
#[track_caller]
pub(crate) fn confidences(answer: &Prediction) -> Vec<f64> {
    match &answer.confidence {
        Some(OneOrMany::Many(confidences)) => to_f64s(confidences),
        _ => panic!("no list of confidences: {answer:?}"),
    }
}

/// The probabilities or raw scores that were asked for.
#[track_caller]
pub(crate) fn probabilities(answer: &Prediction) -> Vec<f64> {
    to_f64s(answer.probabilities.as_deref().unwrap_or_else(|| panic!("no probabilities: {answer:?}")))
}

/// The number that a regression or scoring model gives.
#[track_caller]
pub(crate) fn score(answer: &Prediction) -> f64 {
    f64::from(answer.score.unwrap_or_else(|| panic!("no score: {answer:?}")))
}

fn to_f64s(numbers: &[f32]) -> Vec<f64> {
    numbers.iter().copied().map(f64::from).collect()
}

/// The answer to an item of a batch.
#[track_caller]
pub(crate) fn item_answer(item: &BatchItem) -> &Prediction {
    match &item.outcome {
        ItemOutcome::Answered(answer) => answer,
        ItemOutcome::Failed { error } => panic!("item {} has no answer: {error:?}", item.text_index),
    }
}

/// The error of an item of a batch.
#[track_caller]
pub(crate) fn item_error(item: &BatchItem) -> &Problem {
    match &item.outcome {
        ItemOutcome::Failed { error } => error,
        ItemOutcome::Answered(answer) => panic!("item {} has an answer: {answer:?}", item.text_index),
    }
}

/// What is wrong where: each pointer with its sentence.
pub(crate) fn field_errors(problem: &Problem) -> Vec<(&str, &str)> {
    problem.errors.iter().map(|error| (error.pointer.as_str(), error.detail.as_str())).collect()
}

/// The kind of a problem: the last part of its type.
pub(crate) fn kind(problem: &Problem) -> &str {
    problem.kind.trim_start_matches("/docs#")
}
