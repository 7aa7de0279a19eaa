//! What happens around every request: its id, its metrics, its log line, its problem details.

use std::any::Any;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::body::Body;
use axum::extract::{MatchedPath, Request, State};
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE, X_CONTENT_TYPE_OPTIONS};
use axum::http::{HeaderName, HeaderValue, Method, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use tower_http::catch_panic::ResponseForPanic;

use super::App;
use super::error::{ApiError, Code};
use super::exchange::Exchange;
use super::refusals::{Refusals, Turn};
use super::story::Story;
use super::trace;
use crate::clock;
use crate::metrics::{Metrics, Outcome, PanicPlace};
use crate::telemetry::spans::RequestSpan;

static REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const SERVER_TIMING: HeaderName = HeaderName::from_static("server-timing");
/// Routes that are asked every few seconds by those who watch the server.
const QUIET: [&str; 4] = ["/health", "/livez", "/readyz", "/metrics"];
/// Under an overload they come by the ten thousand.
static REFUSALS: Refusals = Refusals::new();

/// Gives the request an id, counts and logs it, and writes its error down.
pub async fn observe(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    let start = Instant::now();
    let route = request.extensions().get::<MatchedPath>().cloned();
    let route = route.as_ref().map_or("unmatched", MatchedPath::as_str);
    let method = method_name(request.method());
    let peer = request.extensions().get::<Arc<Exchange>>().map_or(Ipv4Addr::UNSPECIFIED.into(), |e| e.peer());
    let caller = trace::caller(request.headers(), peer, &app.trusted_proxies);
    let spans = app.spans.as_ref().filter(|_| !QUIET.contains(&route));
    let mut span = spans.and_then(|spans| spans.request(format!("{method} {route}"), caller));
    let about = About {
        id: request_id(request.headers().get(&REQUEST_ID)),
        trace: span.as_ref().map(RequestSpan::trace_id).or_else(|| caller.map(|caller| caller.trace.to_owned())),
        method,
        route,
        timing: app.server_timing.is_wanted(request.headers().contains_key(SERVER_TIMING)),
    };
    if let Some(span) = &mut span {
        span.set("http.request.method", method);
        span.set("http.route", route.to_owned());
        span.set("predictd.request_id", about.id.clone());
    }
    // Also tells of a client that leaves, when this future is dropped.
    let in_flight = InFlight::new(&app.metrics, &about, span);
    let mut response = next.run(request).await;
    let error = response.extensions_mut().remove::<ApiError>();
    let story = response.extensions_mut().remove::<Story>();
    let span = in_flight.answered(response.status());
    let took = start.elapsed();
    app.metrics.http.answered(about.route, about.method, response.status().as_str(), took.as_secs_f64());
    if let Some(story) = &story {
        app.metrics.http.overhead(about.route, took.saturating_sub(story.spent.total()).as_secs_f64());
        let timing = about.timing.then(|| story.server_timing(took.as_secs_f64() * 1e3));
        timing.flatten().map(|value| response.headers_mut().insert(SERVER_TIMING, value));
    }
    about.log(response.status(), took, error.as_ref(), story.as_ref());
    if let Some(mut span) = span {
        trace::tell(&mut span, response.status(), error.as_ref(), story.as_ref());
    }
    if let Some(error) = error {
        app.metrics.http.error(about.route, error.code.kind());
        write_problem(&mut response, &error, &about.id);
    }
    if let Ok(value) = HeaderValue::from_str(&about.id) {
        response.headers_mut().insert(&REQUEST_ID, value);
    }
    response
}

/// What is known of a request before it is answered.
struct About<'a> {
    id: String,
    /// Of a caller that traces its requests.
    trace: Option<String>,
    method: &'static str,
    /// A route's pattern, never a path that a client chose.
    route: &'a str,
    /// The client wants to see where the time goes.
    timing: bool,
}

