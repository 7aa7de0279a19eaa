//! `POST /batch_predict`: many texts, an answer each, in their order.

pub mod wire;

use std::sync::Arc;
use std::{iter, mem};

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use predictd_inference::RequestPart;
use predictd_inference::arm_route::ArmRoute;
use predictd_inference::response::InferenceResponse;
use predictd_text::input::Input;

use super::body::ValidatedJson;
use super::call_error::CallError;
use super::error::ApiError;
use super::inference_call::InferenceCall;
use super::prediction::{ResponseOptions, next_prediction};
use super::prediction_headers::PredictionHeaders;
use super::prediction_size::{ResponseFields, prediction_json_size};
use super::response_size::ResponseSize;
use super::response_stream::{JsonFrame, JsonListStream};
use super::state::LimitState;
use super::validation;
use crate::settings::RequestLimits;
use predictd_api::predictions::{BatchAnswer, BatchItem, ItemOutcome};
use wire::{BatchForms, BatchRequest};

/// What stands around the results.
const RESULT_FRAME: JsonFrame = JsonFrame { opening: "{\"results\":[", closing: "]}" };

/// Answer many texts.
///
/// A text that was answered before may get that answer again; with `Cache-Control: no-cache` the model is run in any
/// case, and with `no-store` the answer is not kept either.
#[utoipa::path(
    post,
    path = "/batch_predict",
    tag = "predictions",
    request_body = BatchForms,
    params(PredictionHeaders),
    responses((status = 200, body = BatchAnswer, description = "One result per text; a text that could not be answered has an error in its place"))
)]
pub async fn batch_predict(
    State(limits): State<Arc<LimitState>>,
    call: InferenceCall,
    ValidatedJson(request, _memory): ValidatedJson<BatchRequest>,
) -> Result<Response, ApiError> {
    let is_bare_list = request.is_bare_list;
    let answered = answer(call, request, &limits.requests).await;
    answered.map_err(|error| error.into_api_error(|part| pointer(is_bare_list, 0, part)))
}

async fn answer(call: InferenceCall, mut request: BatchRequest, limits: &RequestLimits) -> Result<Response, CallError> {
    call.charge_texts(request.options.texts.len())?;
    let mut texts = CheckedTexts::take_from(&mut request, limits);
    let route = call.resolve(request.options.selector())?;
    let options = request.options.response_options();
    let size = texts.response_size(&route, options);
    let inputs = mem::take(&mut texts.inputs);
    let (extensions, answers) = call.infer(call.request(route, inputs), size).await?;
    let items = texts.into_items(answers, options);
    let response = JsonListStream::json_response(items, RESULT_FRAME, size.json_bytes)?;
    Ok((extensions, response).into_response())
}

/// The texts of a request: the valid ones, and why the others are not.
struct CheckedTexts {
    /// One per text of the request.
    errors: Vec<Option<ApiError>>,
    /// The valid texts, in order.
    inputs: Vec<Input>,
    is_bare_list: bool,
}

/// Where a part of the text at this index stands in the body.
fn pointer(is_bare_list: bool, text_index: usize, part: RequestPart) -> String {
    match part {
        RequestPart::SecondTexts | RequestPart::CandidateLabels => "/text_pairs".to_owned(),
        RequestPart::UserId => "/user_id".to_owned(),
        RequestPart::Text(_) | RequestPart::SecondText(_) if is_bare_list => format!("/{text_index}"),
        RequestPart::Text(_) => format!("/texts/{text_index}"),
        RequestPart::SecondText(_) => format!("/text_pairs/{text_index}"),
    }
}

impl CheckedTexts {
    /// Takes the texts out of a request and checks each for itself.
    fn take_from(request: &mut BatchRequest, limits: &RequestLimits) -> Self {
        let texts = mem::take(&mut request.options.texts);
        let mut pairs = request.options.text_pairs.take().into_iter().flatten();
        let errors = Vec::with_capacity(texts.len());
        let mut checked = Self { errors, inputs: Vec::new(), is_bare_list: request.is_bare_list };
        for (index, text) in texts.into_iter().enumerate() {
            let input = Input::new(text, pairs.next());
            let error = checked.find_error(index, &input, limits);
            if error.is_none() {
                checked.inputs.push(input);
            }
            checked.errors.push(error);
        }
        checked
    }

    /// What is wrong with a text, or else with its second one.
    fn find_error(&self, index: usize, input: &Input, limits: &RequestLimits) -> Option<ApiError> {
        let first = (RequestPart::Text(index), &input.text);
        let second = input.second.as_ref().map(|second| (RequestPart::SecondText(index), &second.text));
        iter::once(first).chain(second).find_map(|(part, text)| {
            let error = validation::check_prediction_text(text, limits).err()?;
            let pointer = pointer(self.is_bare_list, index, part);
            Some(ApiError::at_pointer(pointer, error.message.unwrap_or_default()))
        })
    }

    /// The most that the response can need. A text that is not valid counts without its bytes.
    fn response_size(&self, route: &ArmRoute, options: ResponseOptions) -> ResponseSize {
        let invalid = self.errors.len() - self.inputs.len();
        let bytes = self.inputs.iter().map(Input::byte_len).chain(iter::repeat_n(0, invalid));
        let fields = ResponseFields { candidate_labels: None, options };
        ResponseSize::max_for_models(route.candidate_models(), &bytes, 1, |model| prediction_json_size(model, fields))
    }

    /// The results of a request, each made when it is written. `answers`: one per valid text.
    fn into_items(self, mut answers: InferenceResponse, options: ResponseOptions) -> impl Iterator<Item = BatchItem> {
        self.errors.into_iter().enumerate().map(move |(text_index, error)| {
            let result = match error {
                Some(error) => Err(error),
                None => next_prediction(&mut answers, options)
                    .map_err(|error| error.into_api_error(|part| pointer(self.is_bare_list, text_index, part))),
            };
            let outcome = match result {
                Ok(prediction) => ItemOutcome::Answered(Box::new(prediction)),
                Err(error) => ItemOutcome::Failed { error: Box::new(error.to_problem(None)) },
            };
            BatchItem { text_index, outcome }
        })
    }
}
