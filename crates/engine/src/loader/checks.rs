//! The first runs of a model: what they must give before it serves.

use std::time::{Duration, Instant};

use predictd_text::activation::{Activation, AppliedActivation, are_distributions, are_probabilities, rows_differ};
use predictd_text::input::{Input, SecondText};
use predictd_text::manifest::{Manifest, ManifestError};
use predictd_text::pipeline::Pipeline;
use predictd_text::signature::Signature;
use predictd_text::tokenizer::{TokenizeError, Tokenizer};

use super::cpu_retry::OpenedModel;
use super::mlflow_checks;
use super::single_run::{predict_encoded, predict_input};
use crate::backend::{BackendError, Session};
use crate::batch_invariance::{InvarianceProbe, ScoreTolerance, probe_run_timeout};
use crate::calibration::{run_batch, run_shape};

/// Longer text of the warm-up, in words.
const WARM_UP_WORDS: usize = 32;
/// Time to find the longest text that a graph takes.
const MAX_LENGTH_SEARCH_TIMEOUT: Duration = Duration::from_secs(20);
/// Texts whose scores tell whether the graph applies an activation itself.
const ACTIVATION_PROBE_COUNT: usize = 6;

/// Runs a model for the first time: its own examples, and texts alone and in batches. Why texts cannot share a batch, if
/// so.
///
/// # Errors
/// [`ManifestError`] naming the file that is not true, or why the graph fails.
pub(super) fn run_load_checks(
    OpenedModel { manifest, graph, pipeline, placement }: &mut OpenedModel,
    session: &mut dyn Session,
    longest: Duration,
) -> Result<Option<&'static str>, ManifestError> {
    let facts = graph.info();
    let tolerance = match manifest.options.allow_batch_influence {
        Some(true) => ScoreTolerance::UNLIMITED,
        _ => ScoreTolerance::new(&facts, placement.is_gpu()),
    };
    let known_alone = declared_unbatchable_reason(manifest, graph.signature());
    let failed = |reason: String| ManifestError::new(&manifest.graph_name, format!("the warm-up failed: {reason}"));
    let probe_time = probe_run_timeout(pipeline, session, longest).map_err(failed)?;
    detect_max_token_id(pipeline, session, probe_time)?;
    if manifest.options.activation.is_none() {
        detect_activation(pipeline, session, probe_time).map_err(failed)?;
    }
    let why_alone = match known_alone {
        Some(reason) => Some(reason),
        None => InvarianceProbe { pipeline, session, tolerance, run_timeout: probe_time }
            .find_unbatchable_reason()
            .map_err(failed)?,
    };
    if why_alone.is_some() {
        pipeline.disable_row_batching();
    }
    mlflow_checks::check(manifest, &facts, pipeline, session, longest)?;
    check_golden(pipeline, session, longest)?;
    warm_up(pipeline, session, longest).map_err(failed)?;
    check_pairs(pipeline, session, longest);
    Ok(why_alone)
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
/// seems to.
fn detect_activation(pipeline: &mut Pipeline, session: &mut dyn Session, longest: Duration) -> Result<(), String> {
    if pipeline.tokenizer().is_none() || pipeline.head().activation().is_none() {
        return Ok(());
    }
    let mut rows = Vec::new();
    for seed in 0..ACTIVATION_PROBE_COUNT {
        let text = pipeline.probe_text(4 + 2 * seed, seed).map_err(|error| error.to_string())?;
        // A text that fails alone shows nothing.
        let Ok(scores) = run_batch(pipeline, session, &[&text], longest) else { continue };
        let own = text.row_length().unwrap_or(1);
        let scores = scores.first().map(|row| pipeline.unpadded_scores(row, own)).unwrap_or_default();
        rows.extend(scores.chunks(pipeline.score_width()).map(<[f32]>::to_vec));
    }
    if rows.is_empty() {
        return Ok(());
    }
    match pipeline.applied_activation() {
        None if are_distributions(&rows) && rows_differ(&rows) => {
            let applied = AppliedActivation { activation: Activation::Softmax, is_exact: true };
            pipeline.set_graph_activation(Some(applied), Activation::None);
        }
        Some(applied) if !is_plausible_output(applied, &rows) => {
            pipeline.set_graph_activation(None, pipeline.head().default_activation());
        }
        _ => {}
    }
    Ok(())
}

/// True if these scores could be what the activation gives.
fn is_plausible_output(applied: AppliedActivation, rows: &[Vec<f32>]) -> bool {
    let sums_to_one = applied.activation == Activation::Softmax && applied.is_exact;
    are_probabilities(rows) && (!sums_to_one || are_distributions(rows))
}