impl About<'_> {
    /// One line for each request, without anything of its text. Probes that find all well are for those who debug.
    fn log(&self, status: StatusCode, took: Duration, error: Option<&ApiError>, story: Option<&Story>) {
        let Self { id, trace, method, route, .. } = self;
        let (status, milliseconds) = (status.as_u16(), ms(took));
        let trace_id = trace.as_deref();
        match (error, story) {
            // What the server did wrong: all that is known of it.
            (Some(error), _) if status == 500 => {
                let (kind, detail) = (error.code.kind(), &*error.detail);
                tracing::warn!(
                    request_id = id,
                    trace_id,
                    method,
                    route,
                    status,
                    milliseconds,
                    kind,
                    detail,
                    "a request was answered with an error"
                );
            }
            (Some(error), _) => {
                let kind = error.code.kind();
                match REFUSALS.take() {
                    Turn::Line => tracing::info!(
                        request_id = id,
                        trace_id,
                        method,
                        route,
                        status,
                        milliseconds,
                        kind,
                        "a request was refused"
                    ),
                    Turn::LineAfter(unlogged) => tracing::info!(
                        request_id = id,
                        trace_id,
                        method,
                        route,
                        status,
                        milliseconds,
                        kind,
                        unlogged,
                        "a request was refused; more were than are logged"
                    ),
                    Turn::Silent => {}
                }
            }
            (None, Some(story)) => {
                let Story { model, texts, cached, tokens, spent, arm } = story;
                let (experiment, arm) = arm.as_ref().map(|(experiment, arm)| (experiment, arm)).unzip();
                let (model, version) = (model.name(), model.version());
                let (tokenise_ms, queue_ms, run_ms) = (ms(spent.tokenise), ms(spent.queue), ms(spent.run));
                let run_texts = spent.run_texts;
                tracing::info!(
                    request_id = id,
                    trace_id,
                    method,
                    route,
                    status,
                    milliseconds,
                    model,
                    version,
                    experiment,
                    arm,
                    texts,
                    cached,
                    tokens,
                    run_texts,
                    tokenise_ms,
                    queue_ms,
                    run_ms,
                    "a request was answered"
                );
            }
            (None, None) if QUIET.contains(route) => {
                tracing::debug!(
                    request_id = id,
                    trace_id,
                    method,
                    route,
                    status,
                    milliseconds,
                    "a request was answered"
                );
            }
            (None, None) => {
                tracing::info!(
                    request_id = id,
                    trace_id,
                    method,
                    route,
                    status,
                    milliseconds,
                    "a request was answered"
                );
            }
        }
    }
}

/// Milliseconds, to the microsecond.
fn ms(time: Duration) -> f64 {
    (time.as_secs_f64() * 1e6).round() / 1e3
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
        .map_or_else(|| clock::new_id().to_string(), str::to_owned)
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

/// A request until it is over.
struct InFlight<'a> {
    metrics: &'a Metrics,
    about: &'a About<'a>,
    start: Instant,
    outcome: Outcome,
    span: Option<RequestSpan>,
}

impl<'a> InFlight<'a> {
    fn new(metrics: &'a Metrics, about: &'a About<'a>, span: Option<RequestSpan>) -> Self {
        metrics.http.started(about.route);
        Self { metrics, about, start: Instant::now(), outcome: Outcome::Cancellation, span }
    }

    fn answered(mut self, status: StatusCode) -> Option<RequestSpan> {
        self.outcome = Outcome::of(status.as_u16());
        self.span.take()
    }
}

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        self.metrics.http.ended(self.about.route, self.outcome);
        if self.outcome == Outcome::Cancellation {
            let About { id, trace, method, route, .. } = self.about;
            let (trace_id, milliseconds) = (trace.as_deref(), ms(self.start.elapsed()));
            tracing::info!(request_id = id, trace_id, method, route, milliseconds, "a client left before its answer");
            if let Some(span) = &mut self.span {
                span.set("error.type", "cancelled");
            }
        }
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
