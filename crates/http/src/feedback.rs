//! `POST /feedback`: the true labels of earlier answers.

pub mod export;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Instant;

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use predictd_experiments::receipts::{LabelSource, Receipt, ReceiptError};
use predictd_platform::clock;
use predictd_registry::feedback::FeedbackRecord;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::body::{RequestBody, ValidatedJson};
use super::caller::Caller;
use super::error::{ApiError, Code, FieldError, Problem};
use super::json;
use super::rate_limit;
use super::state::App;
use super::validation;
use crate::settings::RequestLimits;

/// Most things told in one request.
const MAX_ITEMS: usize = 10_000;
/// Most true labels of one answer.
const MAX_LABELS: usize = 256;
/// Longest label, in characters.
const MAX_LABEL_CHARS: usize = 256;
/// Longest prediction id, in characters.
const MAX_PREDICTION_ID_CHARS: usize = 8_192;
/// Bytes of one result of a list, in memory and as JSON.
const RESULT_BYTES: usize = 512;
/// Most places of a list that are told to be wrong.
const MAX_REPORTED_ERRORS: usize = 100;

/// The truth about an earlier answer.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct GroundTruth {
    /// The `prediction_id` of the answer.
    #[schema(min_length = 1, max_length = 8192)]
    pub prediction_id: String,
    /// The label that would have been right, or all of them.
    pub actual: ActualLabels,
    /// The text that was asked about, as it was sent then, to be kept with the truth for a training; it is kept nowhere otherwise.
    #[serde(default)]
    #[schema(max_length = 32768)]
    pub text: Option<String>,
}

/// A true label, or all of them.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(untagged, expecting = "expected a label or a list of labels")]
pub enum ActualLabels {
    /// The only one.
    One(TrueLabel),
    /// All of them; none if no label is right.
    Many(TrueLabels),
}

/// A label of the model.
#[derive(Debug, Deserialize, ToSchema)]
#[schema(example = "card_arrival", min_length = 1, max_length = 256)]
pub struct TrueLabel(String);

/// Labels of the model, each once.
#[derive(Debug, Deserialize, ToSchema)]
#[schema(min_items = 0, max_items = 256)]
pub struct TrueLabels(Vec<TrueLabel>);

/// One thing told, or a list of them.
// Only for the description: what is read is a `FeedbackRequest`, whose errors say more.
#[derive(Debug, Deserialize, ToSchema)]
#[schema(as = FeedbackRequest)]
#[serde(untagged)]
#[expect(dead_code, reason = "only described")]
enum FeedbackForms {
    /// About one answer.
    One(GroundTruth),
    /// About several.
    List(GroundTruthList),
}

/// What is told of several answers.
#[derive(Debug, Deserialize, ToSchema)]
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
        let labels = match &self.actual {
            ActualLabels::One(label) => std::slice::from_ref(label),
            ActualLabels::Many(TrueLabels(labels)) => labels.as_slice(),
        };
        if labels.len() > MAX_LABELS {
            return Err(("actual", format!("at most {MAX_LABELS} labels are possible")));
        }
        if !labels.iter().all(|TrueLabel(label)| (1..=MAX_LABEL_CHARS).contains(&label.chars().count())) {
            return Err(("actual", format!("a label must have 1 to {MAX_LABEL_CHARS} characters")));
        }
        let text = self.text.as_ref().map_or(Ok(()), |text| validation::check_stored_text(text, limits));
        text.map_err(|error| ("text", error.message.unwrap_or_default().into_owned()))
    }
}

impl RequestBody for FeedbackRequest {
    fn parse(bytes: &[u8]) -> Result<Self, ApiError> {
        if json::is_list(bytes) {
            return Ok(Self { truths: json::from_json(bytes)?, is_list: true });
        }
        Ok(Self { truths: vec![json::from_json(bytes)?], is_list: false })
    }

    fn check(&self, limits: &RequestLimits) -> Result<(), ApiError> {
        if !(1..=MAX_ITEMS).contains(&self.truths.len()) {
            let told = self.truths.len();
            return Err(ApiError::at_pointer(
                "",
                format!("there are {told} things told, where 1 to {MAX_ITEMS} are possible"),
            ));
        }
        let wrong = |(index, truth): (usize, &GroundTruth)| {
            let (field, detail) = truth.check(limits).err()?;
            let pointer = if self.is_list { format!("/{index}/{field}") } else { format!("/{field}") };
            Some(FieldError { pointer, detail })
        };
        let wrong: Vec<FieldError> =
            self.truths.iter().enumerate().filter_map(wrong).take(MAX_REPORTED_ERRORS).collect();
        if wrong.is_empty() { Ok(()) } else { Err(ApiError::from_field_errors(wrong)) }
    }
}

