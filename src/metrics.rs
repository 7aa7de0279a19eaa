//! Every metric: its name, its labels, its buckets, and one function per event.
//!
//! - [`requests`]: requests and connections
//! - [`experiments`]: arms and shadows
//! - [`model`]: texts and runs of a model version
//! - [`drift`]: whether what a model version is asked is like before
//! - [`machine`]: the process, the system, its GPUs
//! - [`now`]: what is true at the moment of a scrape only
//! - [`summary`]: what has happened between two moments
//!
//! No label has a value that a client chose.

pub mod drift;
pub mod experiments;
pub mod machine;
pub mod model;
pub mod now;
pub mod requests;
pub mod summary;

use std::time::Duration;

use parking_lot::Mutex;
use prometheus::core::Collector;
use prometheus::{Encoder, Gauge, GaugeVec, IntCounter, IntCounterVec, IntGauge, Registry, TextEncoder, opts};

use drift::{Accuracies, AccuracyNow};
use experiments::ExperimentMetrics;
pub use machine::Machine;
use model::{ModelMetrics, ModelVectors};
use now::Now;
pub use now::VersionNow;
pub use requests::{Outcome, RequestMetrics};

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
    /// The memory for responses was not free in time.
    ResponseMemory,
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

/// What a look at an alias came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Followed {
    /// It stands for what it stood for.
    Unchanged,
    /// It has moved, and what it stands for now is served.
    Switched,
    /// It has moved to what cannot be served.
    Refused,
    /// It could not be looked at, or not be dealt with for now.
    Failed,
}

/// All metrics of a server.
#[derive(Debug)]
pub struct Metrics {
    /// Requests and connections.
    pub http: RequestMetrics,
    /// The process, the system, its GPUs.
    pub machine: Machine,
    /// Experiments.
    pub experiments: ExperimentMetrics,
    registry: Registry,
    models: ModelVectors,
    cache_lookups: IntCounterVec,
    cache_bytes: IntGauge,
    cache_entries: IntGauge,
    panics: IntCounterVec,
    lost_lines: IntCounter,
    spans: IntCounterVec,
    ready: IntGauge,
    stale: Gauge,
    unserved: IntGauge,
    changes: IntCounterVec,
    feedback: IntCounterVec,
    feedback_waiting: IntGauge,
    feedback_deleted: IntCounter,
    unusable: GaugeVec,
    followed: IntCounterVec,
    accuracies: Accuracies,
    now: Mutex<Now>,
}

/// A metric that is in the registry.
fn registered<M: Collector + Clone + 'static>(registry: &Registry, metric: M) -> Result<M, prometheus::Error> {
    registry.register(Box::new(metric.clone()))?;
    Ok(metric)
}

impl Metrics {
    /// Registers every metric.
    ///
    /// # Errors
    /// If two metrics have one name.
    pub fn new() -> Result<Self, prometheus::Error> {
        let registry = Registry::new();
        let counter = |name: &str, help: &str, labels: &[&str]| {
            registered(&registry, IntCounterVec::new(opts!(name, help), labels)?)
        };
        let gauge = |name: &str, help: &str| registered(&registry, IntGauge::new(name, help)?);
        let build = GaugeVec::new(opts!("predictd_build_info", "1; the server's version is a label."), &["version"])?;
        build.with_label_values(&[env!("CARGO_PKG_VERSION")]).set(1.0);
        registry.register(Box::new(build))?;
        let spans = counter(
            "predictd_trace_spans_total",
            "Spans: recorded, and of these delivered to the collector, or refused by it or lost on the way (failed). What is neither waits, or found no place to.",
            &["state"],
        )?;
        let panics = counter("predictd_panics_total", "Panics caught, by place.", &["place"])?;
        // There from the start: a rate needs to have seen what was before the first.
        for state in ["recorded", "delivered", "failed"] {
            spans.with_label_values(&[state]);
        }
        for place in [PanicPlace::Handler, PanicPlace::Tokenizer, PanicPlace::Worker] {
            panics.with_label_values(&[place_name(place)]);
        }
        let http = RequestMetrics::new(&registry)?;
        http.begin();
        Ok(Self {
            http,
            machine: Machine::new(&registry)?,
            experiments: ExperimentMetrics::new(&registry)?,
            models: ModelVectors::new(&registry)?,
            cache_lookups: counter(
                "predictd_cache_lookups_total",
                "Texts looked up in the result cache: their answer was there (hit), the same text was being run (joined), or neither (miss). The hit ratio is hit / all.",
                &["result"],
            )?,
            cache_bytes: gauge("predictd_cache_bytes", "Bytes of answers in the result cache.")?,
            cache_entries: gauge("predictd_cache_entries", "Answers in the result cache.")?,
            panics,
            lost_lines: registered(
                &registry,
                IntCounter::new(
                    "predictd_log_lines_lost_total",
                    "Log lines lost because a writer was too slow, or could not write.",
                )?,
            )?,
            spans,
            ready: gauge(
                "predictd_ready",
                "1 once the models of the start were loaded and while requests that name no model will be answered, as /readyz says.",
            )?,
            stale: registered(
                &registry,
                Gauge::new(
                    "predictd_registry_stale_seconds",
                    "How long the registry's database has not answered; 0 while it does. What was known last is served.",
                )?,
            )?,
            unserved: gauge(
                "predictd_registry_unserved_models",
                "Models whose recorded version does not answer here: it is being loaded, or could not be.",
            )?,
            changes: counter(
                "predictd_registry_changes_total",
                "Changes of the registry that this process made, by what was done.",
                &["model", "action"],
            )?,
            feedback: counter(
                "predictd_feedback_total",
                "True labels told of earlier answers, by outcome: stored, corrected, unchanged, waiting (on disk, until the database answers), refused.",
                &["outcome"],
            )?,
            feedback_waiting: gauge(
                "predictd_feedback_waiting_bytes",
                "Bytes of feedback on disk that wait until the database answers.",
            )?,
            feedback_deleted: registered(
                &registry,
                IntCounter::new(
                    "predictd_feedback_deleted_total",
                    "Answers whose true labels and texts were deleted because they were older than --feedback-retention.",
                )?,
            )?,
            unusable: registered(
                &registry,
                GaugeVec::new(
                    opts!(
                        "predictd_registry_unusable",
                        "1 while neither feedback nor a change of the registry can be kept, by reason: the data directory was removed or replaced (lost), or the database is damaged."
                    ),
                    &["reason"],
                )?,
            )?,
            followed: counter(
                "predictd_follow_looks_total",
                "Looks at aliases that are followed, by outcome: unchanged, switched, refused (what it stands for cannot be served), failed (it is tried again).",
                &["model", "outcome"],
            )?,
            accuracies: Accuracies::new(&registry)?,
            now: Mutex::new(Now::new(&registry)?),
            registry,
        })
    }

