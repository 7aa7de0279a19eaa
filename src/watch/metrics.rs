//! The watcher's own metrics.

use prometheus::{
    Encoder, GaugeVec, HistogramVec, IntCounterVec, IntGaugeVec, Registry, TextEncoder, histogram_opts, opts,
};

use super::check::Record;
use super::target::Health;

/// Seconds.
const BUCKETS: [f64; 9] = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 2.5, 10.0];

/// What the watcher counts. Labels are its own URLs and channels.
#[derive(Debug)]
pub struct WatchMetrics {
    registry: Registry,
    healthy: IntGaugeVec,
    checks: IntCounterVec,
    seconds: HistogramVec,
    last: GaugeVec,
    changes: IntCounterVec,
    deliveries: IntCounterVec,
    looks: IntCounterVec,
}

impl WatchMetrics {
    /// Registers every metric.
    ///
    /// # Errors
    /// If two metrics have one name.
    pub fn new() -> Result<Self, prometheus::Error> {
        let metrics = Self {
            registry: Registry::new(),
            healthy: IntGaugeVec::new(
                opts!("predictd_watch_healthy", "1 while the server counts as healthy."),
                &["url"],
            )?,
            checks: IntCounterVec::new(
                opts!("predictd_watch_checks_total", "Checks by result: good or failed."),
                &["url", "result"],
            )?,
            seconds: HistogramVec::new(
                histogram_opts!("predictd_watch_check_seconds", "Time of a check.", BUCKETS.to_vec()),
                &["url"],
            )?,
            last: GaugeVec::new(
                opts!("predictd_watch_last_check_seconds", "Time that the last check took."),
                &["url"],
            )?,
            changes: IntCounterVec::new(
                opts!("predictd_watch_changes_total", "Changes that somebody was to be told of."),
                &["url", "to"],
            )?,
            deliveries: IntCounterVec::new(
                opts!("predictd_watch_deliveries_total", "Alerts by channel and result: delivered or given_up."),
                &["channel", "result"],
            )?,
            looks: IntCounterVec::new(
                opts!("predictd_watch_drift_looks_total", "Looks at --drift by result: good or failed."),
                &["url", "result"],
            )?,
        };
        for metric in [&metrics.checks, &metrics.changes, &metrics.deliveries, &metrics.looks] {
            metrics.registry.register(Box::new(metric.clone()))?;
        }
        metrics.registry.register(Box::new(metrics.healthy.clone()))?;
        metrics.registry.register(Box::new(metrics.seconds.clone()))?;
        metrics.registry.register(Box::new(metrics.last.clone()))?;
        Ok(metrics)
    }

    /// A server was checked, and counts as this now.
    pub fn checked(&self, record: &Record, health: Health) {
        let url = record.url.as_str();
        self.healthy.with_label_values(&[url]).set(i64::from(health == Health::Healthy));
        self.checks.with_label_values(&[url, if record.healthy { "good" } else { "failed" }]).inc();
        self.seconds.with_label_values(&[url]).observe(record.response_time);
        self.last.with_label_values(&[url]).set(record.response_time);
    }

    /// A server was asked how its models stand.
    pub fn looked(&self, url: &str, good: bool) {
        self.looks.with_label_values(&[url, if good { "good" } else { "failed" }]).inc();
    }

    /// A server has changed.
    pub fn changed(&self, url: &str, to: &str) {
        self.changes.with_label_values(&[url, to]).inc();
    }

    /// An alert was delivered, or given up.
    pub fn delivered(&self, channel: &str, delivered: bool) {
        self.deliveries.with_label_values(&[channel, if delivered { "delivered" } else { "given_up" }]).inc();
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