/// Finds by runs which ids a graph can look up, where its file does not say.
///
/// # Errors
/// [`ManifestError`] if a special token is not one of them.
fn detect_max_token_id(
    pipeline: &mut Pipeline,
    session: &mut dyn Session,
    longest: Duration,
) -> Result<(), ManifestError> {
    let Some(largest) = pipeline.largest_unchecked_id() else { return Ok(()) };
    if !is_out_of_bounds(pipeline, session, largest, longest) {
        return Ok(());
    }
    let mut works = 0;
    let mut fails = largest;
    while works + 1 < fails {
        let middle = works.midpoint(fails);
        if is_out_of_bounds(pipeline, session, middle, longest) {
            fails = middle;
        } else {
            works = middle;
        }
    }
    pipeline.limit_token_ids(fails as usize)
}

/// True if the graph fails to look up this id.
fn is_out_of_bounds(pipeline: &Pipeline, session: &mut dyn Session, id: u32, longest: Duration) -> bool {
    let Ok(text) = pipeline.encode_token_id(id) else { return false };
    matches!(run_batch(pipeline, session, &[&text], longest), Err(BackendError::OutOfBounds(_)))
}

/// Refuses a model whose graph fails on the longest text that the model's files allow.
///
/// # Errors
/// [`ManifestError`] with the length that works.
pub(super) fn check_max_length(
    manifest: &Manifest,
    pipeline: &Pipeline,
    session: &mut dyn Session,
    longest: Duration,
) -> Result<(), ManifestError> {
    let most = pipeline.tokenizer().map_or(1, Tokenizer::max_tokens);
    let Err(reason) = run_with_length(pipeline, session, most, longest) else { return Ok(()) };
    // The runs between a length that works and one that does not.
    let mut works = 0;
    let mut fails = most;
    let until = Instant::now() + MAX_LENGTH_SEARCH_TIMEOUT;
    while works + 1 < fails && Instant::now() < until {
        let middle = usize::midpoint(works, fails);
        match run_with_length(pipeline, session, middle, longest) {
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
fn run_with_length(
    pipeline: &Pipeline,
    session: &mut dyn Session,
    length: usize,
    longest: Duration,
) -> Result<(), String> {
    match run_shape(pipeline, session, pipeline.largest_batch_shape(length), longest) {
        Ok(()) | Err(BackendError::Interrupted) => Ok(()),
        Err(error) => Err(error.to_string()),
    }
}

/// Takes no pairs if the graph fails on one.
fn check_pairs(pipeline: &mut Pipeline, session: &mut dyn Session, longest: Duration) {
    if !pipeline.has_pair_support() {
        return;
    }
    let pair = SecondText { text: "another text".to_owned(), truncate_only_first: false };
    let input = Input { text: "one short text".to_owned(), second: Some(pair) };
    let Ok(encoded) = pipeline.encode(input) else { return };
    if let Err(BackendError::Failed(reason) | BackendError::OutOfBounds(reason)) =
        run_batch(pipeline, session, &[&encoded], longest)
    {
        tracing::warn!(reason, "text pairs disabled; graph failed on a pair");
        pipeline.disable_pairs();
    }
}

/// Runs the golden examples. The reason names an example by its number, not by its text.
pub(super) fn check_golden(
    pipeline: &Pipeline,
    session: &mut dyn Session,
    longest: Duration,
) -> Result<(), ManifestError> {
    let Some(golden) = pipeline.golden() else { return Ok(()) };
    golden.check().map_err(|reason| ManifestError::new("golden.json", reason))?;
    for (number, example) in (1..).zip(&golden.examples) {
        let error = |reason: String| ManifestError::new("golden.json", format!("example {number}: {reason}"));
        if example.text_pair.is_some() && !pipeline.has_pair_support() {
            return Err(error("it has two texts, and the model takes one".to_owned()));
        }
        let decision = predict_input(pipeline, session, example.input(), longest).map_err(error)?;
        example.check(&decision, pipeline.labels(), golden.tolerance).map_err(error)?;
    }
    Ok(())
}

/// Answers a long and a short text.
pub(super) fn warm_up(pipeline: &Pipeline, session: &mut dyn Session, longest: Duration) -> Result<(), String> {
    let long = "word ".repeat(WARM_UP_WORDS);
    // A model may take fewer tokens than this and refuse longer texts.
    if !matches!(pipeline.encode(long.clone()), Err(TokenizeError::TooLong { .. } | TokenizeError::NoTokens)) {
        predict_input(pipeline, session, long.into(), longest)?;
    }
    let short = pipeline.warmup_text().map_err(|error| error.to_string())?;
    predict_encoded(pipeline, session, &short, longest).map(|_| ())
}
