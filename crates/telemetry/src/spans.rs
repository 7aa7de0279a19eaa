//! Spans of requests, delivered to a collector (OTLP over HTTP).
//!
//! They are handed to a thread that delivers them. One that cannot loses spans, which are counted; it never holds a
//! request up.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime};

use opentelemetry::trace::{
    Span as _, SpanBuilder, SpanContext, SpanId, SpanKind, Status, TraceContextExt, TraceFlags, TraceId, TraceState,
    Tracer, TracerProvider,
};
use opentelemetry::{Context, KeyValue, Value};
use opentelemetry_otlp::{SpanExporter, WithExportConfig, WithHttpConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::resource::EnvResourceDetector;
use opentelemetry_sdk::trace::{
    self, BatchConfigBuilder, BatchSpanProcessor, Sampler, SdkTracer, SdkTracerProvider, SpanData,
};

/// Spans that wait to be delivered; those that come then are lost.
const MAX_QUEUED_SPANS: usize = 16_384;
/// Spans of one delivery.
const MAX_EXPORT_SPANS: usize = 1_024;
/// Time between two deliveries, if there are not so many before.
const EXPORT_INTERVAL: Duration = Duration::from_secs(2);
/// Longest delivery.
const EXPORT_TIMEOUT: Duration = Duration::from_secs(10);
/// Longest wait for the last delivery.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(2);

/// Delivers spans.
#[derive(Debug)]
pub struct SpanTracer {
    provider: SdkTracerProvider,
    tracer: SdkTracer,
    counts: Arc<SpanCounters>,
    sampling_share: f64,
}

#[derive(Debug, Default)]
struct SpanCounters {
    /// That were handed over; some of them wait, or found no place to.
    recorded: AtomicU64,
    /// That the collector took.
    delivered: AtomicU64,
    /// That it did not.
    failed: AtomicU64,
    /// The last delivery failed.
    is_failing: AtomicBool,
}

/// The span of a caller (W3C Trace Context).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ParentSpan<'a> {
    /// 32 hexadecimal digits.
    pub trace_id: &'a str,
    /// 16 hexadecimal digits.
    pub span_id: &'a str,
    /// The caller's own spans are kept.
    pub is_sampled: bool,
    /// What it says of that counts for its request too.
    pub is_trusted: bool,
    /// What tracing systems want to be passed on.
    pub trace_state: &'a str,
}

impl SpanTracer {
    /// Starts the thread that delivers to `endpoint`, a URL that `/v1/traces` follows, the spans of this share of all
    /// requests whose caller did not decide it.
    ///
    /// # Errors
    /// One sentence, if the address is none.
    pub fn start(endpoint: &str, share: f64) -> Result<Self, String> {
        // Another part of the process may have chosen the same already.
        tokio_rustls::rustls::crypto::ring::default_provider().install_default().ok();
        // This client cannot be made on a thread that runs tasks.
        let client = std::thread::Builder::new()
            .name("predictd-otlp".to_owned())
            .spawn(|| reqwest::blocking::Client::builder().timeout(EXPORT_TIMEOUT).build())
            .map_err(|error| error.to_string())?
            .join()
            .map_err(|_| "its client panicked".to_owned())?
            .map_err(|error| error.to_string())?;
        let endpoint = format!("{}/v1/traces", endpoint.trim_end_matches('/'));
        let exporter = SpanExporter::builder().with_http().with_http_client(client).with_endpoint(endpoint);
        let exporter = exporter.with_timeout(EXPORT_TIMEOUT).build().map_err(|error| error.to_string())?;
        let counts = Arc::new(SpanCounters::default());
        let batches = BatchConfigBuilder::default()
            .with_max_queue_size(MAX_QUEUED_SPANS)
            .with_max_export_batch_size(MAX_EXPORT_SPANS)
            .with_scheduled_delay(EXPORT_INTERVAL);
        let exporter = CountingExporter { exporter, counts: Arc::clone(&counts) };
        let processor = BatchSpanProcessor::builder(exporter).with_batch_config(batches.build()).build();
        // What OTEL_RESOURCE_ATTRIBUTES says goes before.
        let resource = Resource::builder_empty()
            .with_service_name("predictd")
            .with_attribute(KeyValue::new("service.version", env!("CARGO_PKG_VERSION")))
            .with_detector(Box::new(EnvResourceDetector::new()));
        let provider = SdkTracerProvider::builder()
            .with_span_processor(processor)
            .with_sampler(Sampler::parent_based(Sampler::TraceIdRatioBased(share)))
            .with_resource(resource.build())
            .build();
        Ok(Self { tracer: provider.tracer("predictd"), provider, counts, sampling_share: share })
    }

