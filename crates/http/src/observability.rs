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
use predictd_engine::timings::Timings;
use predictd_inference::request_summary::RequestSummary;
use predictd_metrics::{Metrics, PanicSite, RequestOutcome};
use predictd_platform::clock;
use predictd_telemetry::spans::RequestSpan;
use tower_http::catch_panic::ResponseForPanic;

use super::connection_state::ConnectionState;
use super::error::{ApiError, Code};
use super::log_sampler::{LogSampler, SampleDecision};
use super::state::App;
use super::trace_context;

static REQUEST_ID_HEADER: HeaderName = HeaderName::from_static("x-request-id");
const SERVER_TIMING_HEADER: HeaderName = HeaderName::from_static("server-timing");
/// Routes that probes call every few seconds.
const QUIET_ROUTES: [&str; 4] = ["/health", "/livez", "/readyz", "/metrics"];
/// An overload refuses tens of thousands of requests.
static REFUSAL_SAMPLER: LogSampler = LogSampler::new();

/// Gives the request an id, counts and logs it, and writes its error down.
pub async fn observe(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    let start = Instant::now();
    let route = request.extensions().get::<MatchedPath>().cloned();
    let route = route.as_ref().map_or("unmatched", MatchedPath::as_str);
    let method = method_name(request.method());
    let peer = request.extensions().get::<Arc<ConnectionState>>().map_or(Ipv4Addr::UNSPECIFIED.into(), |e| e.peer());
    let caller = trace_context::parse_trace_parent(request.headers(), peer, &app.access.trusted_proxies);
    let spans = app.telemetry.spans.as_ref().filter(|_| !QUIET_ROUTES.contains(&route));
    let mut span = spans.and_then(|spans| spans.start_request(format!("{method} {route}"), caller));
    let log = RequestLog {
        id: request_id(request.headers().get(&REQUEST_ID_HEADER)),
        trace_id: span.as_ref().map(RequestSpan::trace_id).or_else(|| caller.map(|caller| caller.trace_id.to_owned())),
        method,
        route,
        wants_server_timing: app
            .telemetry
            .server_timing
            .is_enabled_for(request.headers().contains_key(SERVER_TIMING_HEADER)),
    };
    if let Some(span) = &mut span {
        span.set_attribute("http.request.method", method);
        span.set_attribute("http.route", route.to_owned());
        span.set_attribute("predictd.request_id", log.id.clone());
    }
    // Dropped with this future if the client disconnects: that is recorded too.
    let in_flight = RequestTracker::new(&app.telemetry.metrics, &log, span);
    let mut response = next.run(request).await;
    let error = response.extensions_mut().remove::<ApiError>();
    let summary = response.extensions_mut().remove::<RequestSummary>();
    let span = in_flight.finish(response.status());
    let took = start.elapsed();
    app.telemetry.metrics.http.record_response(log.route, log.method, response.status().as_str(), took.as_secs_f64());
    if let Some(summary) = &summary {
        app.telemetry
            .metrics
            .http
            .record_overhead(log.route, took.saturating_sub(summary.timings.total()).as_secs_f64());
        let timing = log.wants_server_timing.then(|| server_timing(summary, took));
        timing.flatten().map(|value| response.headers_mut().insert(SERVER_TIMING_HEADER, value));
    }
    log.write(response.status(), took, error.as_ref(), summary.as_ref());
    if let Some(mut span) = span {
        trace_context::record_response(&mut span, response.status(), error.as_ref(), summary.as_ref());
    }
    if let Some(error) = error {
        app.telemetry.metrics.http.record_error(log.route, error.code.kind());
        write_problem(&mut response, &error, &log.id);
    }
    if let Ok(value) = HeaderValue::from_str(&log.id) {
        response.headers_mut().insert(&REQUEST_ID_HEADER, value);
    }
    response
}

/// What is known of a request before it is answered.
struct RequestLog<'a> {
    id: String,
    /// Of a caller that traces its requests.
    trace_id: Option<String>,
    method: &'static str,
    /// A route's pattern, never a path that a client chose.
    route: &'a str,
    /// The client wants to see where the time goes.
    wants_server_timing: bool,
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

