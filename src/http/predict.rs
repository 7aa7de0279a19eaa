//! `POST /predict`: one text, one answer.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use serde::Deserialize;
use serde::de::IgnoredAny;
use utoipa::ToSchema;
use validator::{Validate, ValidateArgs, ValidationError};

use super::App;
use super::answer::{Prediction, View, prediction};
use super::batch::Text;
use super::body::{Checked, RequestBody};
use super::cache_control::CacheControl;
use super::checks;
use super::deadline::Deadline;
use super::error::{ApiError, Code, Problem};
use super::json;
use crate::config::Limits;

/// A text and what to say about it.
#[derive(Debug, Deserialize, Validate, ToSchema)]
#[serde(deny_unknown_fields)]
#[validate(context = Limits)]
pub struct PredictRequest {
    /// The text.
    #[schema(value_type = Text)]
    #[validate(custom(function = "check_text", use_context))]
    pub text: String,
    /// Answer with one score per label.
    #[serde(default)]
    pub return_probabilities: bool,
    /// Answer with the best labels, this many.
    #[serde(default, deserialize_with = "json::whole_number")]
    #[schema(minimum = 1, maximum = 1000)]
    #[validate(range(min = 1, max = 1000, message = "top_k must be between 1 and 1000"))]
    pub top_k: Option<u32>,
    /// Model that shall answer; the default model if not said.
    #[schema(max_length = 64, pattern = "^[a-z0-9]([.]?[a-z0-9_-])*[.]?$")]
    #[validate(custom(function = "check_name"))]
    pub model: Option<String>,
    /// Version that shall answer; the active one if not said.
    #[schema(max_length = 64, pattern = "^[a-z0-9]([.]?[a-z0-9_-])*[.]?$")]
    #[validate(custom(function = "check_name"))]
    pub version: Option<String>,
    /// Who asks: experiments answer one user always with the same version.
    #[schema(min_length = 1, max_length = 256)]
    #[validate(length(min = 1, max = 256, message = "user_id must have 1 to 256 characters"))]
    pub user_id: Option<String>,
    /// Answer with the model's own scores instead of probabilities.
    #[serde(default)]
    pub raw_scores: bool,
}

fn check_text(text: &str, limits: &Limits) -> Result<(), ValidationError> {
    checks::check_text(text, limits)
}

fn check_name(name: &str) -> Result<(), ValidationError> {
    checks::check_name(name)
}

impl RequestBody for PredictRequest {
    fn parse(bytes: &[u8]) -> Result<Self, ApiError> {
        if json::is_list(bytes) {
            // serde would take its items for the fields, in their order.
            json::from_json::<IgnoredAny>(bytes)?;
            return Err(ApiError::at("", "expected an object"));
        }
        json::from_json(bytes)
    }

    fn check(&self, limits: &Limits) -> Result<(), ApiError> {
        self.validate_with_args(limits).map_err(|errors| checks::invalid(&errors))
    }
}

/// Answer one text.
///
/// A text that was answered before may get that answer again; with `Cache-Control: no-cache` the model is run in any
/// case, and with `no-store` the answer is not kept either.
#[utoipa::path(
    post,
    path = "/predict",
    tag = "predictions",
    request_body = PredictRequest,
    params(("X-Request-Timeout-Ms" = Option<u64>, Header, nullable = false, format = "uint64", minimum = 1, maximum = 18_446_744_073_709_551_615_usize, description = "Time for the answer, in milliseconds; at most --max-timeout")),
    responses(
        (status = 200, body = Prediction),
        (status = 400, body = Problem, content_type = "application/problem+json", description = "Not JSON, cut short, or a header without a valid value"),
        (status = 404, body = Problem, content_type = "application/problem+json", description = "No such model or version"),
        (status = 413, body = Problem, content_type = "application/problem+json", description = "Body over --max-body"),
        (status = 415, body = Problem, content_type = "application/problem+json", description = "Not JSON in UTF-8"),
        (status = 422, body = Problem, content_type = "application/problem+json", description = "A field is missing, unknown or out of its limits"),
        (status = 500, body = Problem, content_type = "application/problem+json", description = "The model failed"),
        (status = 503, body = Problem, content_type = "application/problem+json", description = "Overloaded, or the model is not ready"),
        (status = 504, body = Problem, content_type = "application/problem+json", description = "Out of time"),
    )
)]
pub async fn predict(
    State(app): State<Arc<App>>,
    Deadline(deadline): Deadline,
    CacheControl(cache_use): CacheControl,
    Checked(request, _memory): Checked<PredictRequest>,
) -> Result<Json<Prediction>, ApiError> {
    let snapshot = app.registry.snapshot();
    let model = Arc::clone(snapshot.resolve(request.model.as_deref(), request.version.as_deref())?);
    let answers = app.engine.predict(&model, vec![request.text], deadline, cache_use).await;
    let mut answers = answers.map_err(|refusal| ApiError::refused(refusal, |_| "/text".to_owned()))?;
    let answer = answers.pop().ok_or_else(|| ApiError::new(Code::Internal, "The text got no answer."))??;
    app.metrics.predicted(model.name(), model.version(), 1);
    let view = View {
        probabilities: request.return_probabilities,
        top_k: request.top_k.map(|k| k as usize),
        raw_scores: request.raw_scores,
    };
    Ok(Json(prediction(&app, &model, &answer, view)?))
}
