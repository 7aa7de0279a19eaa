//! The watcher's own metrics.

use prometheus::{Encoder, GaugeVec, HistogramVec, IntCounterVec, Registry, TextEncoder, histogram_opts, opts};

use super::probe::ProbeResult;
use super::target_health::TargetHealth;

/// What the watcher counts. Labels are its own URLs and channels.
#[derive(Debug)]
pub struct WatchMetrics {
    registry: Registry,
    healthy: GaugeVec,
    checks: IntCounterVec,
    check_seconds: HistogramVec,
    last_check_seconds: GaugeVec,
    changes: IntCounterVec,
    deliveries: IntCounterVec,
    drift_polls: IntCounterVec,
}

impl WatchMetrics {
    /// Registers every metric.
    ///
    /// # Errors
    /// If two metrics have one name.
    pub fn new() -> Result<Self, prometheus::Error> {
        let metrics = Self {
            registry: Registry::new(),
            healthy: GaugeVec::new(opts!("predictd_watch_healthy", "1 while the server counts as healthy."), &["url"])?,
            checks: IntCounterVec::new(
                opts!("predictd_watch_checks_total", "Checks by result: good or failed."),
                &["url", "result"],
            )?,
            check_seconds: HistogramVec::new(
                histogram_opts!(
                    "predictd_watch_check_duration_seconds",
                    "Time of a check.",
                    vec![0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 2.5, 10.0]
                ),
                &["url"],
            )?,
            last_check_seconds: GaugeVec::new(
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
            drift_polls: IntCounterVec::new(
                opts!("predictd_watch_drift_polls_total", "Looks at --drift by result: good or failed."),
                &["url", "result"],
            )?,
        };
        for metric in [&metrics.checks, &metrics.changes, &metrics.deliveries, &metrics.drift_polls] {
            metrics.registry.register(Box::new(metric.clone()))?;
        }
        for metric in [&metrics.healthy, &metrics.last_check_seconds] {
            metrics.registry.register(Box::new(metric.clone()))?;
        }
        metrics.registry.register(Box::new(metrics.check_seconds.clone()))?;
        Ok(metrics)
    }

    /// A server was checked, and counts as this now.
    pub fn record_check(&self, record: &ProbeResult, health: TargetHealth) {
        let url = record.url.as_str();
        self.healthy.with_label_values(&[url]).set((health == TargetHealth::Healthy).into());
        self.checks.with_label_values(&[url, if record.healthy { "good" } else { "failed" }]).inc();
        self.check_seconds.with_label_values(&[url]).observe(record.response_time);
        self.last_check_seconds.with_label_values(&[url]).set(record.response_time);
    }

    /// A server was asked how its models stand.
    pub fn record_drift_poll(&self, url: &str, good: bool) {
        self.drift_polls.with_label_values(&[url, if good { "good" } else { "failed" }]).inc();
    }

    /// A server has changed.
    pub fn record_change(&self, url: &str, to: &str) {
        self.changes.with_label_values(&[url, to]).inc();
    }

    /// An alert was delivered, or given up.
    pub fn record_delivery(&self, channel: &str, delivered: bool) {
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
