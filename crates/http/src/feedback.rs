//! `POST /feedback`: the true labels of earlier answers.

pub mod export;

use std::time::Instant;

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use predictd_api::feedback::{FeedbackAnswer, FeedbackItem, FeedbackItemOutcome, FeedbackStatus};
use predictd_api::problem::{FieldError, Problem};
use predictd_experiments::receipts::ReceiptError;
use predictd_inference::feedback_service::{Feedback, FeedbackError};
use predictd_registry::feedback::FeedbackWriteOutcome;
use serde::{Deserialize, Deserializer};
use utoipa::ToSchema;

use super::body::{RequestBody, ValidatedJson};
use super::caller::Caller;
use super::error::{ApiError, Code};
use super::json;
use super::rate_limit;
use super::state::App;
use super::validation;
use crate::settings::RequestLimits;

/// Most items of one request.
const MAX_ITEMS: usize = 10_000;
/// Most true labels of one answer.
const MAX_LABELS: usize = 256;
/// Longest label, in characters.
const MAX_LABEL_CHARS: usize = 256;
/// Longest prediction id, in characters.
const MAX_PREDICTION_ID_CHARS: usize = 8_192;
/// Bytes of one result of a list, in memory and as JSON.
const RESULT_BYTES: usize = 512;
/// Most errors of one answer.
const MAX_REPORTED_ERRORS: usize = 100;

/// The truth about an earlier answer.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct GroundTruth {
    /// The `prediction_id` of the answer.
    #[schema(min_length = 1, max_length = 8192)]
    pub prediction_id: String,
    /// The label that would have been right, or all of them.
    #[serde(deserialize_with = "read_labels")]
    #[schema(value_type = ActualLabels)]
    pub actual: Vec<String>,
    /// The text that was asked about, as it was sent then, to be kept with the truth for a training; it is kept nowhere otherwise.
    #[schema(max_length = 32768)]
    pub text: Option<String>,
}

/// A true label, or all of them.
#[derive(Deserialize, ToSchema)]
#[serde(untagged, expecting = "expected a label or a list of labels")]
enum ActualLabels {
    /// The only one.
    One(TrueLabel),
    /// All of them; none if no label is right.
    Many(TrueLabels),
}

/// A label of the model.
#[derive(Deserialize, ToSchema)]
#[schema(example = "card_arrival", min_length = 1, max_length = 256)]
struct TrueLabel(String);

/// Labels of the model, each once.
#[derive(Deserialize, ToSchema)]
#[schema(min_items = 0, max_items = 256)]
struct TrueLabels(Vec<TrueLabel>);

fn read_labels<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    Ok(match ActualLabels::deserialize(deserializer)? {
        ActualLabels::One(TrueLabel(label)) => vec![label],
        ActualLabels::Many(TrueLabels(labels)) => labels.into_iter().map(|TrueLabel(label)| label).collect(),
    })
}

/// One item of feedback, or a list of them.
// Only for the description: what is read is a `FeedbackRequest`, whose errors say more.
#[derive(Deserialize, ToSchema)]
#[schema(as = FeedbackRequest)]
#[serde(untagged)]
#[expect(dead_code, reason = "only described")]
enum FeedbackForms {
    /// About one answer.
    One(GroundTruth),
    /// About several.
    List(GroundTruthList),
}

/// Feedback on several answers.
#[derive(Deserialize, ToSchema)]
#[schema(min_items = 1, max_items = 10_000)]
#[expect(dead_code, reason = "only described")]
struct GroundTruthList(Vec<GroundTruth>);

/// Feedback in either form.
#[derive(Debug)]
pub struct FeedbackRequest {
    truths: Vec<GroundTruth>,
    is_list: bool,
}

impl GroundTruth {
    /// Whether it is within its limits; else the field, and what is wrong with it.
    fn check(&self, limits: &RequestLimits) -> Result<(), (&'static str, String)> {
        if !(1..=MAX_PREDICTION_ID_CHARS).contains(&self.prediction_id.len()) {
            return Err(("prediction_id", format!("it must have 1 to {MAX_PREDICTION_ID_CHARS} characters")));
        }
        if self.actual.len() > MAX_LABELS {
            return Err(("actual", format!("at most {MAX_LABELS} labels are possible")));
        }
        if !self.actual.iter().all(|label| (1..=MAX_LABEL_CHARS).contains(&label.chars().count())) {
            return Err(("actual", format!("a label must have 1 to {MAX_LABEL_CHARS} characters")));
        }
        let text = self.text.as_ref().map_or(Ok(()), |text| validation::check_stored_text(text, limits));
        text.map_err(|error| ("text", error.message.unwrap_or_default().into_owned()))
    }
}

