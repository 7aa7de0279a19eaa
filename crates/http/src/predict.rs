//! `POST /predict`: one text, one answer.

use std::sync::Arc;

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use predictd_engine::ItemOutput;
use predictd_engine::loaded_version::LoadedVersion;
use predictd_experiments::counters::AnswerSource;
use predictd_text::input::{Input, SecondText};
use serde::Deserialize;
use serde::de::IgnoredAny;
use utoipa::ToSchema;
use validator::{Validate, ValidateArgs, ValidationError};

use super::arm_router::{ArmRoute, ModelSelector, RequestOptions};
use super::body::{RequestBody, ValidatedJson};
use super::cache_control::CacheControl;
use super::deadline::Deadline;
use super::error::{ApiError, Code, Problem};
use super::json;
use super::prediction::{Prediction, ResponseOptions, build_prediction};
use super::rate_limit;
use super::request_summary::RequestSummary;
use super::response_budget::ResponseGrant;
use super::response_size::{ResponseFields, ResponseSize};
use super::shadow_traffic::{self, ShadowRequest};
use super::state::App;
use super::user_id::CallerAndUser;
use super::validation;
use super::zero_shot::{self, CandidateLabel, ZeroShotQuery};
use crate::settings::RequestLimits;

/// A text and what to say about it.
#[derive(Debug, Deserialize, Validate, ToSchema)]
#[serde(deny_unknown_fields)]
#[validate(context = RequestLimits)]
pub struct PredictRequest {
    /// The text.
    #[schema(value_type = Text)]
    #[validate(custom(function = "check_text", use_context))]
    pub text: String,
    /// The second text, for a model that judges two: a hypothesis, a passage.
    #[schema(value_type = Option<Text>, nullable = false)]
    #[validate(custom(function = "check_text", use_context))]
    pub text_pair: Option<String>,
    /// Labels to choose from, for a model that tells whether one text follows from another (zero-shot classification).
    #[schema(value_type = Option<Vec<CandidateLabel>>, nullable = false, min_items = 1, max_items = 100, example = json!(["card", "transfer", "cash"]))]
    #[validate(custom(function = "check_labels"))]
    pub labels: Option<Vec<String>>,
    /// What each of the labels is put into, in place of `{}`.
    #[schema(nullable = false, max_length = 1024, default = "This example is {}.")]
    #[validate(custom(function = "check_template"))]
    pub hypothesis_template: Option<String>,
    /// Judge each of the labels for itself: any number of them can be right.
    #[serde(default)]
    pub multi_label: bool,
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
    /// Who asks: an experiment answers one user always with the same version. Or the header X-User-Id.
    #[schema(min_length = 1, max_length = 256)]
    #[validate(length(min = 1, max = 256, message = "user_id must have 1 to 256 characters"))]
    pub user_id: Option<String>,
    /// Answer with the model's own scores instead of probabilities.
    #[serde(default)]
    pub raw_scores: bool,
}

/// A text. At most `--max-text-chars` characters, not blank, and without control characters other than tab and the ends
/// of lines unless `--markup` or the model says otherwise.
#[derive(Debug, Deserialize, ToSchema)]
#[schema(
    example = "My new card has not come yet, where is it?",
    min_length = 1,
    max_length = 32768,
    pattern = r"^[^\u0000-\u0008\u000B\u000C\u000E-\u001F\u007F-\u009F]*[^\s\u0000-\u0008\u000E-\u001F\u007F-\u009F][^\u0000-\u0008\u000B\u000C\u000E-\u001F\u007F-\u009F]*$"
)]
#[expect(dead_code, reason = "only described")]
struct Text(String);

fn check_text(text: &str, limits: &RequestLimits) -> Result<(), ValidationError> {
    validation::check_prediction_text(text, limits)
}

fn check_labels(labels: &[String]) -> Result<(), ValidationError> {
    zero_shot::check_labels(labels)
}

fn check_template(template: &str) -> Result<(), ValidationError> {
    zero_shot::check_template(template)
}

fn check_name(name: &str) -> Result<(), ValidationError> {
    validation::check_name(name)
}

impl RequestBody for PredictRequest {
    fn parse(bytes: &[u8]) -> Result<Self, ApiError> {
        if json::is_list(bytes) {
            // serde would take its items for the fields, in their order.
            json::from_json::<IgnoredAny>(bytes)?;
            return Err(ApiError::at_pointer("", "expected an object"));
        }
        json::from_json(bytes)
    }

    fn check(&self, limits: &RequestLimits) -> Result<(), ApiError> {
        self.validate_with_args(limits).map_err(|errors| validation::to_api_error(&errors))?;
        match &self.labels {
            Some(_) if self.text_pair.is_some() => {
                Err(ApiError::at_pointer("/text_pair", "a request has labels or a second text, not both"))
            }
            None if self.hypothesis_template.is_some() => Err(labels_only_error("/hypothesis_template")),
            None if self.multi_label => Err(labels_only_error("/multi_label")),
            _ => Ok(()),
        }
    }
}