/// What became of what was told.
#[derive(Debug, Serialize, ToSchema)]
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
#[derive(Debug, Serialize, ToSchema)]
pub struct FeedbackStatus {
    /// `stored`; `corrected` if something else was told before; `unchanged` if the same was; `waiting` if it is on disk until the database answers.
    pub outcome: &'static str,
}

/// What became of one thing of a list.
#[derive(Debug, Serialize, ToSchema)]
pub struct FeedbackItem {
    /// Its place in the request, from 0.
    pub index: usize,
    /// The outcome, or an error.
    #[serde(flatten)]
    pub result: FeedbackItemOutcome,
}

/// The outcome of one thing of a list, or why it was not taken.
#[derive(Debug, Serialize, ToSchema)]
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

/// Tell the true labels of earlier answers.
///
/// Late, in any order, and as often as you like: what is told twice is kept once, and what is told last of an answer counts.
#[utoipa::path(
    post,
    path = "/feedback",
    tag = "predictions",
    request_body = FeedbackForms,
    responses(
        (status = 200, body = FeedbackAnswer, description = "Kept. Of a list, what could not be taken has an error in its place"),
        (status = 400, body = Problem, content_type = "application/problem+json", description = "Not JSON, cut short, or a header without a valid value"),
        (status = 404, body = Problem, content_type = "application/problem+json", description = "No such prediction"),
        (status = 410, body = Problem, content_type = "application/problem+json", description = "The prediction is older than 30 days"),
        (status = 413, body = Problem, content_type = "application/problem+json", description = "Body over --max-body"),
        (status = 415, body = Problem, content_type = "application/problem+json", description = "Not JSON in UTF-8"),
        (status = 422, body = Problem, content_type = "application/problem+json", description = "A field is missing, unknown or out of its limits, no label of the model, or not the text of the prediction"),
        (status = 503, body = Problem, content_type = "application/problem+json", description = "Neither the database nor the disk takes it now"),
    )
)]
pub async fn feedback(
    State(app): State<Arc<App>>,
    caller: Caller,
    ValidatedJson(request, _memory): ValidatedJson<FeedbackRequest>,
) -> Result<Response, ApiError> {
    let FeedbackRequest { truths, is_list } = request;
    rate_limit::charge_remaining_texts(&app, &caller, truths.len())?;
    let deadline = Instant::now() + app.limits.requests.timeout;
    let reserved = app.limits.response_budget.reserve(truths.len() * RESULT_BYTES, deadline).await?.map(Extension);
    let store = Arc::clone(&app.require_registry()?.services().feedback);
    let who = caller.to_string();
    let read = |(index, truth)| {
        let pointer = if is_list { format!("/{index}") } else { String::new() };
        verify_truth(&app, truth, &pointer).map(|feedback| FeedbackRecord {
            caller: who.clone(),
            reported_at: store.next_timestamp(),
            ..feedback
        })
    };
    let read: Vec<Result<FeedbackRecord, ApiError>> = truths.into_iter().enumerate().map(read).collect();
    let good: Vec<FeedbackRecord> = read.iter().filter_map(|one| one.as_ref().ok().cloned()).collect();
    for _ in good.len()..read.len() {
        app.telemetry.metrics.record_feedback("refused");
    }
    let told = if good.is_empty() {
        Vec::new()
    } else {
        app.require_registry()?.run(|services| async move { services.feedback.store(&good).await }).await?
    };
    let mut told = told.into_iter();
    let mut outcome = |one: Result<FeedbackRecord, ApiError>| {
        one.and_then(|_| told.next().ok_or_else(|| ApiError::new(Code::Internal, "It was not said what became of it.")))
            .map(|told| FeedbackStatus { outcome: told.name() })
    };
    if !is_list {
        let one = read.into_iter().next().ok_or_else(|| ApiError::at_pointer("", "nothing was told"))?;
        return Ok((reserved, Json(FeedbackAnswer::One(outcome(one)?))).into_response());
    }
    let item = |(index, one)| {
        let result = match outcome(one) {
            Ok(told) => FeedbackItemOutcome::Accepted(told),
            Err(error) => FeedbackItemOutcome::Rejected { error: Box::new(error.to_problem(None)) },
        };
        FeedbackItem { index, result }
    };
    let results = read.into_iter().enumerate().map(item).collect();
    Ok((reserved, Json(FeedbackAnswer::Many { results })).into_response())
}

