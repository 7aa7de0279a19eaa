//! The alert of a change of a server, in the forms of its receivers (pure).

use std::time::Duration;

use predictd_platform::clock;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::drift::{Finding, FindingChange};
use super::probe::ProbeResult;

/// How long an alert lasts at Alertmanager if no message ends it.
const ALERT_LIFETIME: Duration = Duration::from_hours(24 * 30);

/// A server has changed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Alert {
    /// What it is, or no longer is.
    pub status: AlertStatus,
    /// The server, without credentials and query.
    pub url: String,
    /// When it was noticed (RFC 3339).
    pub timestamp: String,
    /// One sentence for people.
    pub summary: String,
    /// The check that decided it, for a server.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub check: Option<ProbeResult>,
    /// What drifts, or has dropped, or does so no longer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub drift: Option<Finding>,
}

/// What a server, or a signal of a model version, counts as from now on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AlertStatus {
    /// The server does not answer as it should.
    Unhealthy,
    /// It does again.
    Healthy,
    /// Live texts are not like those of the profile.
    Drifting,
    /// They are again.
    Quiet,
    /// The model is less often right than it was when it was tried.
    AccuracyDropped,
    /// It is as often right again.
    AccuracyBack,
}

impl AlertStatus {
    /// True if it is over.
    #[must_use]
    pub fn is_resolved(self) -> bool {
        matches!(self, Self::Healthy | Self::Quiet | Self::AccuracyBack)
    }
}

impl Alert {
    /// The alert about a server that this check has made healthy or unhealthy.
    #[must_use]
    pub fn from_check(check: &ProbeResult) -> Self {
        let url = check.url.clone();
        let status = if check.error.is_none() { AlertStatus::Healthy } else { AlertStatus::Unhealthy };
        let summary = match &check.error {
            None => format!("{url} is healthy again"),
            Some(error) => format!("{url} is unhealthy: {error}"),
        };
        Self { status, url, timestamp: check.timestamp.clone(), summary, check: Some(check.clone()), drift: None }
    }

    /// The alert about a model version, with what becomes of it.
    #[must_use]
    pub fn from_finding(change: FindingChange, url: String, timestamp: String, finding: Finding) -> Self {
        let Finding { model, version, signal, value, threshold } = &finding;
        let is_accuracy = finding.is_accuracy();
        let figures = value.zip(*threshold).map(|(value, limit)| {
            if is_accuracy {
                format!(" ({value:.3}, where it was {limit:.3})")
            } else {
                format!(" ({value:.3}, from {limit:.3} on it drifts)")
            }
        });
        let figures = figures.unwrap_or_default();
        let of = format!("{model}/{version} at {url}");
        let summary = match (is_accuracy, change) {
            (_, FindingChange::Removed) => format!("{of} is not served any more"),
            (true, FindingChange::Started) => format!("{of} is less often right than when it was tried{figures}"),
            (true, FindingChange::Ended) => format!("{of} is not less often right any more{figures}"),
            (false, FindingChange::Started) => {
                format!("live texts of {of} drift from its profile in {signal}{figures}")
            }
            (false, FindingChange::Ended) => format!("live texts of {of} do not drift in {signal} any more{figures}"),
        };
        let status = match (is_accuracy, change == FindingChange::Started) {
            (true, true) => AlertStatus::AccuracyDropped,
            (true, false) => AlertStatus::AccuracyBack,
            (false, true) => AlertStatus::Drifting,
            (false, false) => AlertStatus::Quiet,
        };
        Self { status, url, timestamp, summary, check: None, drift: Some(finding) }
    }

    /// What its receivers know it by: a drop goes for all servers, which may tell of it in turn.
    fn instance(&self) -> Option<&str> {
        let is_everywhere = self.drift.as_ref().is_some_and(Finding::is_accuracy);
        (!is_everywhere).then_some(self.url.as_str())
    }

    /// For an incoming webhook of Slack.
    #[must_use]
    pub fn for_slack(&self) -> Value {
        let sign = match (self.status.is_resolved(), &self.drift) {
            (true, _) => ":large_green_circle:",
            (false, None) => ":red_circle:",
            (false, Some(_)) => ":large_orange_circle:",
        };
        // What Slack would read as markup.
        let text = self.summary.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
        json!({ "text": format!("{sign} {text}") })
    }

    /// For `PagerDuty`'s Events API v2: the second alert about a server ends the incident of the first.
    #[must_use]
    pub fn for_pagerduty(&self, routing_key: &str) -> Value {
        let key = self.drift.as_ref().map(Finding::key);
        let of_what: Vec<&str> = ["predictd-watch"].into_iter().chain(self.instance()).chain(key.as_deref()).collect();
        json!({
            "routing_key": routing_key,
            "event_action": if self.status.is_resolved() { "resolve" } else { "trigger" },
            "dedup_key": of_what.join(" "),
            "payload": {
                "summary": self.summary.chars().take(1_024).collect::<String>(),
                "source": self.url,
                "severity": if self.drift.is_some() { "warning" } else { "critical" },
                "timestamp": self.timestamp,
                "custom_details": match &self.drift {
                    Some(drift) => json!(drift),
                    None => json!(self.check),
                },
            },
        })
    }

    /// For Alertmanager's API v2.
    #[must_use]
    pub fn for_alertmanager(&self) -> Value {
        let mut labels = match &self.drift {
            None => json!({ "alertname": "PredictdUnhealthy", "severity": "page" }),
            Some(finding) => {
                let name = if finding.is_accuracy() { "PredictdAccuracyDropped" } else { "PredictdDrift" };
                let Finding { model, version, signal, .. } = finding;
                json!({ "alertname": name, "severity": "note", "model": model, "version": version, "signal": signal })
            }
        };
        if let (Some(labels), Some(instance)) = (labels.as_object_mut(), self.instance()) {
            labels.insert("instance".to_owned(), json!(instance));
        }
        let annotations = json!({ "summary": self.summary });
        if self.status.is_resolved() {
            return json!([{ "labels": labels, "annotations": annotations, "endsAt": self.timestamp }]);
        }
        // Without an end it would be over five minutes after its delivery, which happens once.
        let end = humantime::format_rfc3339_seconds(clock::now() + ALERT_LIFETIME).to_string();
        json!([{ "labels": labels, "annotations": annotations, "startsAt": self.timestamp, "endsAt": end }])
    }
}
