//! What the model registry and its feedback are counted by.

use prometheus::{Gauge, GaugeVec, IntCounter, IntCounterVec, Result};

use super::metric_factory::MetricFactory;

/// The metrics of the model registry.
#[derive(Debug)]
pub(super) struct RegistryMetrics {
    pub(super) staleness: Gauge,
    pub(super) unserved_models: Gauge,
    pub(super) changes: IntCounterVec,
    pub(super) storage_fault: GaugeVec,
    pub(super) alias_checks: IntCounterVec,
    pub(super) feedback: IntCounterVec,
    pub(super) spool_bytes: Gauge,
    pub(super) feedback_deleted: IntCounter,
}

impl RegistryMetrics {
    pub(super) fn new(metrics: MetricFactory<'_>) -> Result<Self> {
        Ok(Self {
            staleness: metrics.gauge(
                "predictd_registry_staleness_seconds",
                "How long the registry's database has not answered; 0 while it does. What was known last is served.",
            )?,
            unserved_models: metrics.gauge(
                "predictd_registry_unserved_models",
                "Models whose recorded version does not answer here: it is being loaded, or could not be.",
            )?,
            changes: metrics.counter_vec(
                "predictd_registry_changes_total",
                "Changes of the registry that this process made, by what was done.",
                &["model", "action"],
            )?,
            storage_fault: metrics.gauge_vec(
                "predictd_storage_fault",
                "1 while neither feedback nor a change of the registry can be kept, by reason: the data directory was removed or replaced (lost), or the database is damaged.",
                &["reason"],
            )?,
            alias_checks: metrics.counter_vec(
                "predictd_mlflow_alias_polls_total",
                "Looks at aliases that are followed, by outcome: unchanged, switched, refused (what it stands for cannot be served), failed (it is tried again).",
                &["model", "outcome"],
            )?,
            feedback: metrics.counter_vec(
                "predictd_feedback_total",
                "True labels told of earlier answers, by outcome: stored, corrected, unchanged, waiting (on disk, until the database answers), refused.",
                &["outcome"],
            )?,
            spool_bytes: metrics.gauge(
                "predictd_feedback_spool_bytes",
                "Bytes of feedback on disk that wait until the database answers.",
            )?,
            feedback_deleted: metrics.counter(
                "predictd_feedback_deleted_total",
                "Answers whose true labels and texts were deleted because they were older than --feedback-retention.",
            )?,
        })
    }
}
