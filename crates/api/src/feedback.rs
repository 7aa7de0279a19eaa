//! The wire types of `/admin/feedback`.

use serde::{Deserialize, Serialize};

/// A part of what was told, in its order. A client may leave entries as they were sent.
#[derive(Debug, Serialize, Deserialize)]
pub struct FeedbackPage<Entry = ExportedFeedback> {
    /// At most 1,000.
    pub feedback: Vec<Entry>,
    /// For the next part; none after the last.
    pub next: Option<String>,
}

/// An answer and the truth about it.
#[derive(Debug, Serialize, Deserialize)]
pub struct ExportedFeedback {
    /// Names the answer.
    pub id: String,
    /// When it was made (RFC 3339).
    pub made: String,
    /// Which model answered.
    pub model: String,
    /// Which version of it.
    pub version: String,
    /// Arm of an experiment; empty if there was none.
    pub arm: String,
    /// Labels that were answered.
    pub predicted: Vec<String>,
    /// Confidence in the first of them.
    pub confidence: f32,
    /// The true labels.
    pub actual: Vec<String>,
    /// True if these are the same.
    pub correct: bool,
    /// The text, if it was told.
    pub text: Option<String>,
    /// Who told it.
    pub who: String,
    /// When it was told (RFC 3339).
    pub told: String,
}