fn labels_only_error(pointer: &str) -> ApiError {
    ApiError::at_pointer(pointer, "this is only for a request with labels")
}

/// The pointer of an input that gets no answer: the text, its second text, or one of the labels.
fn input_pointer(with_labels: bool, index: usize, is_second_text: bool) -> String {
    match (with_labels, is_second_text) {
        (_, false) => "/text".to_owned(),
        (false, true) => "/text_pair".to_owned(),
        (true, true) => format!("/labels/{index}"),
    }
}

fn missing_answer() -> ApiError {
    ApiError::new(Code::Internal, "The text got no answer.")
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
    params(
        ("X-Request-Timeout-Ms" = Option<u64>, Header, nullable = false, format = "uint64", minimum = 1, maximum = 18_446_744_073_709_551_615_usize, description = "Time for the answer, in milliseconds; at most --max-timeout"),
        ("X-User-Id" = Option<String>, Header, nullable = false, min_length = 1, max_length = 256, description = "Who asks, as user_id: an experiment answers one user always with the same version")
    ),
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
    CallerAndUser(caller, header): CallerAndUser,
    ValidatedJson(request, _memory): ValidatedJson<PredictRequest>,
) -> Result<Response, ApiError> {
    let user = header.merge_with_body(request.user_id)?;
    let PredictRequest { text, text_pair, labels, hypothesis_template, multi_label, .. } = request;
    let wanted = ModelSelector {
        model: request.model.as_deref(),
        version: request.version.as_deref(),
        user_id: user.as_deref(),
    };
    let route = ArmRoute::resolve(&app.models.registry.snapshot(), wanted)?;
    if let Some(labels) = &labels {
        rate_limit::charge_remaining_texts(&app, &caller, labels.len())?;
    }
    let with_labels = labels.is_some();
    let mark = app.inference.receipts.fingerprint(&text);
    let bytes = text.len() + text_pair.as_ref().map_or(0, String::len);
    let top_k = request.top_k.map(|k| k as usize);
    let seen = ResponseFields { labels: labels.as_deref(), probabilities: request.return_probabilities, top_k };
    let size = ResponseSize::max_for_models(route.candidate_models(), &std::iter::once(bytes), seen);
    let ResponseGrant { reservation, max_entity_bytes } = app.limits.response_budget.grant(size, deadline).await?;
    let terms =
        RequestOptions { text_count: 1, deadline, cache_mode: cache_use, all_or_nothing: true, max_entity_bytes };
    let shown = route.check_shadow_size(bytes).filter(|()| !with_labels).map(|()| (text.clone(), text_pair.clone()));
    let mut question = None;
    let mut asked = (text, text_pair, labels, hypothesis_template);
    let inputs = |model: &Arc<LoadedVersion>, last: bool| {
        let (text, text_pair, labels, template) = if last { std::mem::take(&mut asked) } else { asked.clone() };
        if let Some(labels) = labels {
            return Ok(question.insert(ZeroShotQuery::new(model, labels, template, multi_label)?).to_inputs(&text));
        }
        if text_pair.is_some() {
            validation::check_takes_pairs(model, "/text_pair")?;
        }
        let pair = text_pair.map(|text| SecondText { text, truncate_only_first: false });
        Ok(vec![Input { text, second: pair }])
    };
    let answers = route.infer_with_fallback(&app, terms, inputs).await?.into_iter().enumerate();
    let answers = answers.map(|(index, answer)| {
        answer.map_err(|error| ApiError::from_text_error(error, |second| input_pointer(with_labels, index, second)))
    });
    let answers = answers.collect::<Result<Vec<_>, _>>()?;
    let first = answers.first().ok_or_else(missing_answer)?;
    let model = Arc::clone(&first.model);
    let answer_source = first.answer_source;
    let mut answers: Vec<ItemOutput> = answers.into_iter().map(|answered| answered.answer).collect();
    let story = RequestSummary {
        experiment_and_arm: route.owned_arm_names(),
        ..RequestSummary::from_answers(&model, &answers)
    };
    // Labels that are asked about are one text.
    let story = RequestSummary { texts: 1, cached: usize::from(story.cached == story.texts), ..story };
    let answer = match &question {
        Some(question) => question.combine_answers(&answers),
        None => answers.pop(),
    };
    let answer = answer.ok_or_else(missing_answer)?;
    if let Some((text, pair)) = shown.filter(|_| answer_source == AnswerSource::Arm) {
        shadow_traffic::mirror(&app, &route, ShadowRequest { text, pair, model: &model, answer: &answer });
    }
    let view = ResponseOptions {
        labels: question.as_ref().map(|question| question.labels.as_slice()),
        probabilities: request.return_probabilities,
        top_k,
        raw_scores: request.raw_scores,
        text_mark: mark,
        route: Some((&route, answer_source)),
    };
    let answer = Json(build_prediction(&app, &model, &answer, view)?);
    Ok((Extension(story), reservation.map(Extension), answer).into_response())
}