    /// The span of a request that was received just now; nothing, if it is to have none.
    #[must_use]
    pub fn start_request(&self, name: String, caller: Option<ParentSpan<'_>>) -> Option<RequestSpan> {
        let start_instant = Instant::now();
        let start_time = SystemTime::now();
        let parent = caller.and_then(|caller| caller.to_context(self.sampling_share)).unwrap_or_default();
        let builder = SpanBuilder::from_name(name).with_kind(SpanKind::Server).with_start_time(start_time);
        let span = self.tracer.build_with_context(builder, &parent);
        span.is_recording().then(|| RequestSpan {
            span,
            tracer: self.tracer.clone(),
            counts: Arc::clone(&self.counts),
            start_instant,
            start_time,
        })
    }

    /// How many there were until now: `recorded`, and of these `delivered` to the collector, or `failed` to be.
    #[must_use]
    pub fn counts(&self) -> [(&'static str, u64); 3] {
        let SpanCounters { recorded, delivered, failed, .. } = &*self.counts;
        [("recorded", recorded), ("delivered", delivered), ("failed", failed)]
            .map(|(state, count)| (state, count.load(Ordering::Relaxed)))
    }

    /// Delivers those that wait. It blocks for at most two seconds.
    pub fn shutdown(&self) {
        if let Err(error) = self.provider.shutdown_with_timeout(SHUTDOWN_TIMEOUT) {
            tracing::warn!(%error, "last spans may be lost");
        }
    }
}

impl ParentSpan<'_> {
    fn to_context(self, share: f64) -> Option<Context> {
        let trace = TraceId::from_hex(self.trace_id).ok()?;
        let span = SpanId::from_hex(self.span_id).ok()?;
        let sampled = if self.is_trusted { self.is_sampled } else { is_sampled(trace, share) };
        let flags = if sampled { TraceFlags::SAMPLED } else { TraceFlags::NOT_SAMPLED };
        // One that cannot be read is left out, as the standard says.
        let state = self.trace_state.parse::<TraceState>().unwrap_or_default();
        Some(Context::new().with_remote_span_context(SpanContext::new(trace, span, flags, true, state)))
    }
}

/// Whether a trace is one of this share of all, as a sampler by ratio decides: by its id, so that all servers agree.
#[expect(clippy::cast_precision_loss, reason = "a share of 2^63 needs no more")]
fn is_sampled(trace: TraceId, share: f64) -> bool {
    let low = trace.to_bytes().last_chunk::<8>().copied().unwrap_or_default();
    let position = u64::from_be_bytes(low) >> 1;
    (position as f64) < share * (1_u64 << 63) as f64
}

/// The span of a request. Dropped, it ends.
#[derive(Debug)]
pub struct RequestSpan {
    span: trace::Span,
    tracer: SdkTracer,
    counts: Arc<SpanCounters>,
    start_instant: Instant,
    start_time: SystemTime,
}

impl RequestSpan {
    /// Its trace: 32 hexadecimal digits.
    #[must_use]
    pub fn trace_id(&self) -> String {
        self.span.span_context().trace_id().to_string()
    }

    /// Says something of it.
    pub fn set_attribute(&mut self, name: &'static str, value: impl Into<Value>) {
        self.span.set_attribute(KeyValue::new(name, value));
    }

    /// It was the server's fault.
    pub fn set_error(&mut self) {
        self.span.set_status(Status::error(""));
    }

    /// A part of it that is over, with a number that belongs to it.
    pub fn record_child(
        &self,
        name: &'static str,
        since: Instant,
        took: Duration,
        number: Option<(&'static str, i64)>,
    ) {
        let start = self.start_time + since.saturating_duration_since(self.start_instant);
        let builder = SpanBuilder::from_name(name).with_start_time(start);
        let builder = builder.with_attributes(number.map(|(name, number)| KeyValue::new(name, number)));
        let parent = Context::new().with_remote_span_context(self.span.span_context().clone());
        self.tracer.build_with_context(builder, &parent).end_with_timestamp(start + took);
        self.counts.recorded.fetch_add(1, Ordering::Relaxed);
    }
}

impl Drop for RequestSpan {
    fn drop(&mut self) {
        // By the clock that its parts were measured by: the system's may be set in between.
        self.span.end_with_timestamp(self.start_time + self.start_instant.elapsed());
        self.counts.recorded.fetch_add(1, Ordering::Relaxed);
    }
}

/// Counts what is delivered, and logs when that begins to fail.
#[derive(Debug)]
struct CountingExporter {
    exporter: SpanExporter,
    counts: Arc<SpanCounters>,
}

impl trace::SpanExporter for CountingExporter {
    async fn export(&self, spans: Vec<SpanData>) -> OTelSdkResult {
        let count = spans.len() as u64;
        let delivered = self.exporter.export(spans).await;
        let failed = delivered.is_err();
        let counter = if failed { &self.counts.failed } else { &self.counts.delivered };
        counter.fetch_add(count, Ordering::Relaxed);
        let before = self.counts.is_failing.swap(failed, Ordering::Relaxed);
        match &delivered {
            Err(error) if !before => tracing::warn!(%error, "span export failed; spans dropped"),
            Ok(()) if before => tracing::info!("span export recovered"),
            _ => {}
        }
        delivered
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.exporter.shutdown_with_timeout(timeout)
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.exporter.set_resource(resource);
    }
}
