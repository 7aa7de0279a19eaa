//! Feedback: the true labels of earlier answers.
//!
//! - [`store`]: keeps it in the database, or in the [`spool`] until that answers
//! - [`runtime`]: its task queue; `spool_drain` and `retention` run beside it

mod retention;
pub mod runtime;
pub mod spool;
mod spool_drain;
pub mod store;

use serde::{Deserialize, Serialize};

/// An answer, as its receipt has it, and the truth.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct FeedbackRecord {
    /// Names the answer.
    pub id: String,
    /// When it was made, in milliseconds since 1970.
    #[serde(rename = "made")]
    pub predicted_at: i64,
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
    /// The text, if the feedback brings it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
    /// Who sent it.
    #[serde(rename = "who")]
    pub caller: String,
    /// When it was sent, in microseconds since 1970. The latest feedback of an answer counts.
    #[serde(rename = "told")]
    pub reported_at: i64,
}

impl FeedbackRecord {
    /// True if the answer was right: the same labels, in any order.
    #[must_use]
    pub fn is_correct(&self) -> bool {
        let [predicted, actual] = [&self.predicted, &self.actual].map(|labels| {
            let mut labels = labels.clone();
            labels.sort_unstable();
            labels
        });
        predicted == actual
    }
}

/// The outcome of feedback.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FeedbackWriteOutcome {
    /// It is the first of this answer.
    New,
    /// It replaces earlier feedback.
    Corrected,
    /// It repeats earlier feedback.
    Unchanged,
    /// Later feedback counts.
    Superseded,
    /// It waits on disk until the database answers.
    Spooled,
}

impl FeedbackWriteOutcome {
    /// A word for it, in answers and metrics.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::New => "stored",
            Self::Corrected => "corrected",
            Self::Unchanged | Self::Superseded => "unchanged",
            Self::Spooled => "waiting",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Feedback with a wrong prediction.
    pub(super) fn sample_feedback(id: usize) -> FeedbackRecord {
        FeedbackRecord {
            id: id.to_string(),
            predicted_at: 1,
            model: "m".to_owned(),
            version: "1".to_owned(),
            arm: String::new(),
            predicted: labels(&["a"]),
            confidence: 0.75,
            actual: labels(&["b"]),
            text: None,
            caller: "key client".to_owned(),
            reported_at: 2,
        }
    }

    fn feedback(predicted: &[&str], actual: &[&str]) -> FeedbackRecord {
        FeedbackRecord { predicted: labels(predicted), actual: labels(actual), ..sample_feedback(1) }
    }

    fn labels(all: &[&str]) -> Vec<String> {
        all.iter().map(|&label| label.to_owned()).collect()
    }

    #[test]
    fn feedback_labels_reordered_are_correct() {
        assert!(feedback(&["a"], &["a"]).is_correct() && feedback(&["a", "b"], &["b", "a"]).is_correct());
        assert!(feedback(&[], &[]).is_correct());
        assert!(!feedback(&["a"], &["b"]).is_correct() && !feedback(&["a"], &["a", "b"]).is_correct());
    }
}
