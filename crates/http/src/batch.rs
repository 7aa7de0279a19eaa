//! `POST /batch_predict`: many texts, an answer each, in their order.

mod items;
pub mod wire;

use std::sync::Arc;

use axum::Extension;
use axum::extract::State;
use axum::response::{IntoResponse, Response};

use super::arm_router::{ArmAnswer, ArmRoute, ModelSelector, RequestOptions};
use super::body::ValidatedJson;
use super::cache_control::CacheControl;
use super::deadline::Deadline;
use super::error::{ApiError, Problem};
use super::rate_limit;
use super::request_summary::RequestSummary;
use super::response_budget::ResponseGrant;
use super::response_size::ResponseSize;
use super::response_stream::JsonResultStream;
use super::state::App;
use super::user_id::CallerAndUser;
use items::{BatchItems, split_request};
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
    State(app): State<Arc<App>>,
    Deadline(deadline): Deadline,
    CacheControl(cache): CacheControl,
    CallerAndUser(caller, header): CallerAndUser,
    ValidatedJson(request, _memory): ValidatedJson<BatchRequest>,
) -> Result<Response, ApiError> {
    rate_limit::charge_remaining_texts(&app, &caller, request.options.texts.len())?;
    let marks = request.options.texts.iter().map(|text| app.inference.receipts.fingerprint(text)).collect();
    let (options, texts) = split_request(request, &app.limits.requests);
    let user = header.merge_with_body(options.user_id.clone())?;
    let wanted = ModelSelector {
        model: options.model.as_deref(),
        version: options.version.as_deref(),
        user_id: user.as_deref(),
    };
    let route = ArmRoute::resolve(&app.models.registry.snapshot(), wanted)?;
    let size = ResponseSize::max_for_models(route.candidate_models(), &texts.byte_lengths(), options.response_fields());
    let ResponseGrant { reservation, max_entity_bytes } = app.limits.response_budget.grant(size, deadline).await?;
    let terms = RequestOptions {
        text_count: texts.valid_inputs.len(),
        deadline,
        cache_mode: cache,
        all_or_nothing: false,
        max_entity_bytes,
    };
    let results = texts.infer(&app, &route, terms).await?;
    let story = summarize(&route, &results);
    let items = BatchItems { app, route, options, text_marks: marks, results: results.into_iter().enumerate() };
    let response = JsonResultStream::new(items).into_json_response(size.json_bytes)?;
    Ok((story.map(Extension), reservation.map(Extension), response).into_response())
}

/// What is logged of a request.
fn summarize(route: &ArmRoute, results: &[Result<ArmAnswer, ApiError>]) -> Option<RequestSummary> {
    let answered = results.iter().flatten();
    let first = answered.clone().next()?;
    let story = RequestSummary::from_answers(&first.model, answered.map(|answered| &answered.answer));
    Some(RequestSummary { experiment_and_arm: route.owned_arm_names(), ..story })
}
