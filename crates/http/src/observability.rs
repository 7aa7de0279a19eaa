//! The id, metrics, log line, span and error form of every request.

use std::time::{Duration, Instant};

use axum::body::Body;
use axum::extract::{MatchedPath, Request, State};
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE, X_CONTENT_TYPE_OPTIONS};
use axum::http::{HeaderValue, Method, StatusCode};
use axum::middleware::Next;
use axum::response::Response;
use predictd_engine::timings::Timings;
use predictd_inference::request_summary::RequestSummary;
use predictd_metrics::{Metrics, RequestOutcome};
use predictd_platform::clock;
use predictd_telemetry::spans::RequestSpan;

use super::connection_state::peer_address;
use super::error::ApiError;
use super::log_sampler::LogSampler;
use super::state::{App, TelemetryState};
use super::trace_context;
use crate::api_keys::{KEY_PREFIX, is_plain_name};

const REQUEST_ID_HEADER: &str = "x-request-id";
const SERVER_TIMING_HEADER: &str = "server-timing";
/// Routes that probes call every few seconds.
const QUIET_ROUTES: [&str; 4] = ["/health", "/livez", "/readyz", "/metrics"];
/// Most refusals that are logged in a second: an overload causes tens of thousands.
static REFUSAL_SAMPLER: LogSampler = LogSampler::new(100);

/// Gives the request an id, counts and logs it, and writes its error.
pub async fn observe(State(app): State<App>, request: Request, next: Next) -> Response {
    let start = Instant::now();
    let route = request.extensions().get::<MatchedPath>().cloned();
    let route = route.as_ref().map_or("unmatched", MatchedPath::as_str);
    let method = method_name(request.method());
    let peer = peer_address(&request);
    let caller = trace_context::parse_trace_parent(request.headers(), peer, &app.access.trusted_proxies);
    let TelemetryState { metrics, spans, server_timing } = &*app.telemetry;
    let spans = spans.as_ref().filter(|_| !QUIET_ROUTES.contains(&route));
    let mut span = spans.and_then(|spans| spans.start_request(format!("{method} {route}"), caller));
    let id = request_id(request.headers().get(REQUEST_ID_HEADER));
    let trace_id = span.as_ref().map(RequestSpan::trace_id).or_else(|| caller.map(|caller| caller.trace_id.to_owned()));
    let wants_server_timing = server_timing.is_enabled_for(request.headers().contains_key(SERVER_TIMING_HEADER));
    if let Some(span) = &mut span {
        span.set_attribute("http.request.method", method);
        span.set_attribute("http.route", route.to_owned());
        span.set_attribute("predictd.request_id", id.clone());
    }
    // Dropped with this future if the client disconnects: that is recorded too.
    metrics.http.record_start(route);
    let mut tracker = RequestTracker { metrics, id, trace_id, method, route, start, is_answered: false, span };
    let mut response = next.run(request).await;
    let error = response.extensions_mut().remove::<ApiError>();
    let summary = response.extensions_mut().remove::<RequestSummary>();
    tracker.is_answered = true;
    metrics.http.record_end(route, RequestOutcome::from_status(response.status().as_u16()));
    let time = start.elapsed();
    metrics.http.record_response(route, method, response.status().as_str(), time.as_secs_f64());
    if let Some(summary) = &summary {
        metrics.http.record_overhead(route, time.saturating_sub(summary.timings.total()).as_secs_f64());
        if wants_server_timing && let Some(timing) = server_timing_value(summary, time) {
            response.headers_mut().insert(SERVER_TIMING_HEADER, timing);
        }
    }
    tracker.log(response.status(), time, error.as_ref(), summary.as_ref());
    if let Some(span) = &mut tracker.span {
        trace_context::record_response(span, response.status(), error.as_ref(), summary.as_ref());
    }
    if let Some(error) = error {
        metrics.http.record_error(route, error.code.kind());
        write_problem(&mut response, &error, &tracker.id);
    }
    if let Ok(value) = HeaderValue::from_str(&tracker.id) {
        response.headers_mut().insert(REQUEST_ID_HEADER, value);
    }
    response
}

/// A request until it is over. Dropped before it is answered, it counts as cancelled.
struct RequestTracker<'a> {
    metrics: &'a Metrics,
    id: String,
    /// Of a caller that traces its requests.
    trace_id: Option<String>,
    method: &'static str,
    /// A route's pattern, never a path that a client chose.
    route: &'a str,
    start: Instant,
    is_answered: bool,
    span: Option<RequestSpan>,
}

/// Logs an event with the fields that every request has.
macro_rules! log_request {
    ($level:ident, $log:ident, $status:ident, $milliseconds:ident, $($fields:tt)+) => {
        tracing::$level!(
            request_id = $log.id,
            trace_id = $log.trace_id,
            method = $log.method,
            route = $log.route,
            status = $status,
            milliseconds = $milliseconds,
            $($fields)+
        )
    };
}

