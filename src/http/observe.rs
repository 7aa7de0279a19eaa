//! What happens around every request: its id, its metrics, its log line, its problem details.

use std::any::Any;
use std::sync::Arc;
use std::time::Instant;

use axum::body::Body;
use axum::extract::{MatchedPath, Request, State};
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE, X_CONTENT_TYPE_OPTIONS};
use axum::http::{HeaderName, HeaderValue, Method, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use tower_http::catch_panic::ResponseForPanic;
use uuid::Uuid;

use super::App;
use super::error::{ApiError, Code};
use crate::metrics::{Metrics, PanicPlace};

static REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Gives the request an id, counts and logs it, and writes its error down.
pub async fn observe(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    let start = Instant::now();
    // Also counts down when the client leaves and this future is dropped.
    let _in_flight = InFlight::new(&app.metrics);
    let id = request_id(request.headers().get(&REQUEST_ID));
    let method = method_name(request.method());
    let route = request
        .extensions()
        .get::<MatchedPath>()
        .map_or_else(|| "unmatched".to_owned(), |path| path.as_str().to_owned());
    let mut response = next.run(request).await;
    let error = response.extensions_mut().remove::<ApiError>();
    let status = response.status();
    let milliseconds = start.elapsed().as_secs_f64() * 1e3;
    match &error {
        // Refusals under overload come by the thousand: metrics count them.
        Some(error) if status == StatusCode::INTERNAL_SERVER_ERROR => {
            let (kind, detail) = (error.code.kind(), &*error.detail);
            tracing::warn!(
                request_id = id,
                route,
                status = status.as_u16(),
                milliseconds,
                kind,
                detail,
                "a request was answered with an error"
            );
        }
        Some(error) => tracing::debug!(
            request_id = id,
            route,
            status = status.as_u16(),
            milliseconds,
            kind = error.code.kind(),
            "a request was refused"
        ),
        None => {
            tracing::debug!(request_id = id, route, status = status.as_u16(), milliseconds, "a request was answered");
        }
    }
    if let Some(error) = error {
        write_problem(&mut response, &error, &id);
    }
    if let Ok(value) = HeaderValue::from_str(&id) {
        response.headers_mut().insert(&REQUEST_ID, value);
    }
    app.metrics.request_answered(&route, method, status.as_str(), start.elapsed().as_secs_f64());
    response
}

/// Headers that every answer has.
pub async fn security_headers(request: Request, next: Next) -> Response {
    let mut response = next.run(request).await;
    let headers = response.headers_mut();
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.entry(CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    response
}

fn write_problem(response: &mut Response, error: &ApiError, id: &str) {
    let problem = error.problem(Some(id.to_owned()));
    match serde_json::to_vec(&problem) {
        Ok(json) => {
            *response.body_mut() = Body::from(json);
            response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        }
        Err(error) => tracing::error!(%error, "an error could not be written as JSON; its answer has no body"),
    }
}

/// The client's id if it is harmless, else a new one (UUIDv7).
fn request_id(given: Option<&HeaderValue>) -> String {
    let harmless = |id: &&str| {
        // A key that was put there by mistake is not logged.
        !id.starts_with(crate::keys::PREFIX)
            && (1..=64).contains(&id.len())
            && id.bytes().all(|c| c.is_ascii_alphanumeric() || matches!(c, b'.' | b'_' | b'-'))
    };
    given
        .and_then(|value| value.to_str().ok())
        .filter(harmless)
        .map_or_else(|| Uuid::now_v7().to_string(), str::to_owned)
}

/// A bounded set of names for metrics, whatever clients send.
fn method_name(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::POST => "POST",
        Method::HEAD => "HEAD",
        Method::OPTIONS => "OPTIONS",
        Method::PUT => "PUT",
        Method::DELETE => "DELETE",
        Method::PATCH => "PATCH",
        _ => "other",
    }
}

struct InFlight<'a>(&'a Metrics);

impl<'a> InFlight<'a> {
    fn new(metrics: &'a Metrics) -> Self {
        metrics.request_started();
        Self(metrics)
    }
}

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        self.0.request_ended();
    }
}

/// Turns a panic of a handler into an answer. Its message may hold anything: it is not logged here.
#[derive(Clone)]
pub struct OnPanic(pub Arc<Metrics>);

impl ResponseForPanic for OnPanic {
    type ResponseBody = Body;

    fn response_for_panic(&mut self, _panic: Box<dyn Any + Send + 'static>) -> Response {
        self.0.panicked(PanicPlace::Handler);
        ApiError::new(Code::Internal, "The request met a bug of the server and was given up.").into_response()
    }
}
