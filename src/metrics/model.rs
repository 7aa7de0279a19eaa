//! What the runs of one model version are counted by.

use std::time::Duration;

use prometheus::{Gauge, GaugeVec, Histogram, HistogramVec, IntCounter, IntCounterVec, Registry, histogram_opts, opts};

/// Texts of a run.
const TEXT_BUCKETS: [f64; 9] = [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0];
/// Seconds; from a cheap model's run to the longest wait.
const TIME_BUCKETS: [f64; 13] =
    [0.000_05, 0.000_1, 0.000_25, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 2.0, 10.0];

/// The metrics that every model version has.
#[derive(Debug)]
pub(super) struct ModelVectors {
    run_texts: HistogramVec,
    run_seconds: HistogramVec,
    queue_seconds: HistogramVec,
    tokens: IntCounterVec,
    wasted: IntCounterVec,
    recycled: IntCounterVec,
    cost: GaugeVec,
}

/// The metrics of one model version.
#[derive(Debug, Clone)]
pub struct ModelMetrics {
    run_texts: Histogram,
    run_seconds: Histogram,
    queue_seconds: Histogram,
    tokens: IntCounter,
    padding: IntCounter,
    wasted: IntCounter,
    recycled: IntCounter,
    /// Of a run, of a token, of a token and token of length.
    cost: [Gauge; 3],
}

impl ModelVectors {
    pub(super) fn new(registry: &Registry) -> Result<Self, prometheus::Error> {
        const LABELS: [&str; 2] = ["model", "version"];
        let histogram = |name: &str, help: &str, buckets: &[f64]| -> Result<HistogramVec, prometheus::Error> {
            let metric = HistogramVec::new(histogram_opts!(name, help, buckets.to_vec()), &LABELS)?;
            registry.register(Box::new(metric.clone()))?;
            Ok(metric)
        };
        let counter = |name: &str, help: &str, labels: &[&str]| -> Result<IntCounterVec, prometheus::Error> {
            let metric = IntCounterVec::new(opts!(name, help), labels)?;
            registry.register(Box::new(metric.clone()))?;
            Ok(metric)
        };
        let cost = GaugeVec::new(
            opts!(
                "predictd_run_cost_seconds",
                "What a run is expected to cost, by part: for the run, for each token, for each token and token of length."
            ),
            &["model", "version", "part"],
        )?;
        registry.register(Box::new(cost.clone()))?;
        Ok(Self {
            cost,
            run_texts: histogram("predictd_run_texts", "Texts that shared a run.", &TEXT_BUCKETS)?,
            run_seconds: histogram("predictd_run_seconds", "Time of a run of the model.", &TIME_BUCKETS)?,
            queue_seconds: histogram(
                "predictd_queue_seconds",
                "Time from a text's arrival to the start of its run.",
                &TIME_BUCKETS,
            )?,
            tokens: counter(
                "predictd_run_tokens_total",
                "Tokens run, by what they were: text, or padding to the longest text of the run.",
                &["model", "version", "kind"],
            )?,
            wasted: counter(
                "predictd_wasted_texts_total",
                "Texts that were run for a client that had left by the end.",
                &LABELS,
            )?,
            recycled: counter(
                "predictd_recycled_sessions_total",
                "Sessions that were replaced, as --recycle-runs asks for.",
                &LABELS,
            )?,
        })
    }

    pub(super) fn of(&self, model: &str, version: &str) -> ModelMetrics {
        let labels = [model, version];
        ModelMetrics {
            run_texts: self.run_texts.with_label_values(&labels),
            run_seconds: self.run_seconds.with_label_values(&labels),
            queue_seconds: self.queue_seconds.with_label_values(&labels),
            tokens: self.tokens.with_label_values(&[model, version, "text"]),
            padding: self.tokens.with_label_values(&[model, version, "padding"]),
            wasted: self.wasted.with_label_values(&labels),
            recycled: self.recycled.with_label_values(&labels),
            cost: ["run", "token", "square"].map(|part| self.cost.with_label_values(&[model, version, part])),
        }
    }
}

impl ModelMetrics {
    /// A run of so many texts ended. Its tokens are those of the texts and the padding between them.
    pub fn ran(&self, texts: usize, tokens: usize, padding: usize, took: Duration) {
        #[expect(clippy::cast_precision_loss, reason = "a small number")]
        self.run_texts.observe(texts as f64);
        self.run_seconds.observe(took.as_secs_f64());
        self.tokens.inc_by(tokens as u64);
        self.padding.inc_by(padding as u64);
    }

    /// Runs so far, tokens of texts in them, and tokens of padding.
    #[must_use]
    pub fn runs_and_tokens(&self) -> [u64; 3] {
        [self.run_seconds.get_sample_count(), self.tokens.get(), self.padding.get()]
    }

    /// A text waited so long for its run.
    pub fn waited(&self, time: Duration) {
        self.queue_seconds.observe(time.as_secs_f64());
    }

    /// What a run is expected to cost, in seconds: for itself, for each token, for each token and token of length.
    pub fn costs(&self, parts: [f64; 3]) {
        for (gauge, part) in self.cost.iter().zip(parts) {
            gauge.set(part);
        }
    }

    /// A worker got a new session.
    pub fn recycled(&self) {
        self.recycled.inc();
    }

    /// A text was run for nobody.
    pub fn wasted(&self) {
        self.wasted.inc();
    }
}
