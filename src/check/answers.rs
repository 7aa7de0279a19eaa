//! How models answer: each text by itself, as one request after another gets it, and several in one run.

use std::time::{Duration, Instant};

use serde::Serialize;

use super::opened::Opened;
use super::questions::{Question, Questions, Unit};
use crate::config::Limits;
use crate::engine::loading::{LONGEST_CHECK, decide_encoded};
use crate::http::checks::check_text;
use crate::text::heads::{Decision, Outcome};
use crate::text::input::{Input, Pair};
use crate::text::pipeline::{Encoded, Pipeline};

/// Most texts that are listed.
pub const LISTED: usize = 20;

/// What came of a text.
pub struct Answered {
    /// As the graph got it; nothing if it was refused before.
    pub encoded: Option<Encoded>,
    /// The answer, or why there is none.
    pub outcome: Result<Decision, Unanswered>,
    /// Time from text to answer.
    pub time: Duration,
}

/// Why a text has no answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Unanswered {
    /// A server refuses it, whatever the graph would say.
    Refused(String),
    /// The graph gives no answer.
    Failed(String),
}

impl Unanswered {
    /// Why, in a sentence.
    #[must_use]
    pub fn reason(&self) -> &str {
        match self {
            Self::Refused(reason) | Self::Failed(reason) => reason,
        }
    }
}

/// An answer in the model's own words.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Said {
    /// The label; the labels of a multi-label model by name; entities as `KIND START..END`; none where the answer is a
    /// number.
    pub labels: Vec<String>,
    /// The probability of its only label, or the number that is the answer.
    pub score: Option<f32>,
}

impl std::fmt::Display for Said {
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

impl Said {
    /// What a decision says.
    #[must_use]
    pub fn of(decision: &Decision, labels: &[String]) -> Self {
        let name = |index: &usize| labels.get(*index).cloned().unwrap_or_default();
        match &decision.outcome {
            Outcome::Label(index) => {
                Self { labels: vec![name(index)], score: decision.probabilities.get(*index).copied() }
            }
            Outcome::Labels(indices) => {
                let mut labels: Vec<String> = indices.iter().map(name).collect();
                // Another model may have the same labels in another order.
                labels.sort_unstable();
                Self { labels, score: None }
            }
            Outcome::Score(score) => Self { labels: Vec::new(), score: Some(*score) },
            Outcome::Entities(found) => {
                let label = |entity: &crate::text::entities::Entity| {
                    format!("{} {}..{}", entity.label, entity.start, entity.end)
                };
                Self { labels: found.iter().map(label).collect(), score: None }
            }
        }
    }
}

/// A text without an answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Nothing {
    /// The number of the text.
    pub number: usize,
    /// Why.
    pub reason: String,
}

/// What there is to say about the texts that were asked.
#[derive(Debug, Clone, Serialize)]
pub struct Summary {
    /// How many there are.
    pub count: usize,
    /// Where they are from.
    pub from: String,
    /// What their numbers count: `line`, `example` or `text`.
    pub unit: Unit,
    /// Rows of the file without a text, which are not among them.
    pub without: usize,
    /// Those of which part was cut off.
    pub truncated: usize,
    /// Those that a server refuses.
    pub refused: usize,
    /// The first of them.
    pub first_refused: Vec<Nothing>,
    /// Those for which the graph gave no answer.
    pub failed: usize,
    /// The first of them.
    pub first_failed: Vec<Nothing>,
}

