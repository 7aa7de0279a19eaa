//! The time a client allows for its answer.

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::extract::FromRequestParts;
use axum::http::request::Parts;

use super::error::{ApiError, Code};
use super::state::App;

const TIMEOUT_HEADER: &str = "x-request-timeout-ms";

/// When the answer must be there.
#[derive(Debug, Clone, Copy)]
pub struct Deadline(pub Instant);

impl FromRequestParts<Arc<App>> for Deadline {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, app: &Arc<App>) -> Result<Self, ApiError> {
        let start = Instant::now();
        let Some(value) = parts.headers.get(TIMEOUT_HEADER) else {
            return Ok(Self(start + app.limits.requests.timeout));
        };
        let milliseconds = value.to_str().ok().and_then(|value| value.parse::<u64>().ok()).filter(|&ms| ms > 0);
        let asked = milliseconds.map(Duration::from_millis).ok_or_else(|| {
            ApiError::new(
                Code::InvalidHeader,
                "X-Request-Timeout-Ms must be a whole number of milliseconds, at least 1.",
            )
        })?;
        Ok(Self(start + asked.min(app.limits.requests.max_timeout)))
    }
}
