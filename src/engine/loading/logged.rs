//! What whoever logged a model to MLflow says of it, held against the model.

use std::time::{Duration, Instant};

use super::decide;
use crate::engine::session::{GraphFacts, Port, Session};
use crate::text::manifest::{Manifest, ManifestError};
use crate::text::mlmodel::{Found, LoggedExample};
use crate::text::pipeline::{Content, Encoded, Pipeline};

/// Most rows of an example that are run.
const MOST_ROWS: usize = 16;

/// Checks the signature, and runs the example.
pub(super) fn check(
    manifest: &Manifest,
    facts: &GraphFacts,
    pipeline: &Pipeline,
    session: &mut dyn Session,
    longest: Duration,
) -> Result<(), ManifestError> {
    let Some(logged) = &manifest.logged else { return Ok(()) };
    let (inputs, outputs): (Vec<_>, Vec<_>) =
        (facts.inputs.iter().map(found).collect(), facts.outputs.iter().map(found).collect());
    logged.signature.check(&inputs, &outputs).map_err(|reason| ManifestError::new("MLmodel", reason))?;
    let failed =
        |reason: String| ManifestError::new("MLmodel", format!("the input example cannot be scored: {reason}"));
    match &logged.example {
        None => Ok(()),
        Some(LoggedExample::Texts(texts)) => texts
            .iter()
            .take(MOST_ROWS)
            .try_for_each(|text| decide(pipeline, session, text.clone().into(), longest).map(|_| ()).map_err(failed)),
        Some(LoggedExample::Rows(rows)) => rows.iter().take(MOST_ROWS).try_for_each(|row| {
            let tokens = row.ids.len();
            let encoded = Encoded {
                content: Content::Rows(vec![row.clone()]),
                tokens,
                unknown: 0,
                truncated: false,
                places: None,
            };
            score(pipeline, session, &encoded, longest).map_err(failed)
        }),
    }
}

fn found(port: &Port) -> Found<'_> {
    Found { name: &port.name, element: &port.element, dims: port.dims.iter().map(|dim| dim.parse().ok()).collect() }
}

fn score(pipeline: &Pipeline, session: &mut dyn Session, encoded: &Encoded, longest: Duration) -> Result<(), String> {
    if pipeline.tokenizer().is_none() {
        return Err("it holds tokens, and the graph takes texts".to_owned());
    }
    for batch in pipeline.runs(encoded) {
        let scores = session.run(&batch, Instant::now() + longest).map_err(|error| error.to_string())?;
        if !scores.values.iter().all(|score| score.is_finite()) {
            return Err("a score is not a finite number".to_owned());
        }
    }
    Ok(())
}
