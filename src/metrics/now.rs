//! What is true at the moment of a scrape only.

use std::time::Duration;

use prometheus::{GaugeVec, Registry, opts};

use super::drift::{DriftNow, SignalNow};
use super::registered;

/// One model version at this moment.
#[derive(Debug, Clone, PartialEq)]
pub struct VersionNow {
    /// Name of the model.
    pub model: String,
    /// The version.
    pub version: String,
    /// `loading`, `ready` or `failed`.
    pub state: &'static str,
    /// It answers requests that name no version.
    pub active: bool,
    /// Where it runs, once it does.
    pub device: Option<String>,
    /// It runs on the cores because a GPU that was looked for could not be used.
    pub fallback: bool,
    /// Texts in its queue.
    pub waiting: usize,
    /// How long the oldest of them has been there.
    pub oldest: Duration,
    /// When a text that came now would be answered.
    pub wait: Duration,
    /// How its texts and answers compare with its profile; none without one.
    pub signals: Vec<SignalNow>,
}

/// What is true at the moment of a scrape only.
#[derive(Debug)]
pub(super) struct Now {
    state: GaugeVec,
    active: GaugeVec,
    device: GaugeVec,
    fallback: GaugeVec,
    queued: GaugeVec,
    oldest: GaugeVec,
    wait: GaugeVec,
    drift: DriftNow,
}

impl Now {
    pub(super) fn new(registry: &Registry) -> Result<Self, prometheus::Error> {
        let gauge =
            |name: &str, help: &str, labels: &[&str]| registered(registry, GaugeVec::new(opts!(name, help), labels)?);
        let labels = ["model", "version"];
        Ok(Self {
            state: gauge(
                "predictd_model_state",
                "1 for the state that the version is in.",
                &["model", "version", "state"],
            )?,
            active: gauge(
                "predictd_active_version",
                "1 for the version that answers requests that name none.",
                &labels,
            )?,
            device: gauge(
                "predictd_model_device",
                "1 for the device that the version runs on.",
                &["model", "version", "device"],
            )?,
            fallback: gauge(
                "predictd_model_device_fallback",
                "1 for a version that runs on the cores because the GPU that was looked for cannot be used.",
                &labels,
            )?,
            queued: gauge("predictd_queue_texts", "Texts that wait for a run.", &labels)?,
            oldest: gauge("predictd_queue_oldest_seconds", "How long the oldest of them has waited.", &labels)?,
            wait: gauge("predictd_expected_wait_seconds", "When a text that came now would begin to be run.", &labels)?,
            drift: DriftNow::new(registry)?,
        })
    }

    /// Forgets what was true at the last scrape.
    pub(super) fn put(&self, versions: &[VersionNow]) {
        let Self { state, active, device, fallback, queued, oldest, wait, drift } = self;
        drift.put(versions);
        [state, active, device, fallback, queued, oldest, wait].into_iter().for_each(GaugeVec::reset);
        for version in versions {
            let names = [version.model.as_str(), version.version.as_str()];
            state.with_label_values(&[names[0], names[1], version.state]).set(1.0);
            if version.active {
                active.with_label_values(&names).set(1.0);
            }
            if let Some(runs_on) = &version.device {
                let fell_back = if version.fallback { 1.0 } else { 0.0 };
                fallback.with_label_values(&names).set(fell_back);
                device.with_label_values(&[names[0], names[1], runs_on]).set(1.0);
            }
            if version.state == "ready" {
                #[expect(clippy::cast_precision_loss, reason = "a small number")]
                queued.with_label_values(&names).set(version.waiting as f64);
                oldest.with_label_values(&names).set(version.oldest.as_secs_f64());
                wait.with_label_values(&names).set(version.wait.as_secs_f64());
            }
        }
    }
}
