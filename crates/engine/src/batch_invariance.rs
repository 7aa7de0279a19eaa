//! Whether a text gets the same scores alone and in a batch.
//!
//! Scores depend on a batch where the graph computes across rows, or where it reads padding: a convolution over the
//! sequence, or an embedding of neighbouring tokens. Either shows with some texts, at some lengths, beside some texts
//! only. So texts of the model's own vocabulary and of many lengths are run alone and together, and compared to within
//! a rounding error.

use std::time::{Duration, Instant};

use predictd_text::pipeline::{EncodedInput, Pipeline};
use predictd_text::tokenizer::TokenizeError;

use super::backend::{BackendError, GraphInfo};
use super::trial_session::{TrialError, TrialSession};

/// Groups of texts that are compared, in so much time; at least three unless they take very long.
const MAX_GROUPS: usize = 8;
const PROBE_BUDGET: Duration = Duration::from_millis(100);
const MIN_GROUPS: usize = 3;
/// Time after which no further group is begun.
const MAX_PROBE_TIME: Duration = Duration::from_secs(2);
/// Lengths of the texts of a group, in tokens: each is run beside all others of its group, and beside the next longer
/// one. They shift from group to group.
const GROUP_LENGTHS: [usize; 6] = [3, 4, 6, 9, 14, 24];
/// Most texts of a batch.
const MAX_BATCH_ITEMS: u32 = 6;
/// Longest text of a group, in tokens.
const MAX_GROUP_LENGTH: usize = 64;
/// A short text runs beside one of so many tokens once.
const LONG_TEXT_TOKENS: usize = 256;
/// How far scores may move in a batch: more than rounding moves them, and less than padding or another text does.
///
/// Rounding grows with the size of the scores; what a text changes is seen in how far texts are apart.
#[derive(Clone, Copy)]
pub struct ScoreTolerance {
    /// Share of the model's largest score.
    relative_to_max: f32,
    /// Share of the largest difference between two texts.
    relative_to_spread: f32,
}

impl ScoreTolerance {
    /// For a model whose scores may depend on the batch: only a batch that fails, or loses texts, is found.
    pub const UNLIMITED: Self = Self { relative_to_max: f32::INFINITY, relative_to_spread: f32::INFINITY };

    /// The tolerance for a graph. Kernels sum float32 in another order for another shape; a quantised or half-precision
    /// graph rounds in coarser steps; kernels of a GPU differ more from shape to shape (not measured: there was none).
    #[must_use]
    pub fn new(facts: &GraphInfo, on_gpu: bool) -> Self {
        const COARSE_TYPES: [&str; 6] = ["int8", "uint8", "int4", "uint4", "float16", "bfloat16"];
        let coarse = facts.constant_types.iter().any(|constant| COARSE_TYPES.contains(&constant.as_str()));
        let (relative_to_max, relative_to_spread) = match (coarse, on_gpu) {
            (false, false) => (1e-5, 1e-4),
            (true, false) => (1e-4, 1e-3),
            (false, true) => (1e-3, 5e-3),
            (true, true) => (5e-3, 2e-2),
        };
        Self { relative_to_max, relative_to_spread }
    }

    /// The largest difference that rounding explains, among texts with these scores.
    fn max_difference(self, alone: &[Vec<f32>]) -> f32 {
        let size = alone.iter().flatten().fold(0.0, |most: f32, score| most.max(score.abs()));
        let columns = alone.iter().map(Vec::len).max().unwrap_or(0);
        let spread = (0..columns).map(|column| {
            let scores = alone.iter().filter_map(|row| row.get(column));
            let (low, high) = scores.fold((f32::MAX, f32::MIN), |(low, high), &x| (low.min(x), high.max(x)));
            high - low
        });
        (self.relative_to_max * size).max(self.relative_to_spread * spread.fold(0.0, f32::max)).max(f32::MIN_POSITIVE)
    }
}

/// True if two rows of scores differ by more than that.
fn has_difference_above(alone: &[f32], together: &[f32], largest: f32) -> bool {
    alone.len() != together.len()
        || alone.iter().zip(together).any(|(a, b)| (a - b).abs() > largest || a.is_nan() != b.is_nan())
}

/// Why texts cannot share a batch, if so: compares them alone and in batches.
///
/// # Errors
/// Why a run of one short text failed.
pub(super) fn find_unbatchable_reason(
    trial: &mut TrialSession<'_>,
    tolerance: ScoreTolerance,
) -> Result<Option<&'static str>, TrialError> {
    let start = Instant::now();
    for number in 0..MAX_GROUPS {
        if number >= MIN_GROUPS && start.elapsed() > PROBE_BUDGET || number > 0 && start.elapsed() > MAX_PROBE_TIME {
            break;
        }
        let texts = create_group(trial.pipeline, number)?;
        if let Some(reason) = compare_texts(trial, tolerance, &texts) {
            return Ok(Some(reason));
        }
    }
    let far_apart = [GROUP_LENGTHS[0], LONG_TEXT_TOKENS].map(|length| trial.pipeline.probe_text(length, length));
    let far_apart = far_apart.into_iter().collect::<Result<Vec<_>, _>>()?;
    Ok(compare_texts(trial, tolerance, &far_apart))
}

