//! How a model's answers compare with those that a file expects.

use predictd_stats::to_f64;
use predictd_text::heads::HeadOutcome;
use serde::{Deserialize, Serialize};

use super::answers::{MAX_LISTED_TEXTS, ModelAnswer, TimedAnswer};
use super::eval_set::{CaseUnit, EvalSet, expected_labels};

/// How many answers are right.
#[derive(Debug, Serialize, Deserialize)]
pub struct AccuracyReport {
    /// Texts that were asked.
    pub texts: usize,
    /// Those that got no answer: they count as wrong, and have no part in errors of numbers.
    pub unanswered: usize,
    /// Those with the expected label, labels or entities; with the expected scores, where the file names only those.
    pub right: Option<usize>,
    /// Their share; nothing where the answers are numbers of which no tolerance is known.
    pub accuracy: Option<f64>,
    /// Texts of a golden.json of which everything is as it says, scores included.
    pub reproduced: Option<usize>,
    /// Mean distance of a number from the expected one, for a model that answers with numbers.
    pub mean_absolute_error: Option<f64>,
    /// Largest distance.
    pub largest_error: Option<f64>,
    /// The first texts with another answer.
    pub first_differences: Vec<Mismatch>,
}

/// A text with another answer than expected.
#[derive(Debug, Serialize, Deserialize)]
pub struct Mismatch {
    /// Its number.
    pub number: usize,
    /// The label or labels that the file names.
    pub expected: Vec<String>,
    /// The model's answer, if it gave one.
    pub given: Option<ModelAnswer>,
    /// What is wrong with it.
    pub reason: String,
}

impl AccuracyReport {
    /// Compares; `labels` are the model's.
    #[must_use]
    pub fn new(questions: &EvalSet, answers: &[TimedAnswer], labels: &[String]) -> Self {
        let mut right = 0;
        let mut reproduced = 0;
        let mut unanswered = 0;
        let mut first_differences = Vec::new();
        let mut errors = Vec::new();
        for (question, answered) in questions.cases.iter().zip(answers) {
            let Some(expected) = &question.expected else { continue };
            let verdict = match &answered.outcome {
                Ok(decision) => {
                    if let (HeadOutcome::Score(found), Some(expected)) = (&decision.outcome, expected.score) {
                        errors.push(f64::from((found - expected).abs()));
                    }
                    let mut judged = expected.clone();
                    if judged.label.is_some() {
                        judged.scores.clear();
                    }
                    right += usize::from(judged.check(decision, labels, questions.tolerance).is_ok());
                    expected.check(decision, labels, questions.tolerance)
                }
                Err(why) => {
                    unanswered += 1;
                    Err(why.to_string())
                }
            };
            match verdict {
                Ok(()) => reproduced += 1,
                Err(reason) if questions.graded && first_differences.len() < MAX_LISTED_TEXTS => {
                    let given = answered.outcome.as_ref().ok();
                    first_differences.push(Mismatch {
                        number: question.number,
                        expected: expected_labels(expected).to_vec(),
                        given: given.map(|decision| ModelAnswer::from_decision(decision, labels)),
                        reason,
                    });
                }
                Err(_) => {}
            }
        }
        let texts = questions.cases.len();
        let right = questions.graded.then_some(right);
        Self {
            texts,
            unanswered,
            reproduced: (questions.unit == CaseUnit::Example).then_some(reproduced),
            right,
            accuracy: right.map(|right| share(right, texts)),
            mean_absolute_error: (!errors.is_empty()).then(|| mean(&errors)),
            largest_error: errors.iter().copied().reduce(f64::max),
            first_differences,
        }
    }
}

/// So many of all.
#[must_use]
pub fn share(part: usize, all: usize) -> f64 {
    to_f64(part as u64) / to_f64(all.max(1) as u64)
}

/// The mean of values; 0 of none.
#[must_use]
pub fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / to_f64(values.len().max(1) as u64)
}