impl RequestBody for FeedbackRequest {
    fn parse(bytes: &[u8]) -> Result<Self, ApiError> {
        let is_list = json::is_list(bytes);
        let truths = if is_list { json::from_json(bytes)? } else { vec![json::from_json(bytes)?] };
        Ok(Self { truths, is_list })
    }

    fn check(&self, limits: &RequestLimits) -> Result<(), ApiError> {
        if !(1..=MAX_ITEMS).contains(&self.truths.len()) {
            let count = self.truths.len();
            return Err(ApiError::at_pointer(
                "",
                format!("the request has {count} items; 1 to {MAX_ITEMS} are possible"),
            ));
        }
        let wrong = self.truths.iter().enumerate().filter_map(|(index, truth)| {
            let (field, detail) = truth.check(limits).err()?;
            let pointer = if self.is_list { format!("/{index}/{field}") } else { format!("/{field}") };
            Some(FieldError { pointer, detail })
        });
        let wrong: Vec<FieldError> = wrong.take(MAX_REPORTED_ERRORS).collect();
        if wrong.is_empty() { Ok(()) } else { Err(ApiError::from_field_errors(wrong)) }
    }
}

/// Send the true labels of earlier answers.
///
/// Send them late, in any order and repeatedly: the same label is stored once, and the last label of an answer counts.
#[utoipa::path(
    post,
    path = "/feedback",
    tag = "predictions",
    request_body = FeedbackForms,
    responses(
        (status = 200, body = FeedbackAnswer, description = "Kept. Of a list, what could not be taken has an error in its place"),
        (status = 404, body = Problem, content_type = "application/problem+json", description = "No such prediction"),
        (status = 410, body = Problem, content_type = "application/problem+json", description = "The prediction is older than 30 days"),
        (status = 422, body = Problem, content_type = "application/problem+json", description = "A field is missing, unknown or out of its limits, no label of the model, or not the text of the prediction"),
        (status = 503, body = Problem, content_type = "application/problem+json", description = "Neither the database nor the disk takes it now"),
    )
)]
pub async fn feedback(
    State(app): State<App>,
    caller: Caller,
    ValidatedJson(request, _memory): ValidatedJson<FeedbackRequest>,
) -> Result<Response, ApiError> {
    let FeedbackRequest { truths, is_list } = request;
    rate_limit::charge_remaining_texts(&app.access, &app.telemetry, &caller, truths.len())?;
    let deadline = Instant::now() + app.limits.requests.timeout;
    let reservation = app.limits.response_budget.reserve(truths.len() * RESULT_BYTES, deadline).await?;
    let feedback = truths.into_iter().map(|truth| Feedback {
        prediction_id: truth.prediction_id,
        labels: truth.actual,
        text: truth.text,
    });
    let outcomes = app.feedback.submit(feedback.collect(), &caller.to_string()).await?;
    let answer = Json(answer_in_request_form(outcomes, is_list)?);
    Ok((reservation.map(Extension), answer).into_response())
}

/// In the form of the request. The error of a single piece of feedback is that of the request.
fn answer_in_request_form(
    outcomes: Vec<Result<FeedbackWriteOutcome, FeedbackError>>,
    is_list: bool,
) -> Result<FeedbackAnswer, ApiError> {
    let mut results = Vec::with_capacity(outcomes.len());
    for (index, outcome) in outcomes.into_iter().enumerate() {
        let status = outcome.map(|outcome| FeedbackStatus { outcome: outcome.name().into() });
        if !is_list {
            return status.map(FeedbackAnswer::One).map_err(|error| to_api_error(error, ""));
        }
        let result = match status {
            Ok(status) => FeedbackItemOutcome::Accepted(status),
            Err(error) => {
                let error = to_api_error(error, &format!("/{index}"));
                FeedbackItemOutcome::Rejected { error: Box::new(error.to_problem(None)) }
            }
        };
        results.push(FeedbackItem { index, result });
    }
    Ok(FeedbackAnswer::Many { results })
}

/// The error of the piece of feedback at `pointer`.
fn to_api_error(error: FeedbackError, pointer: &str) -> ApiError {
    let field = match error {
        FeedbackError::Receipt(reason) => {
            let code = match reason {
                ReceiptError::Forged => Code::UnknownPrediction,
                ReceiptError::Expired => Code::PredictionExpired,
            };
            return ApiError::new(code, format!("{pointer}/prediction_id: {reason}."));
        }
        FeedbackError::NoOutcome => return ApiError::new(Code::Internal, error.to_string()),
        FeedbackError::NoLabels | FeedbackError::TruncatedLabels => "prediction_id",
        FeedbackError::DuplicateLabel | FeedbackError::UnknownLabel => "actual",
        FeedbackError::TextMismatch | FeedbackError::Policy(_) => "text",
    };
    ApiError::at_pointer(format!("{pointer}/{field}"), error.to_string())
}
