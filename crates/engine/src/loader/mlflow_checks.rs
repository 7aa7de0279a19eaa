//! Checks the MLflow metadata of a model against the model.

use predictd_text::manifest::{Manifest, ManifestError};
use predictd_text::mlmodel::{GraphTensor, MlflowExample};
use predictd_text::pipeline::EncodedInput;

use crate::backend::{GraphInfo, TensorInfo};
use crate::trial_session::{TrialError, TrialSession};

/// Most rows of an example that are run.
const MAX_EXAMPLE_ROWS: usize = 16;

/// Checks the signature, and runs the example.
pub(super) fn check_mlflow(
    trial: &mut TrialSession<'_>,
    manifest: &Manifest,
    facts: &GraphInfo,
) -> Result<(), ManifestError> {
    let Some(logged) = &manifest.mlflow else { return Ok(()) };
    let inputs: Vec<_> = facts.inputs.iter().map(signature_tensor).collect();
    let outputs: Vec<_> = facts.outputs.iter().map(signature_tensor).collect();
    logged.signature.check(&inputs, &outputs).map_err(|reason| ManifestError::new("MLmodel", reason))?;
    let outcome = match &logged.example {
        None => Ok(()),
        Some(MlflowExample::Texts(texts)) => texts
            .iter()
            .take(MAX_EXAMPLE_ROWS)
            .try_for_each(|text| trial.predict_input(text.clone().into()).map(|_| ())),
        Some(MlflowExample::TokenRows(rows)) => rows
            .iter()
            .take(MAX_EXAMPLE_ROWS)
            .try_for_each(|row| score_example(trial, &EncodedInput::from_row(row.clone()))),
    };
    outcome.map_err(|reason| ManifestError::new("MLmodel", format!("the input example cannot be scored: {reason}")))
}

fn score_example(trial: &mut TrialSession<'_>, encoded: &EncodedInput) -> Result<(), TrialError> {
    if trial.pipeline.tokenizer().is_none() {
        return Err("it holds tokens, and the graph takes texts".into());
    }
    for batch in trial.pipeline.batches(encoded) {
        if !trial.run(&batch)?.values.iter().all(|score| score.is_finite()) {
            return Err("a score is not a finite number".into());
        }
    }
    Ok(())
}

fn signature_tensor(port: &TensorInfo) -> GraphTensor<'_> {
    GraphTensor {
        name: &port.name,
        element: &port.element,
        dims: port.dims.iter().map(|dim| dim.parse().ok()).collect(),
    }
}
