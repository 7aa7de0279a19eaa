//! Makes metrics and adds them to a registry.

use prometheus::core::Collector;
use prometheus::{
    Gauge, GaugeVec, HistogramVec, IntCounter, IntCounterVec, IntGauge, Registry, Result, histogram_opts, opts,
};

/// Makes metrics of a name, a help text and labels.
///
/// Each function returns an error if another metric has the name.
#[derive(Clone, Copy)]
pub(super) struct MetricFactory<'a>(pub(super) &'a Registry);

impl MetricFactory<'_> {
    /// Adds a metric to the registry, and returns it.
    pub(super) fn register<M: Collector + Clone + 'static>(self, metric: M) -> Result<M> {
        self.0.register(Box::new(metric.clone()))?;
        Ok(metric)
    }

    pub(super) fn counter(self, name: &str, help: &str) -> Result<IntCounter> {
        self.register(IntCounter::new(name, help)?)
    }

    pub(super) fn counter_vec(self, name: &str, help: &str, labels: &[&str]) -> Result<IntCounterVec> {
        self.register(IntCounterVec::new(opts!(name, help), labels)?)
    }

    pub(super) fn gauge(self, name: &str, help: &str) -> Result<Gauge> {
        self.register(Gauge::new(name, help)?)
    }

    pub(super) fn int_gauge(self, name: &str, help: &str) -> Result<IntGauge> {
        self.register(IntGauge::new(name, help)?)
    }

    pub(super) fn gauge_vec(self, name: &str, help: &str, labels: &[&str]) -> Result<GaugeVec> {
        self.register(GaugeVec::new(opts!(name, help), labels)?)
    }

    pub(super) fn histogram_vec(
        self,
        name: &str,
        help: &str,
        labels: &[&str],
        buckets: &[f64],
    ) -> Result<HistogramVec> {
        self.register(HistogramVec::new(histogram_opts!(name, help, buckets.to_vec()), labels)?)
    }
}
