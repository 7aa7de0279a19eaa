//! Ground truth: what was told of an earlier answer.

use serde::{Deserialize, Serialize};

/// An answer, as its receipt has it, and the truth.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Feedback {
    /// Names the answer.
    pub id: String,
    /// When it was made, in milliseconds since 1970.
    pub made: i64,
    /// Which model answered.
    pub model: String,
    /// Which version.
    pub version: String,
    /// Arm of an experiment; empty if there was none.
    pub arm: String,
    /// Labels that were answered.
    pub predicted: Vec<String>,
    /// Confidence in the first of them.
    pub confidence: f32,
    /// The true labels.
    pub actual: Vec<String>,
    /// The text, if whoever told the truth told that too.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
    /// Who told it.
    pub who: String,
    /// When it was told, in microseconds since 1970. Of two things that are told of one answer the later counts.
    pub told: i64,
}

impl Feedback {
    /// True if the answer was right: the same labels, in any order.
    #[must_use]
    pub fn is_correct(&self) -> bool {
        let sorted = |labels: &[String]| {
            let mut labels = labels.to_vec();
            labels.sort_unstable();
            labels
        };
        sorted(&self.predicted) == sorted(&self.actual)
    }
}

/// What became of something that was told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kept {
    /// It is the first of this answer.
    New,
    /// Something else was told before, and is history.
    Corrected,
    /// The same was told before.
    Unchanged,
    /// Something else was told later, and counts.
    Older,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_compared_as_sets() {
        let labels = |all: &[&str]| all.iter().map(|&label| label.to_owned()).collect();
        let told = |predicted: &[&str], actual: &[&str]| Feedback {
            id: "1".to_owned(),
            made: 0,
            model: "m".to_owned(),
            version: "1".to_owned(),
            arm: String::new(),
            predicted: labels(predicted),
            confidence: 0.5,
            actual: labels(actual),
            text: None,
            who: "somebody".to_owned(),
            told: 0,
        };
        assert!(told(&["a"], &["a"]).is_correct() && told(&["a", "b"], &["b", "a"]).is_correct());
        assert!(told(&[], &[]).is_correct());
        assert!(!told(&["a"], &["b"]).is_correct() && !told(&["a"], &["a", "b"]).is_correct());
    }
}
