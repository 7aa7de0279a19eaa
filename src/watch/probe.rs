//! One check of one server.

use std::time::{Duration, Instant};

use predictd_platform::clock;
use predictd_registry::http_client::{read_body, root_cause};
use reqwest::{Client, Url};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::args::redact_url;

/// Most bytes of an answer that are read: the state of a thousand models.
const MAX_RESPONSE_BYTES: usize = 256 << 10;

/// What a check found.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ProbeResult {
    /// The server, without credentials and query.
    pub url: String,
    /// It answered with success, and does not say that it is unhealthy.
    pub healthy: bool,
    /// Status of its answer, if there was one.
    pub status_code: Option<u16>,
    /// Seconds to the end of the answer, or until the check was given up.
    pub response_time: f64,
    /// When the check began (RFC 3339).
    pub timestamp: String,
    /// Why it is not healthy.
    pub error: Option<String>,
}

/// Asks a server how it is.
pub async fn check_server(client: &Client, url: &Url, timeout: Duration) -> ProbeResult {
    let timestamp = timestamp_now();
    let start = Instant::now();
    let (status_code, judged) = tokio::time::timeout(timeout, fetch_status(client, url))
        .await
        .unwrap_or_else(|_| (None, Err(format!("no answer within {}", humantime::format_duration(timeout)))));
    let error = judged.err();
    let response_time = start.elapsed().as_secs_f64();
    ProbeResult { url: redact_url(url), healthy: error.is_none(), status_code, response_time, timestamp, error }
}

async fn fetch_status(client: &Client, url: &Url) -> (Option<u16>, Result<(), String>) {
    let response = match client.get(url.clone()).send().await {
        Ok(response) => response,
        Err(error) => return (None, Err(root_cause(&error))),
    };
    let is_success = response.status().is_success();
    let status = response.status().as_u16();
    let judged = match read_body(response, MAX_RESPONSE_BYTES).await {
        Ok(body) if is_success => parse_status(&body),
        Ok(_) => Err(format!("it answered with {status}")),
        Err(error) => Err(error),
    };
    (Some(status), judged)
}

/// What an answer of success says of itself: a server may be up and its models not.
fn parse_status(body: &[u8]) -> Result<(), String> {
    let body = serde_json::from_slice::<Value>(body).ok();
    let status = body.as_ref().and_then(|body| body.get("status")?.as_str());
    match status {
        None | Some("healthy" | "ok" | "OK" | "UP") => Ok(()),
        Some(other) => Err(format!("it says that it is {:?}", other.chars().take(64).collect::<String>())),
    }
}

/// The time (RFC 3339).
#[must_use]
pub fn timestamp_now() -> String {
    humantime::format_rfc3339_millis(clock::now()).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn status_body_unhealthy_is_an_error() {
        for good in ["", "live\n", "{}", r#"{"status":"healthy"}"#, r#"{"status":7}"#, r#"{"status":"UP"}"#] {
            assert_eq!(parse_status(good.as_bytes()), Ok(()), "{good}");
        }
        assert_eq!(parse_status(br#"{"status":"unhealthy"}"#), Err("it says that it is \"unhealthy\"".to_owned()));
    }
}
