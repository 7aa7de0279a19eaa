//! What is true of model versions at the moment of a scrape only.

use prometheus::{GaugeVec, Registry, opts};

use super::{VersionNow, registered};

/// What is true at the moment of a scrape only.
#[derive(Debug)]
pub(super) struct Now {
    state: GaugeVec,
    active: GaugeVec,
    device: GaugeVec,
    queued: GaugeVec,
    oldest: GaugeVec,
    wait: GaugeVec,
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
            queued: gauge("predictd_queue_texts", "Texts that wait for a run.", &labels)?,
            oldest: gauge("predictd_queue_oldest_seconds", "How long the oldest of them has waited.", &labels)?,
            wait: gauge("predictd_expected_wait_seconds", "When a text that came now would begin to be run.", &labels)?,
        })
    }

    /// Forgets what was true at the last scrape.
    pub(super) fn put(&self, versions: &[VersionNow]) {
        let Self { state, active, device, queued, oldest, wait } = self;
        [state, active, device, queued, oldest, wait].into_iter().for_each(GaugeVec::reset);
        for version in versions {
            let names = [version.model.as_str(), version.version.as_str()];
            state.with_label_values(&[names[0], names[1], version.state]).set(1.0);
            if version.active {
                active.with_label_values(&names).set(1.0);
            }
            if let Some(runs_on) = version.device {
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
