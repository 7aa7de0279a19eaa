//! Whether a shadow agrees with the version that answered.

use predictd_engine::ItemOutput;
use predictd_engine::loaded_version::LoadedVersion;
use predictd_text::heads::{HeadOutcome, HeadOutput};

/// Scores that differ by at most this agree.
const SCORE_TOLERANCE: f32 = 0.01;

/// The part of an answer that is compared with another version's.
#[derive(Clone)]
pub(super) struct ComparableOutput {
    labels: Vec<String>,
    /// Confidence in the first label, or the score.
    confidence: f32,
}

/// The score, or the confidence in the first label; none without labels.
pub(super) fn first_confidence(prediction: &HeadOutput) -> Option<f32> {
    if let HeadOutcome::Score(score) = prediction.outcome {
        return Some(score);
    }
    let first = prediction.outcome.label_indices().first()?;
    Some(prediction.probabilities.get(*first).copied().unwrap_or_default())
}

impl ComparableOutput {
    /// What is compared of an answer.
    pub(super) fn from_output(model: &LoadedVersion, output: &ItemOutput) -> Self {
        let prediction = &output.prediction;
        let model_labels = model.pipeline().labels();
        let labels = match &prediction.outcome {
            HeadOutcome::Entities(entities) => {
                entities.iter().map(|entity| format!("{} {}-{}", entity.label, entity.start, entity.end)).collect()
            }
            outcome => outcome.label_indices().iter().filter_map(|&index| model_labels.get(index).cloned()).collect(),
        };
        let confidence = first_confidence(prediction).unwrap_or_default();
        Self { labels, confidence }
    }

    /// Whether a shadow's answer agrees, and the difference of the confidences in the answered label, or of the scores. The
    /// confidence in a label that the shadow does not have is 0.
    pub(super) fn compare(&self, model: &LoadedVersion, output: &ItemOutput) -> (bool, f32) {
        let shadow_output = Self::from_output(model, output);
        let confidence = match self.labels.first() {
            None => shadow_output.confidence,
            Some(label) => {
                let index = model.pipeline().labels().iter().position(|model_label| model_label == label);
                index.and_then(|index| output.prediction.probabilities.get(index).copied()).unwrap_or_default()
            }
        };
        (self.agrees_with(&shadow_output), (self.confidence - confidence).abs())
    }

    /// True for the same labels in any order, or scores within the tolerance.
    fn agrees_with(&self, other: &Self) -> bool {
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
