//! Scores to answers: softmax, sigmoid, thresholds, a number, entities.

use std::cmp::Ordering;

use super::activation::{Activation, argmax, is_probability};
use super::entities::{Aggregation, Entity, ScoredToken, TokenSpan};

/// What is done with a text's scores.
#[derive(Debug, Clone, PartialEq)]
pub enum Head {
    /// One score per label; the graph's own choice counts, else the largest wins.
    SingleLabel(Activation),
    /// One score for two labels: it gives the probability of the second.
    Binary(Activation),
    /// One score per label; every label at or above its threshold is an answer.
    MultiLabel {
        /// One threshold per label, each in `0..=1`.
        thresholds: Vec<f32>,
        /// Gives the probabilities.
        activation: Activation,
    },
    /// One score, answered as it is.
    Regression,
    /// One score and no two labels: its probability is the answer, as a cross-encoder's.
    Scoring(Activation),
    /// One score per label for each token: tokens become entities.
    Entities(Aggregation, Activation),
}

/// The answer to one text, in label numbers.
#[derive(Debug, Clone, PartialEq)]
pub struct HeadOutput {
    /// What the model decided.
    pub outcome: HeadOutcome,
    /// One probability per label, in label order; empty for regression.
    pub probabilities: Vec<f32>,
    /// The model's own scores, in the order of its output.
    pub raw_scores: Vec<f32>,
}

/// What a head decided.
#[derive(Debug, Clone, PartialEq)]
pub enum HeadOutcome {
    /// Exactly one label.
    Label(usize),
    /// Every label above its threshold, in label order; possibly none.
    Labels(Vec<usize>),
    /// A number.
    Score(f32),
    /// What stands where in the text, in its order.
    Entities(Vec<Entity>),
}

impl HeadOutcome {
    /// The indices of the labels that the head chose; none for a number or entities.
    #[must_use]
    pub fn label_indices(&self) -> &[usize] {
        match self {
            Self::Label(index) => std::slice::from_ref(index),
            Self::Labels(indices) => indices,
            Self::Score(_) | Self::Entities(_) => &[],
        }
    }
}

/// Why a model's output cannot be an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum OutputError {
    /// A score is NaN or infinite.
    #[error("the model gave a score that is not a finite number")]
    NotFinite,
    /// A classifier's scores are decision values, not probabilities.
    #[error("the model gave scores outside 0 to 1 where probabilities are expected")]
    NotProbabilities,
    /// More or fewer scores than the labels need.
    #[error("the model gave {found} scores for a text where {expected} were expected")]
    Width {
        /// Scores the head needs.
        expected: usize,
        /// Scores the model gave.
        found: usize,
    },
}

impl Head {
    /// Scores a model must give for `labels` labels, for each text or for each token.
    #[must_use]
    pub fn width(&self, labels: usize) -> usize {
        match self {
            Self::SingleLabel(_) | Self::MultiLabel { .. } | Self::Entities(..) => labels,
            Self::Binary(_) | Self::Regression | Self::Scoring(_) => 1,
        }
    }

    /// The task's name in answers of `/models`.
    #[must_use]
    pub fn task(&self) -> &'static str {
        match self {
            Self::SingleLabel(_) | Self::Binary(_) => "single_label_classification",
            Self::MultiLabel { .. } => "multi_label_classification",
            Self::Regression => "regression",
            Self::Scoring(_) => "scoring",
            Self::Entities(..) => "token_classification",
        }
    }

    /// What gives the probabilities; none for regression.
    #[must_use]
    pub fn activation(&self) -> Option<Activation> {
        match self {
            Self::SingleLabel(activation)
            | Self::Binary(activation)
            | Self::MultiLabel { activation, .. }
            | Self::Scoring(activation)
            | Self::Entities(_, activation) => Some(*activation),
            Self::Regression => None,
        }
    }

    /// What makes probabilities of logits.
    #[must_use]
    pub fn default_activation(&self) -> Activation {
        match self {
            Self::SingleLabel(_) | Self::Entities(..) => Activation::Softmax,
            Self::Binary(_) | Self::MultiLabel { .. } | Self::Scoring(_) | Self::Regression => Activation::Sigmoid,
        }
    }

    /// Takes another activation; regression has none.
    pub fn set_activation(&mut self, new: Activation) {
        match self {
            Self::SingleLabel(activation)
            | Self::Binary(activation)
            | Self::MultiLabel { activation, .. }
            | Self::Scoring(activation)
            | Self::Entities(_, activation) => *activation = new,
            Self::Regression => {}
        }
    }

    /// True if the answer is a number, not a label.
    #[must_use]
    pub fn is_numeric(&self) -> bool {
        matches!(self, Self::Regression | Self::Scoring(_))
    }

    /// Decides from the raw scores of one text, of which the graph itself may have chosen a label.
    ///
    /// Some classifiers choose by something else than the largest probability, so a choice of
    /// the graph's own counts.
    ///
    /// # Errors
    /// [`OutputError`] if the scores are too many, too few or not finite.
    pub fn postprocess(&self, raw: Vec<f32>, chosen: Option<usize>, labels: usize) -> Result<HeadOutput, OutputError> {
        let expected = self.width(labels);
        if raw.len() != expected {
            return Err(OutputError::Width { expected, found: raw.len() });
        }
        check_scores(&raw, self.activation())?;
        let first = raw.first().copied().unwrap_or_default();
        let chosen = chosen.filter(|&label| label < labels);
        let (outcome, probabilities) = match self {
            Self::Regression => (HeadOutcome::Score(first), Vec::new()),
            Self::Scoring(activation) => (HeadOutcome::Score(activation.apply_to_single(first)), Vec::new()),
            Self::Entities(..) => (HeadOutcome::Entities(Vec::new()), Vec::new()),
            Self::MultiLabel { thresholds, activation } => {
                let probabilities = activation.apply(&raw);
                let reached = (0..).zip(probabilities.iter().zip(thresholds)).filter(|(_, (p, t))| p >= t);
                (HeadOutcome::Labels(reached.map(|(label, _)| label).collect()), probabilities)
            }
            // Two logits can differ where their probabilities no longer do.
            Self::SingleLabel(activation) => {
                (HeadOutcome::Label(chosen.unwrap_or_else(|| best_label(&raw))), activation.apply(&raw))
            }
            Self::Binary(activation) => {
                let second = activation.apply_to_single(first);
                let probabilities = vec![1.0 - second, second];
                (HeadOutcome::Label(chosen.unwrap_or_else(|| best_label(&probabilities))), probabilities)
            }
        };
        // A lone probability is that of the second label; its negative would be no score of the first.
        let raw = if matches!(self, Self::Binary(Activation::None)) { probabilities.clone() } else { raw };
        Ok(HeadOutput { outcome, probabilities, raw_scores: raw })
    }
}

