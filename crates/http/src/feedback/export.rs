//! `GET /admin/feedback`: all feedback, page by page.

use std::sync::Arc;

use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use predictd_api::feedback::{ExportedFeedback, FeedbackPage};
use predictd_inference::feedback_service::FeedbackService;
use predictd_registry::database::feedback::FeedbackPageLimit;
use predictd_registry::feedback::FeedbackRecord;
use serde::Deserialize;

use crate::error::ApiError;
use crate::registry::wire::format_millis;

/// Most of one page.
const PAGE_LIMITS: FeedbackPageLimit = FeedbackPageLimit { max_rows: 1_000, max_text_bytes: 1 << 20 };

/// The page that a client asks for.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExportQuery {
    /// Of this model only.
    pub model: Option<String>,
    /// Feedback after this: `next` of the page before.
    pub after: Option<String>,
}

/// All feedback, page by page.
#[utoipa::path(get, path = "/admin/feedback")]
pub async fn export(
    State(feedback): State<Arc<FeedbackService>>,
    part: Result<Query<ExportQuery>, QueryRejection>,
) -> Result<Json<FeedbackPage>, ApiError> {
    let Query(part) = part.map_err(|_| ApiError::at_pointer("", "the query can have `model` and `after`"))?;
    let (reported_at, id) = part.after.as_deref().map(parse_position).transpose()?.unwrap_or_default();
    let (feedback, more) = feedback.runtime()?.list(part.model, (reported_at, id), PAGE_LIMITS).await?;
    let last = feedback.last().filter(|_| more);
    let next = last.map(|last| format!("{}.{}", last.reported_at, last.id));
    Ok(Json(FeedbackPage { feedback: feedback.into_iter().map(exported_feedback).collect(), next }))
}

/// The place of a page in all feedback: the time and the id of the last entry before it.
fn parse_position(after: &str) -> Result<(i64, String), ApiError> {
    let parts = after.split_once('.');
    let position = parts.and_then(|(reported_at, id)| Some((reported_at.parse().ok()?, id.to_owned())));
    position.ok_or_else(|| ApiError::at_pointer("/after", "it is not the `next` of another part"))
}

fn exported_feedback(feedback: FeedbackRecord) -> ExportedFeedback {
    ExportedFeedback {
        correct: feedback.is_correct(),
        made: format_millis(feedback.predicted_at),
        // In microseconds.
        told: format_millis(feedback.reported_at / 1_000),
        id: feedback.id,
        model: feedback.model,
        version: feedback.version,
        arm: feedback.arm,
        predicted: feedback.predicted,
        confidence: feedback.confidence,
        actual: feedback.actual,
        text: feedback.text,
        who: feedback.caller,
    }
}