impl Summary {
    /// What came of all texts.
    #[must_use]
    pub fn of(questions: &Questions, answers: &[Answered]) -> Self {
        let numbered = || questions.asked.iter().map(|question| question.number).zip(answers);
        let nothing = |wanted: fn(&Unanswered) -> bool| -> Vec<Nothing> {
            let found = numbered().filter_map(|(number, answered)| Some((number, answered.outcome.as_ref().err()?)));
            let found = found.filter(|(_, why)| wanted(why));
            found.map(|(number, why)| Nothing { number, reason: why.reason().to_owned() }).collect()
        };
        let mut refused = nothing(|why| matches!(why, Unanswered::Refused(_)));
        let mut failed = nothing(|why| matches!(why, Unanswered::Failed(_)));
        let counts = (refused.len(), failed.len());
        refused.truncate(LISTED);
        failed.truncate(LISTED);
        Self {
            count: questions.asked.len(),
            from: questions.from.clone(),
            unit: questions.unit,
            without: questions.without,
            truncated: answers.iter().filter_map(|answered| answered.encoded.as_ref()).filter(|e| e.truncated).count(),
            refused: counts.0,
            first_refused: refused,
            failed: counts.1,
            first_failed: failed,
        }
    }
}

/// Asks the models all texts, in turns: what the machine does meanwhile does not fall on one of them. One list of
/// answers for each model.
pub fn answers(questions: &Questions, models: &mut [&mut Opened], limits: &Limits) -> Vec<Vec<Answered>> {
    let mut all: Vec<Vec<Answered>> = models.iter().map(|_| Vec::with_capacity(questions.asked.len())).collect();
    for (turn, question) in questions.asked.iter().enumerate() {
        let mut pairs: Vec<_> = models.iter_mut().zip(&mut all).collect();
        if turn % 2 == 1 {
            pairs.reverse();
        }
        for (model, answers) in pairs {
            answers.push(answer(question, model, limits));
        }
    }
    all
}

/// Asks a model one text, as a server asks it.
pub fn answer(question: &Question, model: &mut Opened, limits: &Limits) -> Answered {
    let start = Instant::now();
    let pipeline = model.model.pipeline();
    let encoded = match encode(question.input.clone(), pipeline, limits) {
        Ok(encoded) => encoded,
        Err(reason) => {
            return Answered { encoded: None, outcome: Err(Unanswered::Refused(reason)), time: start.elapsed() };
        }
    };
    let decision = decide_encoded(pipeline, model.session.as_mut(), &encoded, LONGEST_CHECK);
    let time = start.elapsed();
    Answered { encoded: Some(encoded), outcome: decision.map_err(Unanswered::Failed), time }
}

/// A text on the way that requests take.
fn encode(input: Input, pipeline: &Pipeline, limits: &Limits) -> Result<Encoded, String> {
    let fit = |text: String| {
        check_text(&text, limits).map_err(|error| error.message.unwrap_or_default().into_owned())?;
        pipeline.policy().apply(text).map_err(|error| error.to_string())
    };
    let Input { text, pair } = input;
    if pair.is_some() && !pipeline.takes_pairs() {
        return Err("the model judges one text, not two".to_owned());
    }
    let pair = pair.map(|Pair { text, whole }| Ok::<_, String>(Pair { text: fit(text)?, whole })).transpose()?;
    pipeline.encode(Input { text: fit(text)?, pair }).map_err(|error| error.to_string())
}

/// By how much the scores of two answers differ at most: the probabilities of the labels that both models have, or the
/// numbers that are the answers. `there` tells the place of each of the first's labels among the second's.
#[must_use]
pub fn distance(one: &Decision, other: &Decision, there: &[Option<usize>]) -> Option<f32> {
    match (&one.outcome, &other.outcome) {
        (Outcome::Score(one), Outcome::Score(other)) => Some((one - other).abs()),
        (Outcome::Entities(found), Outcome::Entities(others)) if found.len() == others.len() => {
            found.iter().zip(others).map(|(one, other)| (one.score - other.score).abs()).reduce(f32::max)
        }
        _ => {
            let pairs = one.probabilities.iter().zip(there);
            let pairs = pairs.filter_map(|(one, place)| Some((one, other.probabilities.get((*place)?)?)));
            pairs.map(|(one, other)| (one - other).abs()).reduce(f32::max)
        }
    }
}
