//! How a metric gets into a registry.

use prometheus::Registry;
use prometheus::core::Collector;

/// Adds a metric to the registry, and returns it.
pub(super) fn register<M: Collector + Clone + 'static>(registry: &Registry, metric: M) -> Result<M, prometheus::Error> {
    registry.register(Box::new(metric.clone()))?;
    Ok(metric)
}
