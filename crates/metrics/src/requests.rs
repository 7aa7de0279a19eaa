//! What requests and connections are counted by.

use std::collections::BTreeSet;

use parking_lot::RwLock;
use prometheus::{GaugeVec, HistogramVec, IntCounterVec, IntGauge, Result, exponential_buckets};

use super::metric_factory::MetricFactory;

/// Why texts were refused or given up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RefusalReason {
    /// No permit was free.
    Overload,
    /// The deadline passed.
    Deadline,
    /// The caller's rate was reached.
    RateLimit,
    /// The key was unknown or had no right to it.
    Unauthorized,
    /// The client left before its answer.
    Cancellation,
    /// The memory for responses was not free in time.
    ResponseMemory,
}

/// Why a connection was cut off: what its client took too long for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TimeoutStage {
    /// The handshake of TLS, or it failed.
    Handshake,
    /// A request's head.
    Head,
    /// A request's body.
    Body,
    /// Taking an answer.
    Write,
    /// The next request on an open connection.
    KeepAlive,
}

/// Seconds; from a cheap model's answer to the longest deadline.
const LATENCY_BUCKETS: [f64; 14] =
    [0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0, 30.0];

/// What became of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RequestOutcome {
    /// A status below 400.
    Success,
    /// The request could not be served as it was, or not now: 4xx and 503.
    Rejection,
    /// It should have been served: 500, 504 and other 5xx.
    Failure,
    /// The client left before its answer.
    Cancellation,
}

impl RequestOutcome {
    /// That of an answer.
    #[must_use]
    pub fn from_status(status: u16) -> Self {
        match status {
            ..400 => Self::Success,
            400..500 | 503 => Self::Rejection,
            _ => Self::Failure,
        }
    }

    /// Its name, as a label.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Success => "success",
            Self::Rejection => "rejection",
            Self::Failure => "failure",
            Self::Cancellation => "cancellation",
        }
    }
}

/// Requests and connections. A `route` is a route's pattern, never a path that a client chose.
#[derive(Debug)]
pub struct RequestMetrics {
    started: IntCounterVec,
    pub(super) ended: IntCounterVec,
    in_flight: IntGauge,
    responses: IntCounterVec,
    pub(super) latency: HistogramVec,
    overhead: HistogramVec,
    errors: IntCounterVec,
    refusals: IntCounterVec,
    connections: IntGauge,
    response_memory: IntGauge,
    timeouts: IntCounterVec,
    certificate_expiry: GaugeVec,
    /// The routes that texts are sent to.
    pub(super) prediction_routes: RwLock<BTreeSet<String>>,
}

impl RequestMetrics {
    pub(super) fn new(metrics: MetricFactory<'_>) -> Result<Self> {
        let answer = ["route", "method", "status"];
        Ok(Self {
            started: metrics.counter_vec("predictd_http_requests_started_total", "Requests received.", &["route"])?,
            ended: metrics.counter_vec(
                "predictd_http_requests_ended_total",
                "Requests that are over, by outcome: success, rejection (4xx and 503), failure (other 5xx), cancellation (the client left first).",
                &["route", "outcome"],
            )?,
            in_flight: metrics.int_gauge("predictd_http_requests_in_flight", "Requests being answered: started, not ended.")?,
            responses: metrics.counter_vec("predictd_http_requests_total", "Requests answered.", &answer)?,
            latency: metrics.histogram_vec(
                "predictd_http_request_duration_seconds",
                "Time from the request's head to the answer's head.",
                &answer,
                &LATENCY_BUCKETS,
            )?,
            overhead: metrics.histogram_vec(
                "predictd_http_overhead_duration_seconds",
                "Time of an answered prediction request that was neither tokenising, queue nor run: reading and checking its body, writing the answer.",
                &["route"],
                &exponential_buckets(0.000_02, 2.5, 11)?,
            )?,
            errors: metrics.counter_vec(
                "predictd_http_errors_total",
                "Requests answered with an error, by the last part of the problem's type.",
                &["route", "kind"],
            )?,
            refusals: metrics.counter_vec(
                "predictd_requests_rejected_total",
                "Requests refused or given up, by reason.",
                &["reason"],
            )?,
            connections: metrics.int_gauge("predictd_http_connections", "Open client connections.")?,
            response_memory: metrics.int_gauge(
                "predictd_response_memory_bytes",
                "Memory reserved for large responses until they are written, in bytes; --response-memory is the limit.",
            )?,
            timeouts: metrics.counter_vec(
                "predictd_http_connections_aborted_total",
                "Connections ended because their client took too long, by what for.",
                &["waiting_for"],
            )?,
            // Without labels, and yet a vector: there is none without TLS.
            certificate_expiry: metrics.gauge_vec(
                "predictd_tls_certificate_expiry_seconds",
                "Unix time until which the certificate is valid.",
                &[],
            )?,
            prediction_routes: RwLock::default(),
        })
    }

