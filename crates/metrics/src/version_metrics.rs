//! What the texts and runs of one model version are counted by.

use std::collections::HashMap;
use std::time::Duration;

use prometheus::core::{Collector, MetricVec, MetricVecBuilder};
use prometheus::{
    Counter, CounterVec, Gauge, GaugeVec, Histogram, HistogramVec, IntCounter, IntCounterVec, Result, opts,
};

use predictd_stats::to_f64;

use super::metric_factory::MetricFactory;

/// Texts of a run.
const BATCH_TEXT_BUCKETS: [f64; 9] = [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0];
/// Tokens of a text.
const TOKEN_BUCKETS: [f64; 9] = [4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 8_192.0];
/// Seconds; from a cheap model's run to the longest wait.
const SECONDS_BUCKETS: [f64; 13] =
    [0.000_05, 0.000_1, 0.000_25, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 2.0, 10.0];
/// Probabilities of the labels that were answered.
const CONFIDENCE_BUCKETS: [f64; 12] = [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99, 1.0];
/// Time of a run over the time that was expected.
const COST_ERROR_BUCKETS: [f64; 9] = [0.25, 0.5, 0.75, 0.9, 1.1, 1.333, 2.0, 4.0, 16.0];
/// Labels of a model that have series of their own; the rest share [`OTHER_LABEL`].
const MAX_COUNTED_LABELS: usize = 200;
const OTHER_LABEL: &str = "(other)";

const VERSION_LABELS: [&str; 2] = ["model", "version"];

/// The metrics that every model version has.
#[derive(Debug)]
pub(super) struct VersionMetricVecs {
    pub(super) items: ItemMetricVecs,
    batches: BatchMetricVecs,
}

/// What the items of a version are counted by.
#[derive(Debug)]
pub(super) struct ItemMetricVecs {
    pub(super) predictions: IntCounterVec,
    labels: IntCounterVec,
    confidence: HistogramVec,
    item_errors: IntCounterVec,
    item_tokens: HistogramVec,
    tokenize_seconds: HistogramVec,
    queue_seconds: HistogramVec,
    wasted_items: IntCounterVec,
    drift_windows: IntCounterVec,
}

/// What the batches and loads of a version are counted by.
#[derive(Debug)]
struct BatchMetricVecs {
    batch_sizes: HistogramVec,
    batch_seconds: HistogramVec,
    busy_seconds: CounterVec,
    tokens: IntCounterVec,
    sessions_recycled: IntCounterVec,
    cost: GaugeVec,
    cost_error: HistogramVec,
    load_seconds: GaugeVec,
}

/// The metrics of one model version.
#[derive(Debug, Clone)]
pub struct VersionMetrics {
    model_and_version: [String; 2],
    predictions: IntCounter,
    labels: IntCounterVec,
    confidence: Histogram,
    item_errors: IntCounterVec,
    item_tokens: Histogram,
    batch_sizes: Histogram,
    batch_seconds: Histogram,
    tokenize_seconds: Histogram,
    queue_seconds: Histogram,
    busy_seconds: Counter,
    tokens: IntCounter,
    padding: IntCounter,
    wasted_items: IntCounter,
    sessions_recycled: IntCounter,
    /// Of a run, of a token, of a token and token of length.
    cost: [Gauge; 3],
    cost_error: Histogram,
    /// Of the whole load, and of its warm-up.
    load_seconds: [Gauge; 2],
    drift_windows: IntCounterVec,
}

impl ItemMetricVecs {
    fn new(metrics: MetricFactory<'_>) -> Result<Self> {
        Ok(Self {
            predictions: metrics.counter_vec(
                "predictd_predictions_total",
                "Texts answered by a model, now or from the cache.",
                &VERSION_LABELS,
            )?,
            labels: metrics.counter_vec(
                "predictd_predicted_labels_total",
                "Labels answered: one for a text, several for a multi-label model, one for each entity. Those behind a model's first 200 are (other), those of a request (request).",
                &["model", "version", "label"],
            )?,
            confidence: metrics.histogram_vec(
                "predictd_prediction_confidence",
                "Probability of the label that was answered, the highest of several.",
                &VERSION_LABELS,
                &CONFIDENCE_BUCKETS,
            )?,
            item_errors: metrics.counter_vec(
                "predictd_item_errors_total",
                "Texts that got an error of their own, by its kind.",
                &["model", "version", "kind"],
            )?,
            item_tokens: metrics.histogram_vec(
                "predictd_item_tokens",
                "Tokens of a text that was answered; words for a model that takes the text itself.",
                &VERSION_LABELS,
                &TOKEN_BUCKETS,
            )?,
            tokenize_seconds: metrics.histogram_vec(
                "predictd_tokenize_duration_seconds",
                "Time from a text's admission until it was tokenised, the wait for a thread included.",
                &VERSION_LABELS,
                &SECONDS_BUCKETS,
            )?,
            queue_seconds: metrics.histogram_vec(
                "predictd_queue_duration_seconds",
                "Time from a text's tokenising to the start of its run; 0 if it ran where it was received.",
                &VERSION_LABELS,
                &SECONDS_BUCKETS,
            )?,
            wasted_items: metrics.counter_vec(
                "predictd_wasted_items_total",
                "Texts that were run for a client that had left by the end.",
                &VERSION_LABELS,
            )?,
            drift_windows: metrics.counter_vec(
                "predictd_drift_windows_total",
                "Windows of texts that were compared with the version's profile by any signal.",
                &VERSION_LABELS,
            )?,
        })
    }
}

