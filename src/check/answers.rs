//! How models answer: each text by itself, as one request after another gets it, and several in one run.

use std::time::{Duration, Instant};

use predictd_engine::loader::CHECK_RUN_TIMEOUT;
use predictd_engine::trial_session::TrialSession;
use predictd_http::settings::RequestLimits;
use predictd_http::validation::check_stored_text;
use predictd_text::entities::Entity;
use predictd_text::heads::{HeadOutcome, HeadOutput};
use predictd_text::input::{Input, SecondText};
use predictd_text::pipeline::{EncodedInput, Pipeline};
use serde::{Deserialize, Serialize};

use super::eval_set::{CaseUnit, EvalCase, EvalSet};
use super::loaded_model::LoadedModel;

/// Most texts that are listed.
pub const MAX_LISTED_TEXTS: usize = 20;

/// What came of a text.
pub struct TimedAnswer {
    /// As the graph got it; nothing if it was refused before.
    pub encoded: Option<EncodedInput>,
    /// The answer, or why there is none.
    pub outcome: Result<HeadOutput, AnswerError>,
    /// Time from text to answer.
    pub time: Duration,
}

/// Why a text has no answer.
#[derive(Debug, thiserror::Error)]
pub enum AnswerError {
    /// A server refuses it, whatever the graph would say.
    #[error("{0}")]
    Refused(String),
    /// The graph gives no answer.
    #[error("{0}")]
    Failed(String),
}

/// An answer in the model's own words.
#[derive(Debug, Serialize, Deserialize)]
pub struct ModelAnswer {
    /// The label; the labels of a multi-label model by name; entities as `KIND START..END`; none where the answer is a
    /// number.
    pub labels: Vec<String>,
    /// The probability of its only label, or the number that is the answer.
    pub score: Option<f32>,
}

impl std::fmt::Display for ModelAnswer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.labels.is_empty() && self.score.is_none() {
            return f.write_str("nothing");
        }
        f.write_str(&self.labels.join(" + "))?;
        match self.score {
            Some(score) if self.labels.is_empty() => write!(f, "{score:.4}"),
            Some(score) => write!(f, " ({score:.4})"),
            None => Ok(()),
        }
    }
}

impl ModelAnswer {
    /// What a decision says.
    #[must_use]
    pub fn from_decision(decision: &HeadOutput, labels: &[String]) -> Self {
        let name = |index: &usize| labels.get(*index).cloned().unwrap_or_default();
        match &decision.outcome {
            HeadOutcome::Label(index) => {
                Self { labels: vec![name(index)], score: decision.probabilities.get(*index).copied() }
            }
            HeadOutcome::Labels(indices) => {
                let mut labels: Vec<String> = indices.iter().map(name).collect();
                // Another model may have the same labels in another order.
                labels.sort_unstable();
                Self { labels, score: None }
            }
            HeadOutcome::Score(score) => Self { labels: Vec::new(), score: Some(*score) },
            HeadOutcome::Entities(found) => {
                let labels = found.iter().map(|Entity { label, start, end, .. }| format!("{label} {start}..{end}"));
                Self { labels: labels.collect(), score: None }
            }
        }
    }
}

/// A text without an answer.
#[derive(Debug, Serialize, Deserialize)]
pub struct UnansweredText {
    /// The number of the text.
    pub number: usize,
    /// Why.
    pub reason: String,
}

/// What there is to say about the texts that were asked.
#[derive(Debug, Serialize, Deserialize)]
pub struct EvalSummary {
    /// How many there are.
    pub count: usize,
    /// Where they are from.
    pub from: String,
    /// What their numbers count: `line`, `example` or `text`.
    pub unit: CaseUnit,
    /// Rows of the file without a text, which are not among them.
    pub without_text: usize,
    /// Those of which part was cut off.
    pub truncated: usize,
    /// Those that a server refuses.
    pub refused: usize,
    /// The first of them.
    pub first_refused: Vec<UnansweredText>,
    /// Those for which the graph gave no answer.
    pub failed: usize,
    /// The first of them.
    pub first_failed: Vec<UnansweredText>,
}