/// The error of a field of an item at `pointer`.
fn field_error(pointer: &str, field: &str, detail: impl Into<String>) -> ApiError {
    ApiError::at_pointer(format!("{pointer}/{field}"), detail)
}

/// Checks one item of feedback. `pointer`: its place in the body.
fn verify_truth(app: &App, truth: GroundTruth, pointer: &str) -> Result<FeedbackRecord, ApiError> {
    let receipt = app.inference.receipts.verify(&truth.prediction_id, clock::now()).map_err(|error| {
        let code = match error {
            ReceiptError::Forged => Code::UnknownPrediction,
            ReceiptError::Expired => Code::PredictionExpired,
        };
        ApiError::new(code, format!("{pointer}/prediction_id: {error}."))
    })?;
    if receipt.label_source == LabelSource::NoLabels {
        return Err(field_error(pointer, "prediction_id", "the answer has no label that could be right or wrong"));
    }
    if receipt.is_truncated {
        return Err(field_error(pointer, "prediction_id", "the answer has more labels than a prediction id holds"));
    }
    let actual: Vec<String> = match truth.actual {
        ActualLabels::One(TrueLabel(label)) => vec![label],
        ActualLabels::Many(TrueLabels(labels)) => labels.into_iter().map(|TrueLabel(label)| label).collect(),
    };
    if actual.iter().collect::<BTreeSet<_>>().len() != actual.len() {
        return Err(field_error(pointer, "actual", "each label can be there once"));
    }
    if !actual.iter().all(|label| is_possible_label(app, &receipt, label)) {
        let detail = "this is no label of the model; GET /models/{name} lists them";
        return Err(field_error(pointer, "actual", detail));
    }
    let text = match truth.text {
        Some(text) => Some(verify_text(app, &receipt, text).map_err(|detail| field_error(pointer, "text", detail))?),
        None => None,
    };
    let made = clock::since_unix_epoch(receipt.issued_at);
    Ok(FeedbackRecord {
        id: receipt.id.simple().to_string(),
        predicted_at: i64::try_from(made.as_millis()).unwrap_or(i64::MAX),
        model: receipt.model,
        version: receipt.version,
        arm: receipt.arm_path,
        predicted: receipt.labels,
        confidence: receipt.confidence,
        actual,
        text,
        caller: String::new(),
        reported_at: 0,
    })
}

/// The text of an answer as it is kept: it is the one that was asked about, and what the policy of the version that
/// answered leaves of it; that of the server, where the version is not loaded any more. Receipts of earlier versions of
/// the server do not tell of their text: then it is any.
fn verify_text(app: &App, receipt: &Receipt, text: String) -> Result<String, String> {
    if app.inference.receipts.fingerprint_matches(receipt, &text) == Some(false) {
        return Err("this is not the text of this prediction: send it as it was sent to be predicted, or leave it out"
            .to_owned());
    }
    let snapshot = app.models.registry.snapshot();
    let served = snapshot.models.get(&receipt.model);
    let answered = served.and_then(|served| served.ready_model(&receipt.version));
    let policy = answered.map_or(&app.models.text_policy, |model| model.pipeline().policy());
    policy.apply(text).map_err(|error| error.to_string())
}

/// True for a label of the version that answered. If that is not loaded any more nobody knows its labels, and those of a
/// request are the caller's own: then for anything that can be a label.
fn is_possible_label(app: &App, receipt: &Receipt, label: &str) -> bool {
    let snapshot = app.models.registry.snapshot();
    let served = snapshot.models.get(&receipt.model);
    let answered = served.and_then(|served| served.ready_model(&receipt.version));
    match answered.filter(|_| receipt.label_source == LabelSource::Model) {
        // Receipts of the format before do not tell labels of a request from those of the model.
        Some(model) => model.pipeline().labels().iter().chain(&receipt.labels).any(|known| known == label),
        None => !label.chars().any(char::is_control),
    }
}
