//! One text by itself, while a model is checked.

use std::time::{Duration, Instant};

use predictd_text::heads::HeadOutput;
use predictd_text::input::Input;
use predictd_text::pipeline::{EncodedInput, Pipeline};

use crate::backend::Session;

/// Tokenises and runs one text by itself.
///
/// # Errors
/// Why it cannot be tokenised, or as [`predict_encoded`].
pub(super) fn predict_input(
    pipeline: &Pipeline,
    session: &mut dyn Session,
    input: Input,
    run_timeout: Duration,
) -> Result<HeadOutput, String> {
    let encoded = pipeline.encode(input).map_err(|error| error.to_string())?;
    predict_encoded(pipeline, session, &encoded, run_timeout)
}

/// Runs one text by itself and decides.
///
/// # Errors
/// What the runtime says, or why its output cannot be an answer.
pub fn predict_encoded(
    pipeline: &Pipeline,
    session: &mut dyn Session,
    encoded: &EncodedInput,
    run_timeout: Duration,
) -> Result<HeadOutput, String> {
    let mut rows = Vec::new();
    let mut chosen = None;
    for batch in pipeline.batches(encoded) {
        let scores = session.run(&batch, Instant::now() + run_timeout).map_err(|error| error.to_string())?;
        rows.extend(scores.values.rows().into_iter().map(|row| row.to_vec()));
        chosen = scores.chosen_labels.first().copied().flatten();
    }
    pipeline.postprocess(encoded, rows, chosen).map_err(|error| error.to_string())
}