impl EvalSummary {
    /// What came of all texts.
    #[must_use]
    pub fn new(questions: &EvalSet, answers: &[TimedAnswer]) -> Self {
        let mut refused = Vec::new();
        let mut failed = Vec::new();
        for (question, answered) in questions.cases.iter().zip(answers) {
            let (list, reason) = match &answered.outcome {
                Ok(_) => continue,
                Err(AnswerError::Refused(reason)) => (&mut refused, reason),
                Err(AnswerError::Failed(reason)) => (&mut failed, reason),
            };
            list.push(UnansweredText { number: question.number, reason: reason.clone() });
        }
        Self {
            count: questions.cases.len(),
            from: questions.source.clone(),
            unit: questions.unit,
            without_text: questions.without_text,
            truncated: answers.iter().flat_map(|answered| &answered.encoded).filter(|e| e.is_truncated).count(),
            refused: refused.len(),
            first_refused: refused.into_iter().take(MAX_LISTED_TEXTS).collect(),
            failed: failed.len(),
            first_failed: failed.into_iter().take(MAX_LISTED_TEXTS).collect(),
        }
    }
}

/// Asks the models all texts, in turns: what the machine does meanwhile does not fall on one of them. One list of
/// answers for each model.
pub fn answer_all(
    questions: &EvalSet,
    models: &mut [&mut LoadedModel],
    limits: &RequestLimits,
) -> Vec<Vec<TimedAnswer>> {
    let mut all: Vec<Vec<TimedAnswer>> = models.iter().map(|_| Vec::with_capacity(questions.cases.len())).collect();
    for (turn, question) in questions.cases.iter().enumerate() {
        let mut pairs: Vec<_> = models.iter_mut().zip(&mut all).collect();
        if turn % 2 == 1 {
            pairs.reverse();
        }
        for (model, answers) in pairs {
            answers.push(answer_case(question, model, limits));
        }
    }
    all
}

/// Asks a model one text, as a server asks it.
pub fn answer_case(question: &EvalCase, model: &mut LoadedModel, limits: &RequestLimits) -> TimedAnswer {
    let start = Instant::now();
    let pipeline = model.model.pipeline();
    let (encoded, outcome) = match encode_input(question.input.clone(), pipeline, limits) {
        Ok(encoded) => {
            let mut trial = TrialSession { pipeline, session: model.session.as_mut(), run_timeout: CHECK_RUN_TIMEOUT };
            let decision = trial.predict(&encoded);
            (Some(encoded), decision.map_err(|error| AnswerError::Failed(error.to_string())))
        }
        Err(reason) => (None, Err(AnswerError::Refused(reason))),
    };
    TimedAnswer { encoded, outcome, time: start.elapsed() }
}

/// A text on the way that requests take.
fn encode_input(mut input: Input, pipeline: &Pipeline, limits: &RequestLimits) -> Result<EncodedInput, String> {
    if let Some(second) = input.second {
        if !pipeline.has_pair_support() {
            return Err("the model judges one text, not two".to_owned());
        }
        input.second = Some(SecondText { text: apply_policy(second.text, pipeline, limits)?, ..second });
    }
    input.text = apply_policy(input.text, pipeline, limits)?;
    pipeline.encode(input).map_err(|error| error.to_string())
}

fn apply_policy(text: String, pipeline: &Pipeline, limits: &RequestLimits) -> Result<String, String> {
    check_stored_text(&text, limits).map_err(|error| error.message.unwrap_or_default().into_owned())?;
    pipeline.policy().apply(text).map_err(|error| error.to_string())
}

/// By how much the scores of two answers differ at most: the probabilities of the labels that both models have, or the
/// numbers that are the answers. `there` gives the index of each of the first's labels among the second's.
#[must_use]
pub fn score_distance(one: &HeadOutput, other: &HeadOutput, there: &[Option<usize>]) -> Option<f32> {
    let pairs: Vec<(f32, f32)> = match (&one.outcome, &other.outcome) {
        (HeadOutcome::Score(one), HeadOutcome::Score(other)) => vec![(*one, *other)],
        (HeadOutcome::Entities(found), HeadOutcome::Entities(others)) if found.len() == others.len() => {
            found.iter().zip(others).map(|(one, other)| (one.score, other.score)).collect()
        }
        _ => {
            let pairs = one.probabilities.iter().zip(there);
            pairs.filter_map(|(one, place)| Some((*one, *other.probabilities.get((*place)?)?))).collect()
        }
    };
    pairs.into_iter().map(|(one, other)| (one - other).abs()).reduce(f32::max)
}