/// Compares texts alone, each beside the next longer one, and all together.
fn compare_texts(
    trial: &mut TrialSession<'_>,
    tolerance: ScoreTolerance,
    texts: &[EncodedInput],
) -> Option<&'static str> {
    let (compared, alone): (Vec<_>, Vec<_>) = texts
        .iter()
        .filter_map(|text| {
            // A text that fails alone says nothing of batches.
            let rows = trial.run_batch(&[text]).ok()?;
            Some((text, item_scores(trial.pipeline, text, rows.first())))
        })
        .unzip();
    let largest = tolerance.max_difference(&alone);
    let pairs = (0..).zip(compared.windows(2)).take(compared.len().saturating_sub(2));
    let mut batches = pairs.chain(std::iter::once((0, compared.as_slice()))).filter(|(_, batch)| batch.len() > 1);
    batches.find_map(|(first, batch)| compare_batch(trial, batch, alone.get(first..).unwrap_or_default(), largest))
}

/// Compares the texts of one batch with themselves alone.
fn compare_batch(
    trial: &mut TrialSession<'_>,
    batch: &[&EncodedInput],
    alone: &[Vec<f32>],
    largest: f32,
) -> Option<&'static str> {
    let together = match trial.run_batch_within(batch, trial.run_timeout * MAX_BATCH_ITEMS) {
        Ok(together) if together.len() == batch.len() => together,
        Ok(_) | Err(BackendError::OutputShape { .. }) => return Some("the graph loses texts of a batch"),
        Err(BackendError::Interrupted) => return Some("a batch of a few short texts takes too long"),
        Err(BackendError::Failed(_) | BackendError::OutOfBounds(_)) => {
            return Some("the graph fails on several texts");
        }
    };
    let mut texts = batch.iter().zip(alone).zip(&together);
    let moved = texts.any(|((text, alone), row)| {
        has_difference_above(alone, &item_scores(trial.pipeline, text, Some(row)), largest)
    });
    moved.then_some("the texts of a batch, or its padding, change a text's scores")
}

/// Time for a run of a probe: a text that takes much longer than another says nothing, and must not hold up a load.
///
/// # Errors
/// Why a run of one short text failed.
pub(super) fn probe_run_timeout(trial: &mut TrialSession<'_>) -> Result<Duration, TrialError> {
    const TIMEOUT_FACTOR: u32 = 20;
    const MIN_TIMEOUT: Duration = Duration::from_millis(200);
    let text = trial.pipeline.cost_probe(8)?;
    let mut best = trial.run_timeout;
    for _ in 0..2 {
        let start = Instant::now();
        trial.run_batch(&[&text])?;
        best = best.min(start.elapsed());
    }
    Ok((best * TIMEOUT_FACTOR).max(MIN_TIMEOUT).min(trial.run_timeout))
}

/// The texts of a group, from the shortest to the longest.
fn create_group(pipeline: &Pipeline, number: usize) -> Result<Vec<EncodedInput>, TokenizeError> {
    let lengths = (0..).zip(GROUP_LENGTHS);
    let texts = lengths.map(|(place, length)| {
        let longer = (length + number * (place + 1) / 2).min(MAX_GROUP_LENGTH);
        pipeline.probe_text(longer, number * GROUP_LENGTHS.len() + place)
    });
    texts.collect()
}

/// The scores of a text's own tokens in its row of a batch.
pub(super) fn item_scores(pipeline: &Pipeline, text: &EncodedInput, row: Option<&Vec<f32>>) -> Vec<f32> {
    let row = row.map(Vec::as_slice).unwrap_or_default();
    pipeline.unpadded_scores(row, text.row_length().unwrap_or(1)).to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tolerance_grows_with_size_and_spread_of_scores() {
        let float = ScoreTolerance::new(&GraphInfo::default(), false);
        // All texts have nearly the same scores: a small move is much.
        let near = float.max_difference(&[vec![1.0, -1.0], vec![1.001, -1.0]]);
        assert!(has_difference_above(&[1.0], &[1.000_05], near) && !has_difference_above(&[1.0], &[1.000_005], near));
        let apart = float.max_difference(&[vec![1.0, -1.0], vec![2.0, -1.0]]);
        assert!(!has_difference_above(&[1.0], &[1.000_05], apart) && has_difference_above(&[1.0], &[1.000_2], apart));
        assert!(has_difference_above(&[f32::NAN], &[0.0], apart) && has_difference_above(&[0.0], &[], apart));
    }

    #[test]
    fn tolerance_coarse_types_and_gpu_allow_more() {
        let facts = GraphInfo { constant_types: vec!["int8".to_owned()], ..GraphInfo::default() };
        let scores = [vec![0.0], vec![1.0]];
        let [core, gpu] = [false, true].map(|on_gpu| ScoreTolerance::new(&facts, on_gpu).max_difference(&scores));
        assert!(gpu > core && core > ScoreTolerance::new(&GraphInfo::default(), false).max_difference(&scores));
    }
}