    /// The metrics of one model version.
    #[must_use]
    pub fn model(&self, model: &str, version: &str) -> ModelMetrics {
        self.models.of(model, version)
    }

    /// There is no such version any more.
    pub fn forget(&self, model: &str, version: &str) {
        self.models.forget(model, version);
        self.accuracies.forget(model, version);
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

    /// So many log lines were lost until now.
    pub fn lost_lines(&self, lines: u64) {
        // Of two scrapes at a time, only one adds what is new.
        let _alone = self.now.lock();
        self.lost_lines.inc_by(lines.saturating_sub(self.lost_lines.get()));
    }

    /// So many spans are in this state, or were, until now.
    pub fn spans(&self, state: &str, spans: u64) {
        let _alone = self.now.lock();
        let counter = self.spans.with_label_values(&[state]);
        counter.inc_by(spans.saturating_sub(counter.get()));
    }

    /// Whether requests that name no model will be answered.
    pub fn ready(&self, is_ready: bool) {
        self.ready.set(is_ready.into());
    }

    /// How long the registry's database has not answered.
    pub fn stale(&self, time: Duration) {
        self.stale.set(time.as_secs_f64());
    }

    /// The registry was changed.
    pub fn changed(&self, model: &str, action: &str) {
        self.changes.with_label_values(&[model, action]).inc();
    }

    /// The true label of an answer was told; the outcome in a word.
    pub fn told(&self, outcome: &str) {
        self.feedback.with_label_values(&[outcome]).inc();
    }

    /// So many bytes of feedback wait.
    pub fn feedback_waits(&self, bytes: u64) {
        self.feedback_waiting.set(i64::try_from(bytes).unwrap_or(i64::MAX));
    }

    /// Feedback of so many answers was deleted because of its age.
    pub fn feedback_deleted(&self, answers: u64) {
        self.feedback_deleted.inc_by(answers);
    }

    /// Why the registry's database cannot be used, in a word, if so.
    pub fn unusable(&self, reason: Option<&str>) {
        for known in ["lost", "damaged"] {
            self.unusable.with_label_values(&[known]).set(f64::from(u8::from(reason == Some(known))));
        }
    }

    /// So right were versions lately. Others are forgotten.
    pub fn accuracies(&self, found: &[AccuracyNow]) {
        self.accuracies.put(found);
    }

    /// An alias will be looked at.
    pub fn follows(&self, model: &str) {
        // There from the start: a rate needs to have seen what was before the first.
        for outcome in [Followed::Unchanged, Followed::Switched, Followed::Refused, Followed::Failed] {
            self.followed.with_label_values(&[model, outcome_name(outcome)]);
        }
    }

    /// An alias was looked at.
    pub fn followed(&self, model: &str, outcome: Followed) {
        self.followed.with_label_values(&[model, outcome_name(outcome)]).inc();
    }

    /// So many models are not served as they are recorded.
    pub fn unserved(&self, models: usize) {
        self.unserved.set(i64::try_from(models).unwrap_or(i64::MAX));
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

    /// All metrics in Prometheus' text format, with the state of all versions.
    ///
    /// # Errors
    /// If a metric cannot be written down.
    pub fn render(&self, versions: &[VersionNow]) -> Result<Vec<u8>, prometheus::Error> {
        self.machine.refresh();
        // One scrape at a time: another would find half of what is put down here.
        let now = self.now.lock();
        now.put(versions);
        let mut text = Vec::new();
        TextEncoder::new().encode(&self.registry.gather(), &mut text)?;
        Ok(text)
    }
}

fn outcome_name(outcome: Followed) -> &'static str {
    match outcome {
        Followed::Unchanged => "unchanged",
        Followed::Switched => "switched",
        Followed::Refused => "refused",
        Followed::Failed => "failed",
    }
}

fn place_name(place: PanicPlace) -> &'static str {
    match place {
        PanicPlace::Handler => "handler",
        PanicPlace::Tokenizer => "tokenizer",
        PanicPlace::Worker => "worker",
    }
}
