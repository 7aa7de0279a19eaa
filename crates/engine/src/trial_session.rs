//! A session on trial: its model is checked and measured before it serves.

use std::error::Error;
use std::time::{Duration, Instant};

use predictd_text::heads::HeadOutput;
use predictd_text::input::Input;
use predictd_text::pipeline::{Batch, EncodedInput, Pipeline};
use predictd_text::tensors::Shape;
use predictd_text::tokenizer::Tokenizer;

use super::backend::{BackendError, Scores, Session};

/// Why a text cannot be tokenised, what the runtime says, or why its output cannot be an answer.
pub type TrialError = Box<dyn Error + Send + Sync>;

/// A session that runs texts of no client.
pub struct TrialSession<'a> {
    /// Tokenises the texts and decides.
    pub pipeline: &'a Pipeline,
    /// Runs the graph.
    pub session: &'a mut dyn Session,
    /// Time of one run.
    pub run_timeout: Duration,
}

impl TrialSession<'_> {
    /// One run.
    ///
    /// # Errors
    /// As [`Session::run`].
    pub fn run(&mut self, batch: &Batch) -> Result<Scores, BackendError> {
        self.session.run(batch, Instant::now() + self.run_timeout)
    }

    /// Tokens of the longest text; 1 where the graph takes the text itself.
    pub(super) fn max_tokens(&self) -> usize {
        self.pipeline.tokenizer().map_or(1, Tokenizer::max_tokens)
    }

    /// One batch of texts of one row each: their scores, a row for each text.
    pub(super) fn run_batch(&mut self, texts: &[&EncodedInput]) -> Result<Vec<Vec<f32>>, BackendError> {
        self.run_batch_within(texts, self.run_timeout)
    }

    /// The same with another time for the run.
    pub(super) fn run_batch_within(
        &mut self,
        texts: &[&EncodedInput],
        timeout: Duration,
    ) -> Result<Vec<Vec<f32>>, BackendError> {
        let batch = self.pipeline.batch(texts.iter().copied());
        Ok(self.session.run(&batch, Instant::now() + timeout)?.rows().collect())
    }

    /// One run of this shape.
    pub(super) fn run_shape(&mut self, shape: Shape) -> Result<(), BackendError> {
        // Runs of texts that this model refuses are not needed either.
        let Ok(text) = self.pipeline.cost_probe(shape.length) else { return Ok(()) };
        self.run_batch(&vec![&text; shape.rows.max(1)]).map(|_| ())
    }

    /// Tokenises and runs one text by itself, and decides.
    pub(super) fn predict_input(&mut self, input: Input) -> Result<HeadOutput, TrialError> {
        let encoded = self.pipeline.encode(input)?;
        self.predict(&encoded)
    }

    /// Runs one text by itself and decides.
    ///
    /// # Errors
    /// What the runtime says, or why its output cannot be an answer.
    pub fn predict(&mut self, encoded: &EncodedInput) -> Result<HeadOutput, TrialError> {
        let mut rows = Vec::new();
        let mut chosen = None;
        for batch in self.pipeline.batches(encoded) {
            let scores = self.run(&batch)?;
            rows.extend(scores.rows());
            chosen = scores.chosen_labels.first().copied().flatten();
        }
        Ok(self.pipeline.postprocess(encoded, rows, chosen)?)
    }
}
