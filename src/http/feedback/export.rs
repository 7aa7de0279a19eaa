//! `GET /admin/feedback`: all that was told of earlier answers.

use std::sync::Arc;
use std::time::UNIX_EPOCH;

use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use crate::http::App;
use crate::http::error::ApiError;
use crate::http::registry::keeping;
use crate::registry::database::feedback::Page;
use crate::registry::feedback::Feedback;

/// Most that is handed out at a time.
const PAGE: Page = Page { rows: 1_000, bytes: 1 << 20 };

/// Which part of what was told is asked for.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
pub struct Part {
    /// Of this model only.
    pub model: Option<String>,
    /// What was told after this: `next` of the part before.
    pub after: Option<String>,
}

/// A part of what was told, in its order.
#[derive(Debug, Serialize, ToSchema)]
pub struct Export {
    /// At most 1,000.
    pub feedback: Vec<Exported>,
    /// For the next part; none after the last.
    pub next: Option<String>,
}

/// An answer and the truth about it.
#[derive(Debug, Serialize, ToSchema)]
pub struct Exported {
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

/// All that was told of earlier answers, part by part.
#[utoipa::path(get, path = "/admin/feedback", tag = "admin", params(Part), responses((status = 200, body = Export)))]
pub async fn export(
    State(app): State<Arc<App>>,
    part: Result<Query<Part>, QueryRejection>,
) -> Result<Json<Export>, ApiError> {
    let Query(part) = part.map_err(|_| ApiError::at("", "the query can have `model` and `after`"))?;
    let place = |after: &str| {
        let (told, id) = after.split_once('.')?;
        Some((told.parse::<i64>().ok()?, id.to_owned()))
    };
    let after = match &part.after {
        None => (0, String::new()),
        Some(after) => place(after).ok_or_else(|| ApiError::at("/after", "it is not the `next` of another part"))?,
    };
    let read = keeping(&app)?
        .run(move |keeper| async move { Ok(keeper.told(part.model.as_deref(), (after.0, &after.1), PAGE).await?) });
    let (told, more) = read.await?;
    let last = told.last().filter(|_| more);
    let next = last.map(|last| format!("{}.{}", last.told, last.id));
    Ok(Json(Export { feedback: told.into_iter().map(Exported::from).collect(), next }))
}

impl From<Feedback> for Exported {
    fn from(feedback: Feedback) -> Self {
        let at = |micros: i64| {
            let since = std::time::Duration::from_micros(u64::try_from(micros).unwrap_or_default());
            humantime::format_rfc3339_millis(UNIX_EPOCH + since).to_string()
        };
        Self {
            correct: feedback.is_correct(),
            made: at(feedback.made.saturating_mul(1_000)),
            told: at(feedback.told),
            id: feedback.id,
            model: feedback.model,
            version: feedback.version,
            arm: feedback.arm,
            predicted: feedback.predicted,
            confidence: feedback.confidence,
            actual: feedback.actual,
            text: feedback.text,
            who: feedback.who,
        }
    }
}