impl BatchMetricVecs {
    fn new(metrics: MetricFactory<'_>) -> Result<Self> {
        Ok(Self {
            batch_sizes: metrics.histogram_vec(
                "predictd_batch_size",
                "Texts that shared a run.",
                &VERSION_LABELS,
                &BATCH_TEXT_BUCKETS,
            )?,
            batch_seconds: metrics.histogram_vec(
                "predictd_batch_duration_seconds",
                "Time of a run of the model.",
                &VERSION_LABELS,
                &SECONDS_BUCKETS,
            )?,
            busy_seconds: metrics.register(CounterVec::new(
                opts!(
                    "predictd_worker_busy_seconds_total",
                    "Time that threads worked for the model: runs, and decisions from their scores."
                ),
                &VERSION_LABELS,
            )?)?,
            tokens: metrics.counter_vec(
                "predictd_batch_tokens_total",
                "Tokens run, by what they were: text, or padding to the longest text of the run.",
                &["model", "version", "kind"],
            )?,
            sessions_recycled: metrics.counter_vec(
                "predictd_sessions_recycled_total",
                "Sessions that were replaced, as --max-session-batches asks for.",
                &VERSION_LABELS,
            )?,
            cost: metrics.gauge_vec(
                "predictd_batch_cost_seconds",
                "What a run is expected to cost, by part: for the run, for each token, for each token and token of length.",
                &["model", "version", "part"],
            )?,
            cost_error: metrics.histogram_vec(
                "predictd_batch_cost_error_ratio",
                "Time of a run over the time that its cost model expected.",
                &VERSION_LABELS,
                &COST_ERROR_BUCKETS,
            )?,
            load_seconds: metrics.gauge_vec(
                "predictd_model_load_duration_seconds",
                "Time that the model's last load took, by step: all of it, and its warm-up and measurements.",
                &["model", "version", "step"],
            )?,
        })
    }
}

impl VersionMetricVecs {
    pub(super) fn new(metrics: MetricFactory<'_>) -> Result<Self> {
        Ok(Self { items: ItemMetricVecs::new(metrics)?, batches: BatchMetricVecs::new(metrics)? })
    }

    pub(super) fn version_metrics(&self, model: &str, version: &str) -> VersionMetrics {
        let Self { items, batches } = self;
        let labels = [model, version];
        VersionMetrics {
            model_and_version: labels.map(str::to_owned),
            predictions: items.predictions.with_label_values(&labels),
            labels: items.labels.clone(),
            confidence: items.confidence.with_label_values(&labels),
            item_errors: items.item_errors.clone(),
            item_tokens: items.item_tokens.with_label_values(&labels),
            batch_sizes: batches.batch_sizes.with_label_values(&labels),
            batch_seconds: batches.batch_seconds.with_label_values(&labels),
            tokenize_seconds: items.tokenize_seconds.with_label_values(&labels),
            queue_seconds: items.queue_seconds.with_label_values(&labels),
            busy_seconds: batches.busy_seconds.with_label_values(&labels),
            tokens: batches.tokens.with_label_values(&[model, version, "text"]),
            padding: batches.tokens.with_label_values(&[model, version, "padding"]),
            wasted_items: items.wasted_items.with_label_values(&labels),
            sessions_recycled: batches.sessions_recycled.with_label_values(&labels),
            cost: ["run", "token", "square"].map(|part| batches.cost.with_label_values(&[model, version, part])),
            cost_error: batches.cost_error.with_label_values(&labels),
            load_seconds: ["all", "warm_up"]
                .map(|step| batches.load_seconds.with_label_values(&[model, version, step])),
            drift_windows: items.drift_windows.clone(),
        }
    }

