//! Checks the MLflow metadata of a model against the model.

use std::time::{Duration, Instant};

use predictd_text::manifest::{Manifest, ManifestError};
use predictd_text::mlmodel::{GraphTensor, MlflowExample};
use predictd_text::pipeline::{EncodedContent, EncodedInput, Pipeline};

use super::single_run::predict_input;
use crate::backend::{GraphInfo, Session, TensorInfo};

/// Most rows of an example that are run.
const MAX_EXAMPLE_ROWS: usize = 16;

/// Checks the signature, and runs the example.
pub(super) fn check(
    manifest: &Manifest,
    facts: &GraphInfo,
    pipeline: &Pipeline,
    session: &mut dyn Session,
    longest: Duration,
) -> Result<(), ManifestError> {
    let Some(logged) = &manifest.mlflow else { return Ok(()) };
    let inputs: Vec<_> = facts.inputs.iter().map(signature_tensor).collect();
    let outputs: Vec<_> = facts.outputs.iter().map(signature_tensor).collect();
    logged.signature.check(&inputs, &outputs).map_err(|reason| ManifestError::new("MLmodel", reason))?;
    let failed =
        |reason: String| ManifestError::new("MLmodel", format!("the input example cannot be scored: {reason}"));
    match &logged.example {
        None => Ok(()),
        Some(MlflowExample::Texts(texts)) => texts.iter().take(MAX_EXAMPLE_ROWS).try_for_each(|text| {
            predict_input(pipeline, session, text.clone().into(), longest).map(|_| ()).map_err(failed)
        }),
        Some(MlflowExample::TokenRows(rows)) => rows.iter().take(MAX_EXAMPLE_ROWS).try_for_each(|row| {
            let tokens = row.ids.len();
            let encoded = EncodedInput {
                content: EncodedContent::Rows(vec![row.clone()]),
                token_count: tokens,
                unknown_count: 0,
                is_truncated: false,
                spans: None,
            };
            score_example(pipeline, session, &encoded, longest).map_err(failed)
        }),
    }
}

fn signature_tensor(port: &TensorInfo) -> GraphTensor<'_> {
    GraphTensor {
        name: &port.name,
        element: &port.element,
        dims: port.dims.iter().map(|dim| dim.parse().ok()).collect(),
    }
}

fn score_example(
    pipeline: &Pipeline,
    session: &mut dyn Session,
    encoded: &EncodedInput,
    longest: Duration,
) -> Result<(), String> {
    if pipeline.tokenizer().is_none() {
        return Err("it holds tokens, and the graph takes texts".to_owned());
    }
    for batch in pipeline.batches(encoded) {
        let scores = session.run(&batch, Instant::now() + longest).map_err(|error| error.to_string())?;
        if !scores.values.iter().all(|score| score.is_finite()) {
            return Err("a score is not a finite number".to_owned());
        }
    }
    Ok(())
}