    /// Adds a route that texts are sent to. Its series exist from the start: a rate needs the value before the first event.
    pub fn add_prediction_route(&self, route: &str) {
        for outcome in
            [RequestOutcome::Success, RequestOutcome::Rejection, RequestOutcome::Failure, RequestOutcome::Cancellation]
        {
            self.ended.with_label_values(&[route, outcome.name()]);
        }
        self.started.with_label_values(&[route]);
        self.prediction_routes.write().insert(route.to_owned());
    }

    /// Creates the series of refusals: a rate needs the value before the first event.
    pub(super) fn init_series(&self) {
        for reason in [
            RefusalReason::Overload,
            RefusalReason::Deadline,
            RefusalReason::RateLimit,
            RefusalReason::Unauthorized,
            RefusalReason::Cancellation,
            RefusalReason::ResponseMemory,
        ] {
            self.refusals.with_label_values(&[refusal_reason_name(reason)]);
        }
    }

    /// A request came in.
    pub fn record_start(&self, route: &str) {
        self.started.with_label_values(&[route]).inc();
        self.in_flight.inc();
    }

    /// A request is over.
    pub fn record_end(&self, route: &str, outcome: RequestOutcome) {
        self.ended.with_label_values(&[route, outcome.name()]).inc();
        self.in_flight.dec();
    }

    /// A request was answered after so many seconds.
    pub fn record_response(&self, route: &str, method: &str, status: &str, seconds: f64) {
        self.responses.with_label_values(&[route, method, status]).inc();
        self.latency.with_label_values(&[route, method, status]).observe(seconds);
    }

    /// So many seconds of a prediction request were not the model's.
    pub fn record_overhead(&self, route: &str, seconds: f64) {
        self.overhead.with_label_values(&[route]).observe(seconds);
    }

    /// A request was answered with an error of this kind.
    pub fn record_error(&self, route: &str, kind: &str) {
        self.errors.with_label_values(&[route, kind]).inc();
    }

    /// A request was refused, or a text given up.
    pub fn record_refusal(&self, reason: RefusalReason) {
        self.refusals.with_label_values(&[refusal_reason_name(reason)]).inc();
    }

    /// A client connected.
    pub fn record_connect(&self) {
        self.connections.inc();
    }

    /// A client's connection ended.
    pub fn record_disconnect(&self) {
        self.connections.dec();
    }

    /// So many bytes more, or fewer, are reserved for responses.
    pub fn add_response_memory(&self, bytes: i64) {
        self.response_memory.add(bytes);
    }

    /// Bytes that are reserved for responses.
    #[must_use]
    pub fn reserved_response_memory(&self) -> i64 {
        self.response_memory.get()
    }

    /// The certificate of TLS is valid until this Unix time.
    pub fn set_certificate_expiry(&self, unix_time: i64) {
        #[expect(clippy::cast_precision_loss, reason = "seconds")]
        self.certificate_expiry.with_label_values::<&str>(&[]).set(unix_time as f64);
    }

    /// A client took too long.
    pub fn record_timeout(&self, why: TimeoutStage) {
        let waiting_for = match why {
            TimeoutStage::Handshake => "handshake",
            TimeoutStage::Head => "head",
            TimeoutStage::Body => "body",
            TimeoutStage::Write => "write",
            TimeoutStage::KeepAlive => "keep_alive",
        };
        self.timeouts.with_label_values(&[waiting_for]).inc();
    }
}

fn refusal_reason_name(reason: RefusalReason) -> &'static str {
    match reason {
        RefusalReason::Overload => "overloaded",
        RefusalReason::Deadline => "deadline",
        RefusalReason::RateLimit => "rate",
        RefusalReason::Unauthorized => "key",
        RefusalReason::Cancellation => "cancelled",
        RefusalReason::ResponseMemory => "response_memory",
    }
}