    /// Forgets a version that there is no more.
    pub(super) fn remove_version(&self, model: &str, version: &str) {
        let Self { items, batches } = self;
        let names = [model, version];
        for counter in [
            &items.predictions,
            &items.labels,
            &items.item_errors,
            &batches.tokens,
            &items.wasted_items,
            &batches.sessions_recycled,
            &items.drift_windows,
        ] {
            remove_series(counter, names);
        }
        for histogram in [
            &items.confidence,
            &items.item_tokens,
            &batches.batch_sizes,
            &batches.batch_seconds,
            &items.tokenize_seconds,
            &items.queue_seconds,
            &batches.cost_error,
        ] {
            remove_series(histogram, names);
        }
        remove_series(&batches.busy_seconds, names);
        for gauge in [&batches.cost, &batches.load_seconds] {
            remove_series(gauge, names);
        }
    }
}

/// Removes all series of a version, whatever other labels they have.
fn remove_series<T: MetricVecBuilder>(vector: &MetricVec<T>, [model, version]: [&str; 2])
where
    MetricVec<T>: Collector,
{
    for family in vector.collect() {
        for metric in family.get_metric() {
            let labels: HashMap<&str, &str> =
                metric.get_label().iter().map(|label| (label.name(), label.value())).collect();
            if labels.get("model") == Some(&model) && labels.get("version") == Some(&version) {
                // It was there a moment ago.
                vector.remove(&labels).ok();
            }
        }
    }
}

impl VersionMetrics {
    /// A text of so many tokens was answered, now or from the cache.
    pub fn record_prediction(&self, tokens: usize) {
        self.predictions.inc();
        self.item_tokens.observe(to_f64(tokens as u64));
    }

    /// The model's label of this index was answered.
    pub fn record_label(&self, index: usize, label: &str) {
        self.increment(&self.labels, if index < MAX_COUNTED_LABELS { label } else { OTHER_LABEL });
    }

    /// A label was answered that the request named.
    pub fn record_request_label(&self) {
        self.increment(&self.labels, "(request)");
    }

    /// With this probability.
    pub fn record_confidence(&self, probability: f32) {
        self.confidence.observe(f64::from(probability));
    }

    /// A text got an error of this kind.
    pub fn record_item_error(&self, kind: &str) {
        self.increment(&self.item_errors, kind);
    }

    /// Counts one more with this value of the label that follows model and version.
    fn increment(&self, counter: &IntCounterVec, value: &str) {
        let [model, version] = &self.model_and_version;
        counter.with_label_values(&[model.as_str(), version, value]).inc();
    }

    /// A run of so many texts ended. Its tokens are those of the texts and the padding between them.
    pub fn record_batch(&self, texts: usize, tokens: usize, padding: usize, took: Duration) {
        self.batch_sizes.observe(to_f64(texts as u64));
        self.batch_seconds.observe(took.as_secs_f64());
        self.tokens.inc_by(tokens as u64);
        self.padding.inc_by(padding as u64);
    }

    /// A run took so long, where so long was expected.
    pub fn record_cost_error(&self, took: Duration, expected: Duration) {
        if !expected.is_zero() {
            self.cost_error.observe(took.as_secs_f64() / expected.as_secs_f64());
        }
    }

    /// A thread worked so long for the model.
    pub fn record_busy_time(&self, time: Duration) {
        self.busy_seconds.inc_by(time.as_secs_f64());
    }

    /// Runs so far, tokens of texts in them, and tokens of padding.
    #[must_use]
    pub fn batch_and_token_totals(&self) -> [u64; 3] {
        [self.batch_seconds.get_sample_count(), self.tokens.get(), self.padding.get()]
    }

    /// A text was tokenised in this time, and waited so long for its run.
    pub fn record_wait(&self, tokenize_time: Duration, queue_time: Duration) {
        self.tokenize_seconds.observe(tokenize_time.as_secs_f64());
        self.queue_seconds.observe(queue_time.as_secs_f64());
    }

    /// What a run is expected to cost, in seconds: for itself, for each token, for each token and token of length.
    pub fn set_costs(&self, parts: [f64; 3]) {
        for (gauge, part) in self.cost.iter().zip(parts) {
            gauge.set(part);
        }
    }

    /// The model was loaded in this time, of which `warm_up` was for warm-up and measurements.
    pub fn record_load(&self, all: Duration, warm_up: Duration) {
        for (gauge, time) in self.load_seconds.iter().zip([all, warm_up]) {
            gauge.set(time.as_secs_f64());
        }
    }

    /// Windows will be compared with a profile.
    pub fn init_drift_windows(&self) {
        // A rate needs the series before its first event.
        self.drift_windows.with_label_values(&self.model_and_version);
    }

    /// A window was compared with the profile.
    pub fn record_drift_window(&self) {
        self.drift_windows.with_label_values(&self.model_and_version).inc();
    }

    /// A worker got a new session.
    pub fn record_recycled_session(&self) {
        self.sessions_recycled.inc();
    }

    /// A text was run whose client had left.
    pub fn record_wasted_item(&self) {
        self.wasted_items.inc();
    }
}
