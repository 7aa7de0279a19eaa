//! The wire types of `/admin/feedback`, and the answers of `POST /feedback`.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::problem::Problem;

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

/// What became of what was told.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(untagged)]
pub enum FeedbackAnswer {
    /// Of one thing.
    One(FeedbackStatus),
    /// Of each of a list, in its order.
    Many {
        /// One for each.
        results: Vec<FeedbackItem>,
    },
}

/// What became of one thing.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct FeedbackStatus {
    /// `stored`; `corrected` if something else was told before; `unchanged` if the same was; `waiting` if it is on disk until the database answers.
    pub outcome: Cow<'static, str>,
}

/// What became of one thing of a list.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct FeedbackItem {
    /// Its place in the request, from 0.
    pub index: usize,
    /// The outcome, or an error.
    #[serde(flatten)]
    pub result: FeedbackItemOutcome,
}

/// The outcome of one thing of a list, or why it was not taken.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(untagged)]
pub enum FeedbackItemOutcome {
    /// It was taken.
    Accepted(FeedbackStatus),
    /// It was not; the others are not concerned.
    Rejected {
        /// Why.
        error: Box<Problem>,
    },
}