fn best_label(scores: &[f32]) -> usize {
    argmax(scores).map_or(0, |(label, _)| label)
}

fn check_scores(scores: &[f32], activation: Option<Activation>) -> Result<(), OutputError> {
    if !scores.iter().all(|score| score.is_finite()) {
        return Err(OutputError::NotFinite);
    }
    if activation == Some(Activation::None) && !scores.iter().all(|&score| is_probability(score)) {
        return Err(OutputError::NotProbabilities);
    }
    Ok(())
}

/// The probabilities of a text's tokens, from the scores of its row and the padding on its left.
///
/// `places` has an entry for each token of the row, none for special ones, which are left out.
///
/// # Errors
/// [`OutputError`] if there are too few logits, or one is not finite.
pub fn score_tokens(
    scores: &[f32],
    padding: usize,
    places: &[Option<TokenSpan>],
    (labels, activation): (usize, Activation),
) -> Result<Vec<ScoredToken>, OutputError> {
    let mut tokens = Vec::with_capacity(places.len());
    for (number, place) in (padding..).zip(places) {
        let Some(place) = *place else { continue };
        let row = scores.get(number * labels..(number + 1) * labels);
        let row = row.ok_or(OutputError::Width { expected: (number + 1) * labels, found: scores.len() })?;
        check_scores(row, Some(activation))?;
        tokens.push(ScoredToken { span: place, probabilities: activation.apply(row) });
    }
    Ok(tokens)
}

impl HeadOutput {
    /// Scores in label order: probabilities, or the model's own scores when `raw` is asked for.
    ///
    /// A one-logit binary model has one raw score, that of its second label; the first
    /// label's is its negative, so that a softmax over either pair says the same.
    #[must_use]
    pub fn scores(&self, raw: bool) -> Vec<f32> {
        match (raw, self.raw_scores.as_slice(), self.probabilities.len()) {
            (true, [logit], 2) => vec![-logit, *logit],
            (true, ..) => self.raw_scores.clone(),
            (false, ..) => self.probabilities.clone(),
        }
    }
}

/// The `k` largest scores with their label numbers, largest first, ties by label order.
#[must_use]
pub fn top_k(scores: &[f32], k: usize) -> Vec<(usize, f32)> {
    let mut ranked: Vec<(usize, f32)> = scores.iter().copied().enumerate().collect();
    ranked.sort_by(|a, b| b.1.partial_cmp(&a.1).unwrap_or(Ordering::Equal).then(a.0.cmp(&b.0)));
    ranked.truncate(k);
    ranked
}

/// Combines the scores of several windows of one text, each weighted by its tokens.
///
/// `windows` holds rows of equal width with a positive weight each.
#[must_use]
pub fn weighted_mean(windows: &[(Vec<f32>, usize)]) -> Vec<f32> {
    match windows {
        [] => Vec::new(),
        // Dividing and multiplying by the weight would change the last digits of a text that fits.
        [(only, _)] => only.clone(),
        [(first, _), ..] => {
            let total: f64 = windows.iter().map(|(_, weight)| token_weight(*weight)).sum();
            let columns = (0..first.len()).map(|column| {
                windows
                    .iter()
                    .map(|(row, weight)| {
                        f64::from(row.get(column).copied().unwrap_or(f32::NAN)) * token_weight(*weight)
                    })
                    .sum::<f64>()
            });
            #[expect(clippy::cast_possible_truncation, reason = "a mean of f32 values is in the range of f32")]
            columns.map(|sum| (sum / total) as f32).collect()
        }
    }
}

