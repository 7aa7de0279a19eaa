//! What is true at the moment of a scrape only.

use prometheus::{GaugeVec, Result};

use super::drift::DriftGauges;
use predictd_stats::to_f64;

use super::metric_factory::MetricFactory;
use super::version_gauges::VersionGauges;

/// What is true at the moment of a scrape only.
#[derive(Debug)]
pub(super) struct ScrapeGauges {
    state: GaugeVec,
    active: GaugeVec,
    device: GaugeVec,
    fallback: GaugeVec,
    queued: GaugeVec,
    oldest_wait: GaugeVec,
    expected_wait: GaugeVec,
    drift: DriftGauges,
}

impl ScrapeGauges {
    pub(super) fn new(metrics: MetricFactory<'_>) -> Result<Self> {
        let labels = ["model", "version"];
        Ok(Self {
            state: metrics.gauge_vec(
                "predictd_model_state",
                "1 for the state that the version is in.",
                &["model", "version", "state"],
            )?,
            active: metrics.gauge_vec(
                "predictd_model_version_active",
                "1 for the version that answers requests that name none.",
                &labels,
            )?,
            device: metrics.gauge_vec(
                "predictd_model_device",
                "1 for the device that the version runs on.",
                &["model", "version", "device"],
            )?,
            fallback: metrics.gauge_vec(
                "predictd_model_device_fallback",
                "1 for a version that runs on the cores because the GPU that was looked for cannot be used.",
                &labels,
            )?,
            queued: metrics.gauge_vec("predictd_queue_items", "Texts that wait for a run.", &labels)?,
            oldest_wait: metrics.gauge_vec(
                "predictd_queue_oldest_item_age_seconds",
                "How long the oldest of them has waited.",
                &labels,
            )?,
            expected_wait: metrics.gauge_vec(
                "predictd_queue_estimated_wait_seconds",
                "When a text that came now would begin to be run.",
                &labels,
            )?,
            drift: DriftGauges::new(metrics)?,
        })
    }

    /// Forgets what was true at the last scrape.
    pub(super) fn update(&self, versions: &[VersionGauges]) {
        let Self { state, active, device, fallback, queued, oldest_wait: oldest, expected_wait: wait, drift } = self;
        drift.update(versions);
        [state, active, device, fallback, queued, oldest, wait].into_iter().for_each(GaugeVec::reset);
        for version in versions {
            let names = [version.model.as_str(), version.version.as_str()];
            state.with_label_values(&[names[0], names[1], version.state]).set(1.0);
            if version.is_active {
                active.with_label_values(&names).set(1.0);
            }
            if let Some(runs_on) = &version.device {
                fallback.with_label_values(&names).set(version.is_fallback.into());
                device.with_label_values(&[names[0], names[1], runs_on]).set(1.0);
            }
            if version.state == "ready" {
                queued.with_label_values(&names).set(to_f64(version.queued_texts as u64));
                oldest.with_label_values(&names).set(version.oldest_wait.as_secs_f64());
                wait.with_label_values(&names).set(version.expected_wait.as_secs_f64());
            }
        }
    }
}
