//! Whether a text's answer depends on the texts that share its run.

use std::time::Instant;

use serde::Serialize;

use super::answers::{Answered, LISTED, Said, distance};
use super::opened::Opened;
use super::questions::Questions;
use crate::engine::loading::LONGEST_CHECK;
use crate::text::heads::Outcome;
use crate::text::pipeline::Encoded;

/// Tokens of a run with padding: more are no other test, and take much memory.
const MOST_TOKENS: usize = 4_096;
/// A score may move by this much beside other texts, for each unit of its size above one: rounding, not another answer.
const ROUNDING: f32 = 1e-3;

/// What became of answers when texts shared runs.
#[derive(Debug, Clone, Serialize)]
pub struct Invariance {
    /// Texts that were asked alone and among others: those of one row.
    pub texts: usize,
    /// Most texts of a run.
    pub most_texts: usize,
    /// Answers whose labels differ.
    pub changed: usize,
    /// Answers with a score that differs by more than rounding explains: 0.001, for each unit of its size.
    pub moved: usize,
    /// The first of both.
    pub first_changed: Vec<Change>,
    /// Largest difference of a score.
    pub largest_score_difference: f32,
    /// Why the graph cannot run several texts at once, if it cannot.
    pub failed: Option<String>,
}

/// A text that is answered otherwise among others.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Change {
    /// Its number.
    pub number: usize,
    /// The answer when it ran alone.
    pub alone: Said,
    /// The answer when it ran with others.
    pub together: Said,
}

impl Invariance {
    /// Runs the texts again, as they stand in their list, so that long ones share runs with short ones.
    ///
    /// `most_texts` is what a server would run together.
    pub fn measure(opened: &mut Opened, questions: &Questions, answers: &[Answered], most_texts: usize) -> Self {
        let there: Vec<Option<usize>> = (0..opened.pipeline().labels().len()).map(Some).collect();
        let mut found = Self {
            texts: 0,
            most_texts: 0,
            changed: 0,
            moved: 0,
            first_changed: Vec::new(),
            largest_score_difference: 0.0,
            failed: None,
        };
        let numbers = questions.asked.iter().map(|question| question.number);
        let texts: Vec<(usize, &Encoded, &Answered)> = numbers
            .zip(answers)
            .filter(|(_, answered)| answered.outcome.is_ok())
            .filter_map(|(number, answered)| Some((number, answered.encoded.as_ref()?, answered)))
            .filter(|(_, encoded, _)| encoded.row_length().is_some())
            .collect();
        let mut rest = texts.as_slice();
        while let Some((run, others)) =
            rest.split_at_checked(fitting(rest, most_texts)).filter(|(run, _)| !run.is_empty())
        {
            rest = others;
            if let Err(reason) = found.run(opened, run, &there) {
                found.failed = Some(reason);
                break;
            }
        }
        found
    }

    fn run(
        &mut self,
        opened: &mut Opened,
        run: &[(usize, &Encoded, &Answered)],
        there: &[Option<usize>],
    ) -> Result<(), String> {
        let (pipeline, session) = (opened.model.pipeline(), opened.session.as_mut());
        let batch = pipeline.batch(run.iter().map(|(_, encoded, _)| *encoded));
        let scores = session.run(&batch, Instant::now() + LONGEST_CHECK).map_err(|error| error.to_string())?;
        if scores.values.nrows() != run.len() {
            return Err(format!("it gave {} rows of scores for {} texts", scores.values.nrows(), run.len()));
        }
        // A graph that chooses none leaves this empty.
        let chosen = scores.chosen.iter().copied().chain(std::iter::repeat(None));
        self.texts += run.len();
        self.most_texts = self.most_texts.max(run.len());
        for (((number, encoded, alone), row), chosen) in run.iter().zip(scores.values.rows()).zip(chosen) {
            let together = pipeline.decide(encoded, vec![row.to_vec()], chosen).map_err(|error| error.to_string())?;
            let Ok(alone) = &alone.outcome else { continue };
            let difference = distance(alone, &together, there).unwrap_or_default();
            self.largest_score_difference = self.largest_score_difference.max(difference);
            let size = if let Outcome::Score(score) = &alone.outcome { score.abs().max(1.0) } else { 1.0 };
            let moved = difference > ROUNDING * size;
            self.moved += usize::from(moved);
            let (alone, together) = (Said::of(alone, pipeline.labels()), Said::of(&together, pipeline.labels()));
            let changed = alone.labels != together.labels;
            self.changed += usize::from(changed);
            if (changed || moved) && self.first_changed.len() < LISTED {
                self.first_changed.push(Change { number: *number, alone, together });
            }
        }
        Ok(())
    }
}

/// How many of these texts fit one run.
fn fitting(texts: &[(usize, &Encoded, &Answered)], most_texts: usize) -> usize {
    let mut longest = 0;
    let fits = (1..).zip(texts).take(most_texts).take_while(|(count, (_, encoded, _))| {
        longest = longest.max(encoded.row_length().unwrap_or(1));
        *count == 1 || count * longest <= MOST_TOKENS
    });
    fits.count()
}
