//! Whether a shadow agrees with the version that answered.

use predictd_engine::ItemOutput;
use predictd_engine::loaded_version::LoadedVersion;
use predictd_text::heads::{HeadOutcome, HeadOutput};

/// Scores that differ by at most this agree.
const SCORE_TOLERANCE: f32 = 0.01;

/// The part of an answer that is compared with another version's.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct ComparableOutput {
    pub(super) labels: Vec<String>,
    /// Confidence in the first label, or the score.
    pub(super) confidence: f32,
}

/// The score, or the confidence in the first label; none without labels.
pub(super) fn first_confidence(prediction: &HeadOutput) -> Option<f32> {
    if let HeadOutcome::Score(score) = prediction.outcome {
        return Some(score);
    }
    let first = prediction.outcome.label_indices().first()?;
    Some(prediction.probabilities.get(*first).copied().unwrap_or_default())
}

/// The confidence of a model in a label; 0 for a label that it does not have.
pub(super) fn label_confidence(model: &LoadedVersion, output: &ItemOutput, label: Option<&String>) -> f32 {
    let index = model.pipeline().labels().iter().position(|known| Some(known) == label);
    index.and_then(|index| output.prediction.probabilities.get(index).copied()).unwrap_or_default()
}

impl ComparableOutput {
    /// What is compared of an answer.
    pub(super) fn from_output(model: &LoadedVersion, output: &ItemOutput) -> Self {
        let prediction = &output.prediction;
        let known_labels = model.pipeline().labels();
        let labels = match &prediction.outcome {
            HeadOutcome::Entities(entities) => {
                entities.iter().map(|entity| format!("{} {}-{}", entity.label, entity.start, entity.end)).collect()
            }
            outcome => outcome.label_indices().iter().filter_map(|&index| known_labels.get(index).cloned()).collect(),
        };
        let confidence = first_confidence(prediction).unwrap_or_default();
        Self { labels, confidence }
    }

    /// True for the same labels in any order, or scores within the tolerance.
    pub(super) fn agrees_with(&self, other: &Self) -> bool {
        if self.labels.is_empty() && other.labels.is_empty() {
            return (self.confidence - other.confidence).abs() <= SCORE_TOLERANCE;
        }
        self.sorted_labels() == other.sorted_labels()
    }

    fn sorted_labels(&self) -> Vec<&String> {
        let mut labels: Vec<&String> = self.labels.iter().collect();
        labels.sort_unstable();
        labels
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn output(labels: &[&str], confidence: f32) -> ComparableOutput {
        ComparableOutput { labels: labels.iter().map(|&l| l.to_owned()).collect(), confidence }
    }

    #[test]
    fn shadow_same_labels_any_order_agree() {
        assert!(output(&["a"], 0.9).agrees_with(&output(&["a"], 0.1)));
        assert!(output(&["a", "b"], 0.9).agrees_with(&output(&["b", "a"], 0.9)));
        assert!(
            !output(&["a"], 0.9).agrees_with(&output(&["b"], 0.9))
                && !output(&[], 0.9).agrees_with(&output(&["b"], 0.9))
        );
        assert!(output(&[], 3.1).agrees_with(&output(&[], 3.105)) && !output(&[], 3.1).agrees_with(&output(&[], 3.2)));
    }
}
