//! From scores to probabilities: softmax, sigmoid, or nothing where the graph does that itself.

use serde::{Deserialize, Serialize};

/// How far a probability may lie outside 0 to 1.
const PROBABILITY_TOLERANCE: f32 = 1e-3;

/// What the server applies to a model's scores to get probabilities.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Activation {
    /// Softmax over the labels.
    Softmax,
    /// A sigmoid for each label.
    Sigmoid,
    /// Nothing: the scores are probabilities already.
    None,
}

/// An activation that a graph applies itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AppliedActivation {
    /// Which.
    pub activation: Activation,
    /// True if the output holds all that it gives, unrounded: then the scores of a softmax sum to 1.
    pub is_exact: bool,
}

impl Activation {
    /// Its name in `model.toml` and in answers.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Softmax => "softmax",
            Self::Sigmoid => "sigmoid",
            Self::None => "none",
        }
    }

    pub(super) fn apply(self, scores: &[f32]) -> Vec<f32> {
        match self {
            Self::Softmax => softmax(scores),
            Self::Sigmoid => scores.iter().map(|&z| sigmoid(z)).collect(),
            Self::None => scores.to_vec(),
        }
    }

    /// The probability that a lone score stands for. A softmax over one score would always be 1.
    pub(super) fn apply_to_single(self, score: f32) -> f32 {
        if self == Self::None { score } else { sigmoid(score) }
    }
}

pub(super) fn is_probability(score: f32) -> bool {
    (-PROBABILITY_TOLERANCE..=1.0 + PROBABILITY_TOLERANCE).contains(&score)
}

/// True if these rows of scores could be what a softmax gives: at least two labels, each between 0 and 1, that sum to 1
/// in every row.
#[must_use]
pub fn are_distributions(rows: &[Vec<f32>]) -> bool {
    rows.iter().all(|row| {
        row.len() > 1
            && row.iter().all(|&p| is_probability(p))
            && (row.iter().sum::<f32>() - 1.0).abs() <= PROBABILITY_TOLERANCE
    })
}

/// True if not all rows are the same.
#[must_use]
pub fn rows_differ(rows: &[Vec<f32>]) -> bool {
    rows.windows(2).any(|pair| pair.first() != pair.last())
}

/// True if every score could be a probability.
#[must_use]
pub fn are_probabilities(rows: &[Vec<f32>]) -> bool {
    rows.iter().flatten().all(|&score| is_probability(score))
}

/// Softmax that cannot overflow: the largest logit is taken off first.
pub(super) fn softmax(logits: &[f32]) -> Vec<f32> {
    let max = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let exponentials: Vec<f32> = logits.iter().map(|z| (z - max).exp()).collect();
    let sum: f32 = exponentials.iter().sum();
    exponentials.into_iter().map(|e| e / sum).collect()
}

/// The first of the largest scores, and where it stands.
pub(super) fn argmax(scores: &[f32]) -> Option<(usize, f32)> {
    first_largest(scores.iter().copied().enumerate())
}

/// The first with the largest score.
pub(super) fn first_largest<T>(scored: impl Iterator<Item = (T, f32)>) -> Option<(T, f32)> {
    scored.reduce(|best, next| if next.1 > best.1 { next } else { best })
}

/// Logistic function, evaluated on the side where the exponential is small.
fn sigmoid(z: f32) -> f32 {
    if z >= 0.0 {
        1.0 / (1.0 + (-z).exp())
    } else {
        let e = z.exp();
        e / (1.0 + e)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn activation_softmax_rows_are_distributions() {
        assert!(are_distributions(&[vec![0.25, 0.75], vec![0.5, 0.500_1]]));
        for other in [&[vec![0.2, 0.75], vec![0.5, 0.5]][..], &[vec![1.0], vec![1.0]], &[vec![-1.0, 2.0]]] {
            assert!(!are_distributions(other), "{other:?}");
        }
        assert!(rows_differ(&[vec![0.5, 0.5], vec![0.4, 0.6]]) && !rows_differ(&[vec![0.5, 0.5], vec![0.5, 0.5]]));
    }

    proptest! {
        #[test]
        fn softmax_any_logits_sum_to_one(logits in prop::collection::vec(-1e30_f32..1e30, 1..100)) {
            let p = softmax(&logits);
            prop_assert!((p.iter().sum::<f32>() - 1.0).abs() < 1e-4);
            let largest = (0..logits.len()).max_by(|&a, &b| logits[a].total_cmp(&logits[b])).unwrap();
            prop_assert!(p.iter().all(|&x| x <= p[largest]));
        }

        #[test]
        fn sigmoid_any_score_stays_in_range(z in any::<f32>().prop_filter("finite", |z| z.is_finite())) {
            prop_assert!((0.0..=1.0).contains(&sigmoid(z)));
        }
    }
}
