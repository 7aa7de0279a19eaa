//! `POST /batch_predict`: many texts, an answer each, in their order.

mod items;
pub mod wire;

use std::sync::Arc;

use axum::Extension;
use axum::response::{IntoResponse, Response};

use super::body::ValidatedJson;
use super::error::{ApiError, Problem};
use super::inference_call::InferenceCall;
use super::response_stream::JsonResultStream;
use items::{BatchItems, CheckedTexts};
use wire::{BatchAnswer, BatchForms, BatchRequest};

/// Answer many texts.
///
/// A text that was answered before may get that answer again; with `Cache-Control: no-cache` the model is run in any
/// case, and with `no-store` the answer is not kept either.
#[utoipa::path(
    post,
    path = "/batch_predict",
    tag = "predictions",
    request_body = BatchForms,
    params(
        ("X-Request-Timeout-Ms" = Option<u64>, Header, nullable = false, format = "uint64", minimum = 1, maximum = 18_446_744_073_709_551_615_usize, description = "Time for the answer, in milliseconds; at most --max-timeout"),
        ("X-User-Id" = Option<String>, Header, nullable = false, min_length = 1, max_length = 256, description = "Who asks, as user_id: an experiment answers one user always with the same version")
    ),
    responses(
        (status = 200, body = BatchAnswer, description = "One result per text; a text that could not be answered has an error in its place"),
        (status = 400, body = Problem, content_type = "application/problem+json", description = "Not JSON, cut short, or a header without a valid value"),
        (status = 404, body = Problem, content_type = "application/problem+json", description = "No such model or version"),
        (status = 413, body = Problem, content_type = "application/problem+json", description = "Body over --max-body"),
        (status = 415, body = Problem, content_type = "application/problem+json", description = "Not JSON in UTF-8"),
        (status = 422, body = Problem, content_type = "application/problem+json", description = "A field is missing, unknown or out of its limits"),
        (status = 503, body = Problem, content_type = "application/problem+json", description = "Overloaded, or the model is not ready"),
        (status = 504, body = Problem, content_type = "application/problem+json", description = "Out of time"),
    )
)]
pub async fn batch_predict(
    call: InferenceCall,
    ValidatedJson(mut request, _memory): ValidatedJson<BatchRequest>,
) -> Result<Response, ApiError> {
    call.charge_texts(request.options.texts.len())?;
    let texts = CheckedTexts::take_from(&mut request, &call.app.limits.requests);
    let route = call.resolve(request.options.selector())?;
    let options = request.options.response_options();
    let size = texts.response_size(&route, options);
    let CheckedTexts { errors, inputs, pointers } = texts;
    let request = call.request(route, inputs);
    let (mut answers, reservation) = call.infer(request, size, |part| pointers.pointer(0, part)).await?;
    let summary = answers.summary.take().map(Extension);
    let budget = Arc::clone(&call.app.limits.response_budget);
    let items = BatchItems { budget, errors: errors.into_iter().enumerate(), answers, options, pointers };
    let response = JsonResultStream::new(items).into_json_response(size.json_bytes)?;
    Ok((summary, reservation.map(Extension), response).into_response())
}
