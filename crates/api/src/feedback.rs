//! The wire types of `/admin/feedback`, and the answers of `POST /feedback`.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::problem::Problem;

/// A page of feedback, oldest first. A client may leave entries as they were sent.
#[derive(Debug, Serialize, Deserialize)]
pub struct FeedbackPage<Entry = ExportedFeedback> {
    /// At most 1,000.
    pub feedback: Vec<Entry>,
    /// `after` of the next page; none on the last page.
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
    /// The text, if the feedback has it.
    pub text: Option<String>,
    /// The caller that sent it.
    pub who: String,
    /// When it came (RFC 3339).
    pub told: String,
}

/// The outcome of a feedback request.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(untagged)]
pub enum FeedbackAnswer {
    /// For one item.
    One(FeedbackStatus),
    /// For a list of items.
    Many {
        /// One per item, in its order.
        results: Vec<FeedbackItem>,
    },
}

/// The outcome of one item.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct FeedbackStatus {
    /// `stored`; `corrected` if it replaces another label; `unchanged` if the same label was stored before; `waiting` if it is on disk until the database answers.
    pub outcome: Cow<'static, str>,
}

/// The outcome of one item of a list.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct FeedbackItem {
    /// Its index in the request, from 0.
    pub index: usize,
    /// The outcome, or an error.
    #[serde(flatten)]
    pub result: FeedbackItemOutcome,
}

/// The outcome of one item of a list, or its error.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(untagged)]
pub enum FeedbackItemOutcome {
    /// The item is accepted.
    Accepted(FeedbackStatus),
    /// The item is rejected; the others are not.
    Rejected {
        /// The error.
        error: Box<Problem>,
    },
}