#[expect(clippy::cast_precision_loss, reason = "token counts are far below 2^52")]
fn token_weight(tokens: usize) -> f64 {
    tokens as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn head_extreme_logits_give_finite_softmax() {
        let decision = Head::SingleLabel(Activation::Softmax).postprocess(vec![-1000.0, 5.0, 4.0], None, 3).unwrap();
        assert_eq!(decision.outcome, HeadOutcome::Label(1));
        assert!(decision.probabilities.iter().all(|p| p.is_finite()));
        assert!((decision.probabilities[1] - 0.731_058_6).abs() < 1e-6);
    }

    #[test]
    fn head_binary_logit_gives_two_labels() {
        let decision = Head::Binary(Activation::Sigmoid).postprocess(vec![-2.0], None, 2).unwrap();
        assert_eq!(decision.outcome, HeadOutcome::Label(0));
        assert!((decision.probabilities[1] - 0.119_202_9).abs() < 1e-6);
        assert_eq!(decision.scores(true), [2.0, -2.0]);
    }

    #[test]
    fn head_multi_label_thresholds_apply_per_label() {
        let head = Head::MultiLabel { thresholds: vec![0.5, 0.9, 0.1], activation: Activation::Sigmoid };
        let decision = head.postprocess(vec![0.0, 1.0, -2.0], None, 3).unwrap();
        assert_eq!(decision.outcome, HeadOutcome::Labels(vec![0, 2]));
    }

    #[test]
    fn head_invalid_scores_are_rejected() {
        assert_eq!(
            Head::SingleLabel(Activation::Softmax).postprocess(vec![0.0, f32::NAN], None, 2),
            Err(OutputError::NotFinite)
        );
        assert_eq!(Head::Regression.postprocess(vec![f32::INFINITY], None, 1), Err(OutputError::NotFinite));
        assert_eq!(
            Head::SingleLabel(Activation::Softmax).postprocess(vec![0.0], None, 2),
            Err(OutputError::Width { expected: 2, found: 1 })
        );
    }

    #[test]
    fn head_decision_values_are_no_probabilities() {
        for raw in [vec![-0.6, 0.6], vec![2.5, 0.1], vec![0.0, 1.01]] {
            assert_eq!(
                Head::SingleLabel(Activation::None).postprocess(raw, None, 2),
                Err(OutputError::NotProbabilities)
            );
        }
        assert!(Head::SingleLabel(Activation::None).postprocess(vec![-1e-7, 1.000_000_1], None, 2).is_ok());
    }

    #[test]
    fn head_graph_label_overrides_argmax() {
        let decision = Head::SingleLabel(Activation::None).postprocess(vec![0.6, 0.4], Some(1), 2).unwrap();
        assert_eq!(decision.outcome, HeadOutcome::Label(1));
        assert_eq!(
            Head::SingleLabel(Activation::None).postprocess(vec![0.6, 0.4], Some(2), 2).unwrap().outcome,
            HeadOutcome::Label(0)
        );
    }

    #[test]
    fn head_tied_scores_first_label_wins() {
        assert_eq!(top_k(&[0.2, 0.4, 0.4], 2), [(1, 0.4), (2, 0.4)]);
        assert_eq!(
            Head::SingleLabel(Activation::None).postprocess(vec![0.5, 0.5], None, 2).unwrap().outcome,
            HeadOutcome::Label(0)
        );
    }

    #[test]
    fn weighted_mean_weights_windows_by_tokens() {
        assert_eq!(weighted_mean(&[(vec![1.0, 0.0], 30), (vec![0.0, 1.0], 10)]), [0.75, 0.25]);
        assert_eq!(weighted_mean(&[(vec![0.1, 0.2], 7)]), [0.1, 0.2]);
    }

    #[test]
    fn head_single_probability_is_of_second_label() {
        let decision = Head::Binary(Activation::None).postprocess(vec![0.25], None, 2).unwrap();
        assert_eq!((decision.outcome.clone(), decision.scores(true)), (HeadOutcome::Label(0), vec![0.75, 0.25]));
        assert_eq!(
            Head::Scoring(Activation::None).postprocess(vec![0.25], None, 0).unwrap().outcome,
            HeadOutcome::Score(0.25)
        );
    }

    proptest! {
        #[test]
        fn top_k_any_scores_sorted_and_bounded(scores in prop::collection::vec(0.0_f32..1.0, 0..50), k in 0_usize..60) {
            let ranked = top_k(&scores, k);
            prop_assert_eq!(ranked.len(), k.min(scores.len()));
            prop_assert!(ranked.windows(2).all(|w| w[0].1 >= w[1].1));
        }
    }
}
