//! What is told when a server changes, in the forms that receivers want (pure).

use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::check::Record;

/// How long an alert lasts at Alertmanager if nobody says that it is over.
const LASTS: Duration = Duration::from_hours(24 * 30);

/// A server has changed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Alert {
    /// `unhealthy`, or `healthy` again.
    pub status: Status,
    /// The server, without credentials and query.
    pub url: String,
    /// When it was noticed (RFC 3339).
    pub timestamp: String,
    /// One sentence for people.
    pub summary: String,
    /// The check that decided it.
    pub check: Record,
}

/// What a server counts as from now on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// It does not answer as it should.
    Unhealthy,
    /// It does again.
    Healthy,
}

impl Alert {
    /// The alert about a server after this check.
    #[must_use]
    pub fn new(status: Status, check: &Record) -> Self {
        let summary = match (status, &check.error) {
            (Status::Healthy, _) => format!("{} is healthy again", check.url),
            (Status::Unhealthy, Some(error)) => format!("{} is unhealthy: {error}", check.url),
            (Status::Unhealthy, None) => format!("{} is unhealthy", check.url),
        };
        Self { status, url: check.url.clone(), timestamp: check.timestamp.clone(), summary, check: check.clone() }
    }

    /// For an incoming webhook of Slack.
    #[must_use]
    pub fn for_slack(&self) -> Value {
        let sign = if self.status == Status::Healthy { ":large_green_circle:" } else { ":red_circle:" };
        // What Slack would read as markup.
        let text = self.summary.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
        json!({ "text": format!("{sign} {text}") })
    }

    /// For `PagerDuty`'s Events API v2: the second alert about a server ends the incident of the first.
    #[must_use]
    pub fn for_pagerduty(&self, routing_key: &str) -> Value {
        json!({
            "routing_key": routing_key,
            "event_action": if self.status == Status::Healthy { "resolve" } else { "trigger" },
            "dedup_key": format!("predictd-watch {}", self.url),
            "payload": {
                "summary": self.summary.chars().take(1_024).collect::<String>(),
                "source": self.url,
                "severity": "critical",
                "timestamp": self.timestamp,
                "custom_details": self.check,
            },
        })
    }

    /// For Alertmanager's API v2.
    #[must_use]
    pub fn for_alertmanager(&self) -> Value {
        let mut alert = json!({
            "labels": { "alertname": "PredictdUnhealthy", "instance": self.url, "severity": "page" },
            "annotations": { "summary": self.summary },
        });
        let times = match self.status {
            Status::Healthy => json!({ "endsAt": self.timestamp }),
            // Without an end it would be over by itself five minutes after it was told, which is done once.
            Status::Unhealthy => {
                let end = humantime::format_rfc3339_seconds(SystemTime::now() + LASTS).to_string();
                json!({ "startsAt": self.timestamp, "endsAt": end })
            }
        };
        if let (Some(alert), Some(times)) = (alert.as_object_mut(), times.as_object()) {
            alert.extend(times.clone());
        }
        json!([alert])
    }
}
