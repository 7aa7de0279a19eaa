//! Whether a text's answer depends on the texts that share its run.

use std::time::Instant;

use predictd_engine::loader::CHECK_RUN_TIMEOUT;
use predictd_text::heads::{HeadOutcome, HeadOutput};
use predictd_text::pipeline::EncodedInput;
use serde::{Deserialize, Serialize};

use super::answers::{MAX_LISTED_TEXTS, ModelAnswer, TimedAnswer, score_distance};
use super::eval_set::EvalSet;
use super::loaded_model::LoadedModel;

/// Tokens of a run with padding: more are no other test, and take much memory.
const MAX_BATCH_TOKENS: usize = 4_096;
/// A score may move by this much beside other texts, for each unit of its size above one: rounding, not another answer.
const SCORE_TOLERANCE: f32 = 1e-3;

/// What became of answers when texts shared runs.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct InvarianceReport {
    /// Texts that were asked alone and among others: those of one row.
    pub texts: usize,
    /// Most texts of a run.
    pub most_texts: usize,
    /// Answers whose labels differ.
    pub changed: usize,
    /// Answers with a score that differs by more than rounding explains: 0.001, for each unit of its size.
    pub moved: usize,
    /// The first of both.
    pub first_changed: Vec<AnswerChange>,
    /// Largest difference of a score.
    pub largest_score_difference: f32,
    /// Why the graph cannot run several texts at once, if it cannot.
    pub failed: Option<String>,
}

/// A text that is answered otherwise among others.
#[derive(Debug, Serialize, Deserialize)]
pub struct AnswerChange {
    /// Its number.
    pub number: usize,
    /// The answer when it ran alone.
    pub alone: ModelAnswer,
    /// The answer when it ran with others.
    pub together: ModelAnswer,
}

/// A text of one row: its number, the text as the graph gets it, and the answer when it ran alone.
type AnsweredText<'a> = (usize, &'a EncodedInput, &'a HeadOutput);

impl InvarianceReport {
    /// Runs the texts again, as they stand in their list, so that long ones share runs with short ones.
    ///
    /// `most_texts` is what a server would run together.
    pub fn measure(opened: &mut LoadedModel, questions: &EvalSet, answers: &[TimedAnswer], most_texts: usize) -> Self {
        let there: Vec<Option<usize>> = (0..opened.pipeline().labels().len()).map(Some).collect();
        let mut found = Self::default();
        let texts: Vec<AnsweredText<'_>> = questions
            .cases
            .iter()
            .zip(answers)
            .filter_map(|(question, answered)| {
                let encoded = answered.encoded.as_ref().filter(|encoded| encoded.row_length().is_some())?;
                Some((question.number, encoded, answered.outcome.as_ref().ok()?))
            })
            .collect();
        let mut rest = texts.as_slice();
        while let Some((run, others)) =
            rest.split_at_checked(count_fitting(rest, most_texts)).filter(|(run, _)| !run.is_empty())
        {
            rest = others;
            if let Err(reason) = found.run_batch(opened, run, &there) {
                found.failed = Some(reason);
                break;
            }
        }
        found
    }

    fn run_batch(
        &mut self,
        opened: &mut LoadedModel,
        run: &[AnsweredText<'_>],
        there: &[Option<usize>],
    ) -> Result<(), String> {
        let pipeline = opened.model.pipeline();
        let session = opened.session.as_mut();
        let batch = pipeline.batch(run.iter().map(|(_, encoded, _)| *encoded));
        let scores = session.run(&batch, Instant::now() + CHECK_RUN_TIMEOUT).map_err(|error| error.to_string())?;
        if scores.values.nrows() != run.len() {
            return Err(format!("it gave {} rows of scores for {} texts", scores.values.nrows(), run.len()));
        }
        // A graph that chooses none leaves this empty.
        let chosen = scores.chosen_labels.iter().copied().chain(std::iter::repeat(None));
        self.texts += run.len();
        self.most_texts = self.most_texts.max(run.len());
        for (((number, encoded, alone), row), chosen) in run.iter().zip(scores.values.rows()).zip(chosen) {
            let together =
                pipeline.postprocess(encoded, vec![row.to_vec()], chosen).map_err(|error| error.to_string())?;
            let difference = score_distance(alone, &together, there).unwrap_or_default();
            self.largest_score_difference = self.largest_score_difference.max(difference);
            let size = if let HeadOutcome::Score(score) = alone.outcome { score.abs().max(1.0) } else { 1.0 };
            let moved = difference > SCORE_TOLERANCE * size;
            self.moved += usize::from(moved);
            let alone = ModelAnswer::from_decision(alone, pipeline.labels());
            let together = ModelAnswer::from_decision(&together, pipeline.labels());
            let changed = alone.labels != together.labels;
            self.changed += usize::from(changed);
            if (changed || moved) && self.first_changed.len() < MAX_LISTED_TEXTS {
                self.first_changed.push(AnswerChange { number: *number, alone, together });
            }
        }
        Ok(())
    }
}

/// How many of these texts fit one run.
fn count_fitting(texts: &[AnsweredText<'_>], most_texts: usize) -> usize {
    let mut longest = 0;
    let fits = (1..).zip(texts).take(most_texts).take_while(|(count, (_, encoded, _))| {
        longest = longest.max(encoded.row_length().unwrap_or(1));
        *count == 1 || count * longest <= MAX_BATCH_TOKENS
    });
    fits.count()
}
