//! `POST /predict`: one text, one answer.

use std::iter;

use axum::Json;
use axum::response::{IntoResponse, Response};
use predictd_api::predictions::Prediction;
use predictd_api::problem::Problem;
use predictd_inference::arm_route::{ArmRoute, ModelSelector};
use predictd_inference::zero_shot::ZeroShotQuery;
use predictd_inference::{RequestPart, RoutedRequest};
use predictd_text::input::Input;
use serde::Deserialize;
use serde::de::IgnoredAny;
use utoipa::ToSchema;
use validator::{Validate, ValidateArgs};

use super::body::{RequestBody, ValidatedJson};
use super::call_error::CallError;
use super::candidate_labels::{self, CandidateLabel};
use super::error::ApiError;
use super::inference_call::InferenceCall;
use super::json;
use super::prediction::{ResponseOptions, next_prediction};
use super::prediction_headers::PredictionHeaders;
use super::prediction_size::{ResponseFields, prediction_json_size};
use super::response_size::ResponseSize;
use super::validation;
use crate::settings::RequestLimits;

/// A text, and what its answer shows.
#[derive(Debug, Deserialize, Validate, ToSchema)]
#[serde(deny_unknown_fields)]
#[validate(context = RequestLimits)]
pub struct PredictRequest {
    /// The text.
    #[schema(value_type = Text)]
    #[validate(custom(function = "validation::check_prediction_text", use_context))]
    pub text: String,
    /// The second text, for a model that judges two: a hypothesis, a passage.
    #[schema(value_type = Option<Text>, nullable = false)]
    #[validate(custom(function = "validation::check_prediction_text", use_context))]
    pub text_pair: Option<String>,
    /// Labels to choose from, for a model of natural language inference (zero-shot classification).
    #[schema(value_type = Option<Vec<CandidateLabel>>, nullable = false, min_items = 1, max_items = 100, example = json!(["card", "transfer", "cash"]))]
    #[validate(custom(function = "candidate_labels::check_labels"))]
    pub labels: Option<Vec<String>>,
    /// The hypothesis: each of the labels replaces its `{}`.
    #[schema(nullable = false, max_length = 1024, default = "This example is {}.")]
    #[validate(custom(function = "candidate_labels::check_template"))]
    pub hypothesis_template: Option<String>,
    /// Score each of the labels independently: any number of them can apply.
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
    /// The model; the default model if absent.
    #[schema(max_length = 64, pattern = "^[a-z0-9]([.]?[a-z0-9_-])*[.]?$")]
    #[validate(custom(function = "validation::check_name"))]
    pub model: Option<String>,
    /// The version; the active version if absent.
    #[schema(max_length = 64, pattern = "^[a-z0-9]([.]?[a-z0-9_-])*[.]?$")]
    #[validate(custom(function = "validation::check_name"))]
    pub version: Option<String>,
    /// The user id: an experiment answers one user always with the same version. The header X-User-Id can name it too.
    #[schema(min_length = 1, max_length = 256)]
    #[validate(length(min = 1, max = 256, message = "user_id must have 1 to 256 characters"))]
    pub user_id: Option<String>,
    /// Answer with the model's own scores instead of probabilities.
    #[serde(default)]
    pub raw_scores: bool,
}

/// A text. At most `--max-text-chars` characters, not blank, and without control characters other than tab and the ends
/// of lines unless `--markup` or the model says otherwise.
#[derive(ToSchema)]
#[schema(
    example = "My new card has not come yet, where is it?",
    min_length = 1,
    max_length = 32768,
    pattern = r"^[^\u0000-\u0008\u000B\u000C\u000E-\u001F\u007F-\u009F]*[^\s\u0000-\u0008\u000E-\u001F\u007F-\u009F][^\u0000-\u0008\u000B\u000C\u000E-\u001F\u007F-\u009F]*$"
)]
#[expect(dead_code, reason = "only described")]
struct Text(String);

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

impl PredictRequest {
    fn selector(&self) -> ModelSelector<'_> {
        ModelSelector {
            model: self.model.as_deref(),
            version: self.version.as_deref(),
            user_id: self.user_id.as_deref(),
        }
    }

    fn options(&self) -> ResponseOptions {
        ResponseOptions { probabilities: self.return_probabilities, top_k: self.top_k, raw_scores: self.raw_scores }
    }

    /// Items that the text becomes: one per label.
    fn item_count(&self) -> usize {
        self.labels.as_ref().map_or(1, Vec::len)
    }

    /// The most that the response can need.
    fn response_size(&self, route: &ArmRoute) -> ResponseSize {
        let fields = ResponseFields { candidate_labels: self.labels.as_deref(), options: self.options() };
        let bytes = self.text.len() + self.text_pair.as_ref().map_or(0, String::len);
        ResponseSize::max_for_models(route.candidate_models(), &iter::once(bytes), self.item_count(), |model| {
            prediction_json_size(model, fields)
        })
    }

    fn into_inference(self, call: &InferenceCall, route: ArmRoute) -> RoutedRequest {
        let Self { text, text_pair, labels, hypothesis_template: template, multi_label, .. } = self;
        let zero_shot = labels.map(|labels| ZeroShotQuery { labels, template, multi_label });
        let request = call.request(route, vec![Input::new(text, text_pair)]);
        RoutedRequest { zero_shot, all_or_nothing: true, ..request }
    }
}

/// Where a part of the request stands in the body. With labels, each item is a label.
fn pointer(has_labels: bool, part: RequestPart) -> String {
    match part {
        RequestPart::SecondText(index) if has_labels => format!("/labels/{index}"),
        RequestPart::CandidateLabels => "/labels".to_owned(),
        RequestPart::SecondText(_) | RequestPart::SecondTexts => "/text_pair".to_owned(),
        RequestPart::Text(_) => "/text".to_owned(),
        RequestPart::UserId => "/user_id".to_owned(),
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
    params(PredictionHeaders),
    responses(
        (status = 200, body = Prediction),
        (status = 500, body = Problem, content_type = "application/problem+json", description = "The model failed"),
    )
)]
pub async fn predict(
    call: InferenceCall,
    ValidatedJson(request, _memory): ValidatedJson<PredictRequest>,
) -> Result<Response, ApiError> {
    let has_labels = request.labels.is_some();
    answer(call, request).await.map_err(|error| error.into_api_error(|part| pointer(has_labels, part)))
}

async fn answer(call: InferenceCall, request: PredictRequest) -> Result<Response, CallError> {
    let route = call.resolve(request.selector())?;
    call.charge_texts(request.item_count())?;
    let size = request.response_size(&route);
    let options = request.options();
    let (extensions, mut answers) = call.infer(request.into_inference(&call, route), size).await?;
    Ok((extensions, Json(next_prediction(&mut answers, options)?)).into_response())
}
