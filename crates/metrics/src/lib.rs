//! Every metric: its name, its labels, its buckets, and one function per event.
//!
//! - [`requests`]: requests and connections
//! - [`experiments`]: arms and shadows
//! - [`version_metrics`]: texts and runs of a model version
//! - [`drift`]: whether what a model version is asked is like before
//! - [`system_sampler`]: the process, the system, its GPUs
//! - [`scrape_gauges`]: what is true at the moment of a scrape only
//! - [`traffic_summary`]: what has happened between two moments
//!
//! No label has a value that a client chose.

pub mod drift;
pub mod experiments;
mod metric_factory;
mod registry_metrics;
pub mod requests;
pub mod scrape_gauges;
pub mod system_sampler;
pub mod traffic_summary;
mod version_gauges;
pub mod version_metrics;

use std::time::Duration;

use parking_lot::Mutex;
use prometheus::{Encoder, Gauge, IntCounter, IntCounterVec, Registry, Result, TextEncoder};

use drift::{AccuracyGauges, AccuracyStatus};
use experiments::ExperimentMetrics;
use predictd_stats::to_f64;

use metric_factory::MetricFactory;
use registry_metrics::RegistryMetrics;
pub use requests::{RefusalReason, RequestMetrics, RequestOutcome, TimeoutStage};
use scrape_gauges::ScrapeGauges;
pub use system_sampler::SystemMetrics;
pub use version_gauges::{SignalGauges, VersionGauges};
use version_metrics::{VersionMetricVecs, VersionMetrics};

/// Where a panic was caught.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PanicSite {
    /// In a request handler.
    Handler,
    /// In a tokenizer.
    Tokenizer,
    /// In a worker, while a text was run.
    Worker,
}

/// What a look at an alias came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AliasCheckOutcome {
    /// It stands for what it stood for.
    Unchanged,
    /// It has moved, and what it stands for now is served.
    Switched,
    /// It has moved to what cannot be served.
    Unservable,
    /// It could not be looked at, or not be dealt with for now.
    Failed,
}

/// All metrics of a server.
#[derive(Debug)]
pub struct Metrics {
    /// Requests and connections.
    pub http: RequestMetrics,
    /// The process, the system, its GPUs.
    pub system: SystemMetrics,
    /// Experiments.
    pub experiments: ExperimentMetrics,
    registry: Registry,
    version_vecs: VersionMetricVecs,
    cache_lookups: IntCounterVec,
    cache_bytes: Gauge,
    cache_entries: Gauge,
    panics: IntCounterVec,
    dropped_log_lines: IntCounter,
    spans: IntCounterVec,
    ready: Gauge,
    model_registry: RegistryMetrics,
    accuracy_gauges: AccuracyGauges,
    scrape_gauges: Mutex<ScrapeGauges>,
}

impl Metrics {
    /// Registers every metric.
    ///
    /// # Errors
    /// If two metrics have one name.
    pub fn new() -> Result<Self> {
        let registry = Registry::new();
        let metrics = MetricFactory(&registry);
        let build_info =
            metrics.gauge_vec("predictd_build_info", "1; the server's version is a label.", &["version"])?;
        build_info.with_label_values(&[env!("CARGO_PKG_VERSION")]).set(1.0);
        let spans = metrics.counter_vec(
            "predictd_trace_spans_total",
            "Spans: recorded, and of these delivered to the collector, or refused by it or lost on the way (failed). What is neither waits, or found no place to.",
            &["state"],
        )?;
        let panics = metrics.counter_vec("predictd_panics_total", "Panics caught, by place.", &["place"])?;
        // A rate needs the series before its first event.
        for state in ["recorded", "delivered", "failed"] {
            spans.with_label_values(&[state]);
        }
        for site in [PanicSite::Handler, PanicSite::Tokenizer, PanicSite::Worker] {
            panics.with_label_values(&[panic_site_name(site)]);
        }
        let http = RequestMetrics::new(metrics)?;
        http.init_series();
        Ok(Self {
            http,
            system: SystemMetrics::new(metrics)?,
            experiments: ExperimentMetrics::new(metrics)?,
            version_vecs: VersionMetricVecs::new(metrics)?,
            cache_lookups: metrics.counter_vec(
                "predictd_cache_lookups_total",
                "Texts looked up in the result cache: their answer was there (hit), the same text was being run (joined), or neither (miss). The hit ratio is hit / all.",
                &["result"],
            )?,
            cache_bytes: metrics.gauge("predictd_cache_bytes", "Bytes of answers in the result cache.")?,
            cache_entries: metrics.gauge("predictd_cache_entries", "Answers in the result cache.")?,
            panics,
            dropped_log_lines: metrics.counter(
                "predictd_log_lines_dropped_total",
                "Log lines lost because a writer was too slow, or could not write.",
            )?,
            spans,
            ready: metrics.gauge(
                "predictd_ready",
                "1 once the models of the start were loaded and while requests that name no model will be answered, as /readyz says.",
            )?,
            model_registry: RegistryMetrics::new(metrics)?,
            accuracy_gauges: AccuracyGauges::new(metrics)?,
            scrape_gauges: Mutex::new(ScrapeGauges::new(metrics)?),
            registry,
        })
    }