impl RequestTracker<'_> {
    /// One line for each request, without anything of its text. Successful probes are logged for debugging only.
    fn log(&self, status: StatusCode, time: Duration, error: Option<&ApiError>, summary: Option<&RequestSummary>) {
        let status = status.as_u16();
        let milliseconds = to_millis(time);
        match (error, summary) {
            (Some(error), _) if status == 500 => {
                let kind = error.code.kind();
                log_request!(warn, self, status, milliseconds, kind, detail = &*error.detail, "request failed");
            }
            (Some(error), _) => self.write_refusal(status, milliseconds, error.code.kind()),
            (None, Some(summary)) => self.write_prediction(status, milliseconds, summary),
            (None, None) if QUIET_ROUTES.contains(&self.route) => {
                log_request!(debug, self, status, milliseconds, "request completed");
            }
            (None, None) => log_request!(info, self, status, milliseconds, "request completed"),
        }
    }

    fn write_refusal(&self, status: u16, milliseconds: f64, kind: &str) {
        match REFUSAL_SAMPLER.sample() {
            Some(0) => log_request!(info, self, status, milliseconds, kind, "request refused"),
            Some(suppressed) => log_request!(
                info,
                self,
                status,
                milliseconds,
                kind,
                suppressed,
                "request refused; earlier refusals not logged"
            ),
            None => {}
        }
    }

    fn write_prediction(&self, status: u16, milliseconds: f64, summary: &RequestSummary) {
        let RequestSummary { model, texts, cached, tokens, timings, experiment_and_arm } = summary;
        let (experiment, arm) = experiment_and_arm.as_ref().map(|(experiment, arm)| (experiment, arm)).unzip();
        log_request!(
            info,
            self,
            status,
            milliseconds,
            model = model.name,
            version = model.version,
            experiment,
            arm,
            texts,
            cached,
            tokens,
            batch_size = timings.batch_size,
            tokenize_ms = to_millis(timings.tokenize_time),
            queue_ms = to_millis(timings.queue_time),
            inference_ms = to_millis(timings.run_time),
            "request completed"
        );
    }
}

/// The value of `Server-Timing` (W3C): milliseconds by part, and in all so far.
fn server_timing_value(summary: &RequestSummary, total: Duration) -> Option<HeaderValue> {
    let Timings { tokenize_time, queue_time, run_time, .. } = summary.timings;
    let [tokenize, queue, inference, total] =
        [tokenize_time, queue_time, run_time, total].map(|time| time.as_secs_f64() * 1e3);
    let timing = format!(
        "tokenize;dur={tokenize:.3}, queue;dur={queue:.3}, inference;dur={inference:.3}, total;dur={total:.3}, cached;desc=\"{} of {}\"",
        summary.cached, summary.texts
    );
    HeaderValue::try_from(timing).ok()
}

/// Milliseconds, to the microsecond.
fn to_millis(time: Duration) -> f64 {
    (time.as_secs_f64() * 1e6).round() / 1e3
}

/// Headers that every answer has.
pub async fn add_security_headers(request: Request, next: Next) -> Response {
    let mut response = next.run(request).await;
    let headers = response.headers_mut();
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.entry(CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    response
}

fn write_problem(response: &mut Response, error: &ApiError, id: &str) {
    match serde_json::to_vec(&error.to_problem(Some(id.to_owned()))) {
        Ok(json) => {
            *response.body_mut() = Body::from(json);
            response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        }
        Err(error) => tracing::error!(%error, "problem could not be serialized; response sent without body"),
    }
}

/// The client's id if it is harmless, else a new one (UUIDv7).
fn request_id(header: Option<&HeaderValue>) -> String {
    header
        .and_then(|value| value.to_str().ok())
        // An API key in the wrong header must not be logged.
        .filter(|id| is_plain_name(id) && !id.starts_with(KEY_PREFIX))
        .map_or_else(|| clock::new_id().to_string(), str::to_owned)
}

/// A bounded set of names for metrics, whatever clients send.
fn method_name(method: &Method) -> &'static str {
    let names = ["GET", "POST", "HEAD", "OPTIONS", "PUT", "DELETE", "PATCH"];
    names.into_iter().find(|name| method == name).unwrap_or("other")
}

impl Drop for RequestTracker<'_> {
    fn drop(&mut self) {
        if self.is_answered {
            return;
        }
        self.metrics.http.record_end(self.route, RequestOutcome::Cancellation);
        tracing::info!(
            request_id = self.id,
            trace_id = self.trace_id,
            method = self.method,
            route = self.route,
            milliseconds = to_millis(self.start.elapsed()),
            "client disconnected before the response"
        );
        if let Some(span) = &mut self.span {
            span.set_attribute("error.type", "cancelled");
        }
    }
}
