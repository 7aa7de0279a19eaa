//! The time a client allows for its answer.

use std::time::{Duration, Instant};

use axum::http::HeaderMap;

use super::error::{ApiError, Code};
use super::state::App;

const TIMEOUT_HEADER: &str = "x-request-timeout-ms";

/// When the answer must be there.
pub fn request_deadline(headers: &HeaderMap, app: &App) -> Result<Instant, ApiError> {
    let start = app.limits.stall_detector.estimate_sent_at(Instant::now());
    let Some(value) = headers.get(TIMEOUT_HEADER) else { return Ok(start + app.limits.requests.timeout) };
    let milliseconds = value.to_str().ok().and_then(|value| value.parse::<u64>().ok()).filter(|&ms| ms > 0);
    let timeout = milliseconds.map(Duration::from_millis).ok_or_else(|| {
        ApiError::new(Code::InvalidHeader, "X-Request-Timeout-Ms must be a whole number of milliseconds, at least 1.")
    })?;
    Ok(start + timeout.min(app.limits.requests.max_timeout))
}
