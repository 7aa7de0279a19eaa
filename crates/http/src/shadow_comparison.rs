//! Whether a shadow says the same as the version that answered.

use predictd_engine::ItemOutput;
use predictd_engine::loaded_version::LoadedVersion;
use predictd_text::heads::HeadOutcome;

/// Scores that are nearly the same.
const SCORE_TOLERANCE: f32 = 0.01;

/// What a model said, to be compared with what another one says.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct ComparableOutput {
    pub(super) labels: Vec<String>,
    /// In the first label, or a score.
    pub(super) confidence: f32,
}

/// How sure a model is of a label, which it may not have.
pub(super) fn label_confidence(model: &LoadedVersion, answer: &ItemOutput, label: Option<&String>) -> f32 {
    let place = model.pipeline().labels().iter().position(|known| Some(known) == label);
    place.and_then(|place| answer.prediction.probabilities.get(place).copied()).unwrap_or_default()
}

impl ComparableOutput {
    /// What is compared of an answer.
    pub(super) fn from_answer(model: &LoadedVersion, answer: &ItemOutput) -> Self {
        let labels = model.pipeline().labels();
        let places: &[usize] = match &answer.prediction.outcome {
            HeadOutcome::Label(place) => std::slice::from_ref(place),
            HeadOutcome::Labels(places) => places,
            HeadOutcome::Score(_) | HeadOutcome::Entities(_) => &[],
        };
        let labels: Vec<String> = match &answer.prediction.outcome {
            HeadOutcome::Entities(found) => {
                found.iter().map(|entity| format!("{} {}-{}", entity.label, entity.start, entity.end)).collect()
            }
            _ => places.iter().filter_map(|place| labels.get(*place).cloned()).collect(),
        };
        let confidence = match (&answer.prediction.outcome, places.first()) {
            (HeadOutcome::Score(score), _) => *score,
            (_, Some(place)) => answer.prediction.probabilities.get(*place).copied().unwrap_or_default(),
            (_, None) => 0.0,
        };
        Self { labels, confidence }
    }

    /// The same labels, in any order; of scores, nearly the same.
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

    #[test]
    fn shadow_same_labels_any_order_agree() {
        let said = |labels: &[&str], confidence| ComparableOutput {
            labels: labels.iter().map(|&l| l.to_owned()).collect(),
            confidence,
        };
        assert!(said(&["a"], 0.9).agrees_with(&said(&["a"], 0.1)));
        assert!(said(&["a", "b"], 0.9).agrees_with(&said(&["b", "a"], 0.9)));
        assert!(!said(&["a"], 0.9).agrees_with(&said(&["b"], 0.9)) && !said(&[], 0.9).agrees_with(&said(&["b"], 0.9)));
        assert!(said(&[], 3.1).agrees_with(&said(&[], 3.105)) && !said(&[], 3.1).agrees_with(&said(&[], 3.2)));
    }
}
