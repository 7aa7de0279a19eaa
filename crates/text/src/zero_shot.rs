//! Labels that a request names, judged by a model that says whether one text follows from another.
//!
//! Each label becomes a hypothesis about the text (Yin et al., 2019, "Benchmarking Zero-shot Text Classification"), and
//! the scores are those of the pipeline of the same name in transformers.

use super::activation::{argmax, softmax};
use super::heads::{HeadOutcome, HeadOutput};
use super::input::{Input, SecondText};

/// What a label is put into where a request says nothing else.
pub const DEFAULT_TEMPLATE: &str = "This example is {}.";
/// Where the label goes.
pub const LABEL_PLACEHOLDER: &str = "{}";
/// A label of several that are judged each for itself is an answer from this probability on.
const LABEL_THRESHOLD: f32 = 0.5;

/// Which of a model's labels say that the second text follows from the first, and that it contradicts it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NliLabels {
    entailment_index: usize,
    contradiction_index: usize,
}

impl NliLabels {
    /// Those of a model with these labels; nothing if none is called `entail…`.
    ///
    /// Without a label `contradict…` it is the first one that contradicts, or the last where the first one is
    /// entailment, as in transformers.
    #[must_use]
    pub fn from_labels(labels: &[String]) -> Option<Self> {
        let [entailment, contradiction] = ["entail", "contradict"]
            .map(|prefix| labels.iter().position(|label| label.to_lowercase().starts_with(prefix)));
        let entailment_index = entailment?;
        let other = if entailment_index == 0 { labels.len() - 1 } else { 0 };
        Some(Self { entailment_index, contradiction_index: contradiction.unwrap_or(other) })
            .filter(|_| labels.len() > 1)
    }

    /// Decides from the logits of each hypothesis, in the order of the labels. `many`: each label for itself.
    ///
    /// Nothing if a hypothesis has too few logits.
    #[must_use]
    pub fn postprocess(&self, logits: &[&[f32]], many: bool) -> Option<HeadOutput> {
        let raw = column(logits, self.entailment_index)?;
        let probabilities = if many || raw.len() == 1 {
            let against = column(logits, self.contradiction_index)?;
            raw.iter().zip(against).filter_map(|(&z, other)| softmax(&[z, other]).first().copied()).collect()
        } else {
            softmax(&raw)
        };
        let outcome = if many {
            let reached = (0..).zip(&probabilities).filter(|(_, p)| **p >= LABEL_THRESHOLD);
            HeadOutcome::Labels(reached.map(|(index, _)| index).collect())
        } else {
            HeadOutcome::Label(argmax(&probabilities)?.0)
        };
        Some(HeadOutput { outcome, probabilities, raw_scores: raw })
    }
}

/// The logits of one NLI label, for each hypothesis.
fn column(logits: &[&[f32]], index: usize) -> Option<Vec<f32>> {
    logits.iter().map(|row| row.get(index).copied()).collect()
}

/// A text with a hypothesis for each label. Only the text is cut off where both are too long.
#[must_use]
pub fn hypothesis_inputs(text: &str, labels: &[String], template: &str) -> Vec<Input> {
    let hypotheses = labels.iter().map(|label| template.replace(LABEL_PLACEHOLDER, label));
    let hypotheses = hypotheses.map(|text| SecondText { text, truncate_only_first: true });
    hypotheses.map(|hypothesis| Input { text: text.to_owned(), second: Some(hypothesis) }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn label_indices(labels: &[&str]) -> Option<(usize, usize)> {
        let labels: Vec<String> = labels.iter().map(|&label| label.to_owned()).collect();
        NliLabels::from_labels(&labels).map(|verdicts| (verdicts.entailment_index, verdicts.contradiction_index))
    }

    #[test]
    fn zero_shot_nli_labels_found_by_name_or_position() {
        assert_eq!(label_indices(&["CONTRADICTION", "NEUTRAL", "ENTAILMENT"]), Some((2, 0)));
        assert_eq!(label_indices(&["neutral", "entailment", "contradiction"]), Some((1, 2)));
        assert_eq!(label_indices(&["entailment", "not_entailment"]), Some((0, 1)));
        assert_eq!(label_indices(&["no", "entails"]), Some((1, 0)));
        assert_eq!(label_indices(&["yes", "no"]), None);
        assert_eq!(label_indices(&["entailment"]), None);
    }

    #[test]
    fn zero_shot_postprocess_single_and_multi_label() {
        let verdicts = NliLabels { entailment_index: 2, contradiction_index: 0 };
        let logits: [&[f32]; 3] = [&[0.0, 9.0, 0.0], &[5.0, 9.0, 2.0], &[0.0, 9.0, 1.0]];
        let one = verdicts.postprocess(&logits, false).unwrap();
        assert_eq!((one.outcome, one.raw_scores), (HeadOutcome::Label(1), vec![0.0, 2.0, 1.0]));
        assert!(
            (one.probabilities[1] - 0.665_240_94).abs() < 1e-6
                && (one.probabilities.iter().sum::<f32>() - 1.0).abs() < 1e-6
        );
        let many = verdicts.postprocess(&logits, true).unwrap();
        assert_eq!(many.outcome, HeadOutcome::Labels(vec![0, 2]));
        assert!((many.probabilities[1] - 0.047_425_87).abs() < 1e-6 && (many.probabilities[0] - 0.5).abs() < 1e-6);
        // A single label is judged for itself: one of one would always be certain.
        let single = verdicts.postprocess(&logits[1..2], false).unwrap();
        assert!((single.probabilities[0] - 0.047_425_87).abs() < 1e-6);
        assert_eq!(verdicts.postprocess(&[&[1.0]], true), None);
    }
}