    /// The metrics of one model version.
    #[must_use]
    pub fn model(&self, model: &str, version: &str) -> VersionMetrics {
        self.version_vecs.version_metrics(model, version)
    }

    /// There is no such version any more.
    pub fn remove_version(&self, model: &str, version: &str) {
        self.version_vecs.remove_version(model, version);
        self.accuracy_gauges.remove_version(model, version);
    }

    /// Texts of a request were looked up in the cache.
    pub fn record_cache_lookups(&self, hits: usize, joined: usize, misses: usize) {
        for (result, texts) in [("hit", hits), ("joined", joined), ("miss", misses)] {
            self.cache_lookups.with_label_values(&[result]).inc_by(texts as u64);
        }
    }

    /// How large the cache is.
    pub fn set_cache_size(&self, bytes: u64, entries: usize) {
        self.cache_bytes.set(to_f64(bytes));
        self.cache_entries.set(to_f64(entries as u64));
    }

    /// So many log lines were lost until now.
    pub fn set_dropped_log_lines(&self, lines: u64) {
        // Concurrent scrapes must not add the difference twice.
        let _scrape_lock = self.scrape_gauges.lock();
        self.dropped_log_lines.inc_by(lines.saturating_sub(self.dropped_log_lines.get()));
    }

    /// So many spans are in this state, or were, until now.
    pub fn set_spans(&self, state: &str, spans: u64) {
        let _scrape_lock = self.scrape_gauges.lock();
        let counter = self.spans.with_label_values(&[state]);
        counter.inc_by(spans.saturating_sub(counter.get()));
    }

    /// Whether requests that name no model will be answered.
    pub fn set_ready(&self, is_ready: bool) {
        self.ready.set(is_ready.into());
    }

    /// How long the registry's database has not answered.
    pub fn set_registry_staleness(&self, time: Duration) {
        self.model_registry.staleness.set(time.as_secs_f64());
    }

    /// The registry was changed.
    pub fn record_registry_change(&self, model: &str, action: &str) {
        self.model_registry.changes.with_label_values(&[model, action]).inc();
    }

    /// Feedback arrived; the outcome in a word.
    pub fn record_feedback(&self, outcome: &str) {
        self.model_registry.feedback.with_label_values(&[outcome]).inc();
    }

    /// So many bytes of feedback wait.
    pub fn set_spool_bytes(&self, bytes: u64) {
        self.model_registry.spool_bytes.set(to_f64(bytes));
    }

    /// Feedback of so many answers was deleted because of its age.
    pub fn record_feedback_deletion(&self, answers: u64) {
        self.model_registry.feedback_deleted.inc_by(answers);
    }

    /// Why the registry's database cannot be used, in a word, if so.
    pub fn set_storage_fault(&self, reason: Option<&str>) {
        for fault in ["lost", "damaged"] {
            self.model_registry.storage_fault.with_label_values(&[fault]).set((reason == Some(fault)).into());
        }
    }

    /// So right were versions lately. Others are forgotten.
    pub fn set_accuracies(&self, accuracies: &[AccuracyStatus]) {
        self.accuracy_gauges.update(accuracies);
    }

    /// An alias will be looked at.
    pub fn init_alias_checks(&self, model: &str) {
        // A rate needs the series before its first event.
        for outcome in [
            AliasCheckOutcome::Unchanged,
            AliasCheckOutcome::Switched,
            AliasCheckOutcome::Unservable,
            AliasCheckOutcome::Failed,
        ] {
            self.model_registry.alias_checks.with_label_values(&[model, alias_check_outcome_name(outcome)]);
        }
    }

    /// An alias was looked at.
    pub fn record_alias_check(&self, model: &str, outcome: AliasCheckOutcome) {
        self.model_registry.alias_checks.with_label_values(&[model, alias_check_outcome_name(outcome)]).inc();
    }

    /// So many models are not served as they are recorded.
    pub fn set_unserved_models(&self, models: usize) {
        self.model_registry.unserved_models.set(to_f64(models as u64));
    }

    /// A panic was caught.
    pub fn record_panic(&self, site: PanicSite) {
        self.panics.with_label_values(&[panic_site_name(site)]).inc();
    }

    /// All metrics in Prometheus' text format, with the state of all versions.
    ///
    /// # Errors
    /// If a metric cannot be written down.
    pub fn render(&self, versions: &[VersionGauges]) -> Result<Vec<u8>> {
        self.system.refresh();
        // One scrape at a time: another would read half of the updated gauges.
        let scrape_gauges = self.scrape_gauges.lock();
        scrape_gauges.update(versions);
        let mut text = Vec::new();
        TextEncoder::new().encode(&self.registry.gather(), &mut text)?;
        Ok(text)
    }
}

fn alias_check_outcome_name(outcome: AliasCheckOutcome) -> &'static str {
    match outcome {
        AliasCheckOutcome::Unchanged => "unchanged",
        AliasCheckOutcome::Switched => "switched",
        AliasCheckOutcome::Unservable => "refused",
        AliasCheckOutcome::Failed => "failed",
    }
}

fn panic_site_name(site: PanicSite) -> &'static str {
    match site {
        PanicSite::Handler => "handler",
        PanicSite::Tokenizer => "tokenizer",
        PanicSite::Worker => "worker",
    }
}
