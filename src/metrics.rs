//! Every metric: its name, its labels, its buckets, and one function per event.

pub mod model;

use prometheus::{Encoder, HistogramVec, IntCounterVec, IntGauge, Registry, TextEncoder, histogram_opts, opts};

use model::{ModelMetrics, ModelVectors};

/// Seconds; from a cheap model's answer to the longest deadline.
const LATENCY_BUCKETS: [f64; 14] =
    [0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0, 30.0];

/// Why texts were refused or given up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refused {
    /// No permit was free.
    Overloaded,
    /// The deadline passed.
    Deadline,
    /// The caller's rate was reached.
    Rate,
    /// The key was unknown or had no right to it.
    Key,
    /// The client left before its answer.
    Cancelled,
}

/// Why a connection was cut off: what its client took too long for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CutOff {
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

/// Where a panic was caught.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PanicPlace {
    /// In a request handler.
    Handler,
    /// In a tokenizer.
    Tokenizer,
    /// In a worker, while a text was run.
    Worker,
}

/// All metrics of a server.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    requests: IntCounterVec,
    request_seconds: HistogramVec,
    in_flight: IntGauge,
    predictions: IntCounterVec,
    cache_lookups: IntCounterVec,
    cache_bytes: IntGauge,
    cache_entries: IntGauge,
    refused: IntCounterVec,
    panics: IntCounterVec,
    connections: IntGauge,
    cut_off: IntCounterVec,
    models: ModelVectors,
}

impl Metrics {
    /// Registers every metric.
    ///
    /// # Errors
    /// If two metrics have one name.
    pub fn new() -> Result<Self, prometheus::Error> {
        let registry = Registry::new();
        let counter = |name: &str, help: &str, labels: &[&str]| -> Result<IntCounterVec, prometheus::Error> {
            let metric = IntCounterVec::new(opts!(name, help), labels)?;
            registry.register(Box::new(metric.clone()))?;
            Ok(metric)
        };
        let gauge = |name: &str, help: &str| -> Result<IntGauge, prometheus::Error> {
            let metric = IntGauge::new(name, help)?;
            registry.register(Box::new(metric.clone()))?;
            Ok(metric)
        };
        let request_seconds = HistogramVec::new(
            histogram_opts!(
                "predictd_http_request_seconds",
                "Time from the request's head to the answer's head.",
                LATENCY_BUCKETS.to_vec()
            ),
            &["route", "method", "status"],
        )?;
        registry.register(Box::new(request_seconds.clone()))?;
        Ok(Self {
            requests: counter("predictd_http_requests_total", "Requests answered.", &["route", "method", "status"])?,
            in_flight: gauge("predictd_http_requests_in_flight", "Requests being answered.")?,
            predictions: counter(
                "predictd_predictions_total",
                "Texts answered by a model, now or from the cache.",
                &["model", "version"],
            )?,
            cache_lookups: counter(
                "predictd_cache_lookups_total",
                "Texts looked up in the result cache: their answer was there (hit), the same text was being run (joined), or neither (miss). The hit ratio is hit / all.",
                &["result"],
            )?,
            cache_bytes: gauge("predictd_cache_bytes", "Bytes of answers in the result cache.")?,
            cache_entries: gauge("predictd_cache_entries", "Answers in the result cache.")?,
            refused: counter(
                "predictd_refused_total",
                "Requests refused, and texts given up, by reason.",
                &["reason"],
            )?,
            panics: counter("predictd_panics_total", "Panics caught, by place.", &["place"])?,
            connections: gauge("predictd_connections", "Open client connections.")?,
            cut_off: counter(
                "predictd_connections_cut_off_total",
                "Connections ended because their client took too long, by what for.",
                &["waiting_for"],
            )?,
            models: ModelVectors::new(&registry)?,
            request_seconds,
            registry,
        })
    }

    /// A request came in.
    pub fn request_started(&self) {
        self.in_flight.inc();
    }

    /// A request was answered. `route` is a route's pattern, never a path that a client chose.
    pub fn request_answered(&self, route: &str, method: &str, status: &str, seconds: f64) {
        self.requests.with_label_values(&[route, method, status]).inc();
        self.request_seconds.with_label_values(&[route, method, status]).observe(seconds);
    }

    /// A request is over: answered, or left by its client.
    pub fn request_ended(&self) {
        self.in_flight.dec();
    }

    /// A model answered `texts` texts.
    pub fn predicted(&self, model: &str, version: &str, texts: u64) {
        self.predictions.with_label_values(&[model, version]).inc_by(texts);
    }

    /// The metrics of one model version.
    #[must_use]
    pub fn model(&self, model: &str, version: &str) -> ModelMetrics {
        self.models.of(model, version)
    }

    /// Texts of a request were looked up in the cache.
    pub fn looked_up(&self, hits: usize, joined: usize, misses: usize) {
        for (result, texts) in [("hit", hits), ("joined", joined), ("miss", misses)] {
            self.cache_lookups.with_label_values(&[result]).inc_by(texts as u64);
        }
    }

    /// How large the cache is.
    pub fn cached(&self, bytes: u64, entries: usize) {
        self.cache_bytes.set(i64::try_from(bytes).unwrap_or(i64::MAX));
        self.cache_entries.set(i64::try_from(entries).unwrap_or(i64::MAX));
    }

    /// A request was refused, or a text given up.
    pub fn refused(&self, reason: Refused) {
        let reason = match reason {
            Refused::Overloaded => "overloaded",
            Refused::Deadline => "deadline",
            Refused::Rate => "rate",
            Refused::Key => "key",
            Refused::Cancelled => "cancelled",
        };
        self.refused.with_label_values(&[reason]).inc();
    }

    /// A panic was caught.
    pub fn panicked(&self, place: PanicPlace) {
        self.panics.with_label_values(&[place_name(place)]).inc();
    }

    /// Panics caught so far at one place.
    #[must_use]
    pub fn panics(&self, place: PanicPlace) -> u64 {
        self.panics.with_label_values(&[place_name(place)]).get()
    }

    /// A client connected.
    pub fn connected(&self) {
        self.connections.inc();
    }

    /// A client's connection ended.
    pub fn disconnected(&self) {
        self.connections.dec();
    }

    /// Open client connections.
    #[must_use]
    pub fn connections(&self) -> i64 {
        self.connections.get()
    }

    /// A client took too long.
    pub fn cut_off(&self, why: CutOff) {
        let waiting_for = match why {
            CutOff::Handshake => "handshake",
            CutOff::Head => "head",
            CutOff::Body => "body",
            CutOff::Write => "write",
            CutOff::KeepAlive => "keep_alive",
        };
        self.cut_off.with_label_values(&[waiting_for]).inc();
    }

    /// All metrics in Prometheus' text format.
    ///
    /// # Errors
    /// If a metric cannot be written down.
    pub fn render(&self) -> Result<Vec<u8>, prometheus::Error> {
        let mut text = Vec::new();
        TextEncoder::new().encode(&self.registry.gather(), &mut text)?;
        Ok(text)
    }
}

fn place_name(place: PanicPlace) -> &'static str {
    match place {
        PanicPlace::Handler => "handler",
        PanicPlace::Tokenizer => "tokenizer",
        PanicPlace::Worker => "worker",
    }
}
