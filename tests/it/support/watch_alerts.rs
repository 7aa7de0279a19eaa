//! Alerts that `predictd watch` sends.

use predictd::watch::alert::Alert;
use serde_json::Value;

use crate::support::http_receiver::HttpReceiver;

/// Waits until so many alerts have come to a webhook.
pub(crate) fn wait_for_alerts(webhook: &HttpReceiver, count: usize) -> Vec<Alert> {
    let requests = webhook.wait_for_requests(count).into_iter();
    requests.map(|(_, body)| serde_json::from_value(body).unwrap()).collect()
}

/// The same as JSON.
pub(crate) fn wait_for_raw_alerts(webhook: &HttpReceiver, count: usize) -> Vec<Value> {
    webhook.wait_for_requests(count).into_iter().map(|(_, body)| body).collect()
}
