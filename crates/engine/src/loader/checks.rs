//! The first runs of a model: what they must give before it serves.

use std::fmt;
use std::time::{Duration, Instant};

use predictd_text::activation::{Activation, AppliedActivation, are_distributions, are_probabilities, rows_differ};
use predictd_text::input::Input;
use predictd_text::manifest::{Manifest, ManifestError};
use predictd_text::signature::Signature;
use predictd_text::tokenizer::TokenizeError;

use super::cpu_retry::OpenedModel;
use super::mlflow_checks::check_mlflow;
use crate::backend::{BackendError, GraphInfo, Session};
use crate::batch_invariance::{ScoreTolerance, find_unbatchable_reason, item_scores, probe_run_timeout};
use crate::trial_session::{TrialError, TrialSession};

/// Longer text of the warm-up, in words.
const WARM_UP_WORDS: usize = 32;
/// Time to find the longest text that a graph takes.
const MAX_LENGTH_SEARCH_TIMEOUT: Duration = Duration::from_secs(20);
/// Texts whose scores tell whether the graph applies an activation itself.
const ACTIVATION_PROBE_COUNT: usize = 6;

/// Runs a model for the first time: its own examples, and texts alone and in batches. Why texts cannot share a batch, if
/// so. `run_timeout`: time of a run of the model's own examples and of long texts; probes get less.
///
/// # Errors
/// [`ManifestError`] naming the file that is not true, or why the graph fails.
pub(super) fn run_load_checks(
    opened: &mut OpenedModel,
    session: &mut dyn Session,
    run_timeout: Duration,
) -> Result<Option<&'static str>, ManifestError> {
    let facts = opened.graph.info();
    let unbatchable_reason = run_probes(opened, session, &facts, run_timeout)?;
    let OpenedModel { manifest, pipeline, .. } = opened;
    let mut trial = TrialSession { pipeline, session, run_timeout };
    check_mlflow(&mut trial, manifest, &facts)?;
    check_golden(&mut trial)?;
    warm_up(&mut trial).map_err(|reason| warm_up_error(manifest, reason))?;
    if fails_on_pairs(&mut trial) {
        pipeline.disable_pairs();
    }
    Ok(unbatchable_reason)
}

/// Finds by texts of no meaning what the graph's file does not say of it. Why texts cannot share a batch, if so.
///
/// Each probe gets the time that [`probe_run_timeout`] measures, `longest` at most.
fn run_probes(
    OpenedModel { manifest, graph, pipeline, placement, .. }: &mut OpenedModel,
    session: &mut dyn Session,
    facts: &GraphInfo,
    longest: Duration,
) -> Result<Option<&'static str>, ManifestError> {
    let failed = |reason: TrialError| warm_up_error(manifest, reason);
    let run_timeout =
        probe_run_timeout(&mut TrialSession { pipeline, session, run_timeout: longest }).map_err(failed)?;
    let mut probe = TrialSession { pipeline, session, run_timeout };
    if let Some(rows) = find_id_limit(&mut probe) {
        pipeline.limit_token_ids(rows)?;
    }
    let mut probe = TrialSession { pipeline, session, run_timeout };
    if manifest.options.activation.is_none()
        && let Some((applied, left)) = detect_activation(&mut probe).map_err(failed)?
    {
        pipeline.set_graph_activation(applied, left);
    }
    let tolerance = match manifest.options.allow_batch_influence {
        Some(true) => ScoreTolerance::UNLIMITED,
        _ => ScoreTolerance::new(facts, placement.is_gpu()),
    };
    let mut probe = TrialSession { pipeline, session, run_timeout };
    let unbatchable_reason = match declared_unbatchable_reason(manifest, graph.signature()) {
        None => find_unbatchable_reason(&mut probe, tolerance).map_err(failed)?,
        declared => declared,
    };
    if unbatchable_reason.is_some() {
        pipeline.disable_row_batching();
    }
    Ok(unbatchable_reason)
}

/// The error of a model whose first runs failed.
pub(super) fn warm_up_error(manifest: &Manifest, reason: impl fmt::Display) -> ManifestError {
    ManifestError::new(&manifest.graph_name, format!("the warm-up failed: {reason}"))
}

/// Why texts of a model must run alone, as far as its files say so.
fn declared_unbatchable_reason(manifest: &Manifest, signature: &Signature) -> Option<&'static str> {
    let allowed = manifest.options.allow_batch_influence.unwrap_or(false);
    if manifest.options.batching == Some(false) {
        Some("model.toml says batching = false")
    } else if signature.fixed_axes.single_row {
        Some("the graph takes one row at a time")
    } else {
        (signature.batch_dependent && !allowed).then_some("the graph scales by the whole batch")
    }
}

/// Recognises by its scores whether the graph applies a softmax itself, and whether it really does what its last node
/// seems to. The activation that it applies and the one that is left, if that is not what its file says.
fn detect_activation(
    trial: &mut TrialSession<'_>,
) -> Result<Option<(Option<AppliedActivation>, Activation)>, TrialError> {
    let pipeline = trial.pipeline;
    if pipeline.tokenizer().is_none() || pipeline.head().activation().is_none() {
        return Ok(None);
    }
    let mut rows = Vec::new();
    for seed in 0..ACTIVATION_PROBE_COUNT {
        let text = pipeline.probe_text(4 + 2 * seed, seed)?;
        // A text that fails alone shows nothing.
        let Ok(scores) = trial.run_batch(&[&text]) else { continue };
        let scores = item_scores(pipeline, &text, scores.first());
        rows.extend(scores.chunks(pipeline.score_width()).map(<[f32]>::to_vec));
    }
    Ok(match pipeline.applied_activation() {
        _ if rows.is_empty() => None,
        None if are_distributions(&rows) && rows_differ(&rows) => {
            Some((Some(AppliedActivation { activation: Activation::Softmax, is_exact: true }), Activation::None))
        }
        Some(applied) if !is_plausible_output(applied, &rows) => Some((None, pipeline.head().default_activation())),
        _ => None,
    })
}