impl RequestLog<'_> {
    /// One line for each request, without anything of its text. Successful probes are logged for debugging only.
    fn write(&self, status: StatusCode, time: Duration, error: Option<&ApiError>, summary: Option<&RequestSummary>) {
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
            SampleDecision::Log => log_request!(info, self, status, milliseconds, kind, "request refused"),
            SampleDecision::LogAfterSuppressed(unlogged) => log_request!(
                info,
                self,
                status,
                milliseconds,
                kind,
                unlogged,
                "request refused; earlier refusals not logged"
            ),
            SampleDecision::Suppress => {}
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
            run_texts = timings.batch_size,
            tokenise_ms = to_millis(timings.tokenize_time),
            queue_ms = to_millis(timings.queue_time),
            run_ms = to_millis(timings.run_time),
            "request completed"
        );
    }
}

/// The value of `Server-Timing` (W3C): milliseconds by part, and in all so far.
fn server_timing(summary: &RequestSummary, total: Duration) -> Option<HeaderValue> {
    let Timings { tokenize_time, queue_time, run_time, .. } = summary.timings;
    let [tokenize, queue, run, total] =
        [tokenize_time, queue_time, run_time, total].map(|time| time.as_secs_f64() * 1e3);
    let timing = format!(
        "tokenise;dur={tokenize:.3}, queue;dur={queue:.3}, run;dur={run:.3}, total;dur={total:.3}, cached;desc=\"{} of {}\"",
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
    let problem = error.to_problem(Some(id.to_owned()));
    match serde_json::to_vec(&problem) {
        Ok(json) => {
            *response.body_mut() = Body::from(json);
            response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        }
        Err(error) => tracing::error!(%error, "problem could not be serialized; response sent without body"),
    }
}

/// The client's id if it is harmless, else a new one (UUIDv7).
fn request_id(given: Option<&HeaderValue>) -> String {
    given
        .and_then(|value| value.to_str().ok())
        .filter(|id| is_harmless_id(id))
        .map_or_else(|| clock::new_id().to_string(), str::to_owned)
}

fn is_harmless_id(id: &str) -> bool {
    // A key that was put there by mistake is not logged.
    !id.starts_with(crate::api_keys::KEY_PREFIX)
        && (1..=64).contains(&id.len())
        && id.bytes().all(|c| c.is_ascii_alphanumeric() || matches!(c, b'.' | b'_' | b'-'))
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
struct RequestTracker<'a> {
    metrics: &'a Metrics,
    log: &'a RequestLog<'a>,
    started_at: Instant,
    outcome: RequestOutcome,
    span: Option<RequestSpan>,
}

impl<'a> RequestTracker<'a> {
    fn new(metrics: &'a Metrics, log: &'a RequestLog<'a>, span: Option<RequestSpan>) -> Self {
        metrics.http.record_start(log.route);
        Self { metrics, log, started_at: Instant::now(), outcome: RequestOutcome::Cancellation, span }
    }

    fn finish(mut self, status: StatusCode) -> Option<RequestSpan> {
        self.outcome = RequestOutcome::from_status(status.as_u16());
        self.span.take()
    }
}

impl Drop for RequestTracker<'_> {
    fn drop(&mut self) {
        self.metrics.http.record_end(self.log.route, self.outcome);
        if self.outcome == RequestOutcome::Cancellation {
            let RequestLog { id, trace_id, method, route, .. } = self.log;
            let milliseconds = to_millis(self.started_at.elapsed());
            tracing::info!(
                request_id = id,
                trace_id,
                method,
                route,
                milliseconds,
                "client disconnected before the response"
            );
            if let Some(span) = &mut self.span {
                span.set_attribute("error.type", "cancelled");
            }
        }
    }
}

/// Turns a panic of a handler into an answer. Its message may hold anything: it is not logged here.
#[derive(Clone)]
pub struct PanicResponder(pub Arc<Metrics>);

impl ResponseForPanic for PanicResponder {
    type ResponseBody = Body;

    fn response_for_panic(&mut self, _panic: Box<dyn Any + Send + 'static>) -> Response {
        self.0.record_panic(PanicSite::Handler);
        ApiError::new(Code::Internal, "The request met a bug of the server and was given up.").into_response()
    }
}