/// Finds by runs how many ids a graph can look up, where its file does not say and it is not all.
fn find_id_limit(trial: &mut TrialSession<'_>) -> Option<usize> {
    let mut fails = trial.pipeline.largest_unchecked_id().filter(|&largest| is_out_of_bounds(trial, largest))?;
    let mut works = 0;
    while works + 1 < fails {
        let middle = works.midpoint(fails);
        if is_out_of_bounds(trial, middle) {
            fails = middle;
        } else {
            works = middle;
        }
    }
    Some(fails as usize)
}

/// True if the graph fails to look up this id.
fn is_out_of_bounds(trial: &mut TrialSession<'_>, id: u32) -> bool {
    let Ok(text) = trial.pipeline.encode_token_id(id) else { return false };
    matches!(trial.run_batch(&[&text]), Err(BackendError::OutOfBounds(_)))
}

/// Refuses a model whose graph fails on the longest text that the model's files allow.
///
/// # Errors
/// [`ManifestError`] with the length that works.
pub(super) fn check_max_length(trial: &mut TrialSession<'_>, manifest: &Manifest) -> Result<(), ManifestError> {
    let most = trial.max_tokens();
    let Err(reason) = run_with_length(trial, most) else { return Ok(()) };
    // The runs between a length that works and one that does not.
    let mut works = 0;
    let mut fails = most;
    let until = Instant::now() + MAX_LENGTH_SEARCH_TIMEOUT;
    while works + 1 < fails && Instant::now() < until {
        let middle = usize::midpoint(works, fails);
        match run_with_length(trial, middle) {
            Ok(()) => works = middle,
            Err(_) => fails = middle,
        }
    }
    let advice = match works {
        0 => "no length works".to_owned(),
        works => format!("texts of up to {works} tokens work: write max_tokens = {works} into model.toml"),
    };
    let reason = format!("a text of {most} tokens, as long as its files allow, fails ({reason}); {advice}");
    Err(ManifestError::new(&manifest.graph_name, reason))
}

/// Runs a text of so many tokens. One that takes too long says nothing of the graph.
fn run_with_length(trial: &mut TrialSession<'_>, length: usize) -> Result<(), BackendError> {
    match trial.run_shape(trial.pipeline.largest_batch_shape(length)) {
        Err(BackendError::Interrupted) => Ok(()),
        outcome => outcome,
    }
}

/// True if the graph fails on a pair, although the model's files allow pairs.
fn fails_on_pairs(trial: &mut TrialSession<'_>) -> bool {
    if !trial.pipeline.has_pair_support() {
        return false;
    }
    let input = Input::new("one short text".to_owned(), Some("another text".to_owned()));
    let Ok(encoded) = trial.pipeline.encode(input) else { return false };
    let Err(BackendError::Failed(reason) | BackendError::OutOfBounds(reason)) = trial.run_batch(&[&encoded]) else {
        return false;
    };
    tracing::warn!(reason, "text pairs disabled; graph failed on a pair");
    true
}

/// Runs the golden examples. The reason names an example by its number, not by its text.
pub(super) fn check_golden(trial: &mut TrialSession<'_>) -> Result<(), ManifestError> {
    let pipeline = trial.pipeline;
    let Some(golden) = pipeline.golden() else { return Ok(()) };
    golden.check().map_err(|reason| ManifestError::new("golden.json", reason))?;
    for (number, example) in (1..).zip(&golden.examples) {
        let outcome = if example.text_pair.is_some() && !pipeline.has_pair_support() {
            Err("it has two texts, and the model takes one".into())
        } else {
            let decision = trial.predict_input(example.input());
            decision.and_then(|decision| Ok(example.check(&decision, pipeline.labels(), golden.tolerance)?))
        };
        outcome
            .map_err(|reason: TrialError| ManifestError::new("golden.json", format!("example {number}: {reason}")))?;
    }
    Ok(())
}

/// Answers a long and a short text.
pub(super) fn warm_up(trial: &mut TrialSession<'_>) -> Result<(), TrialError> {
    match trial.pipeline.encode("word ".repeat(WARM_UP_WORDS)) {
        // A model may take fewer tokens than this and refuse longer texts.
        Err(TokenizeError::TooLong { .. } | TokenizeError::NoTokens) => {}
        long => _ = trial.predict(&long?)?,
    }
    let short = trial.pipeline.warmup_text()?;
    trial.predict(&short).map(|_| ())
}

/// True if these scores could be what the activation gives.
fn is_plausible_output(applied: AppliedActivation, rows: &[Vec<f32>]) -> bool {
    let sums_to_one = applied.activation == Activation::Softmax && applied.is_exact;
    are_probabilities(rows) && (!sums_to_one || are_distributions(rows))
}
