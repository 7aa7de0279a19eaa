//! The headers of a prediction request: timeout, user id and cache mode.

use std::time::{Duration, Instant};

use axum::http::HeaderMap;
use axum::http::header::CACHE_CONTROL;
use predictd_engine::cache_lookup::CacheMode;
use predictd_inference::RequestPart;
use utoipa::IntoParams;

use super::call_error::CallError;
use super::error::{ApiError, Code};
use super::state::LimitState;

/// Longest name of a user, in characters.
const MAX_USER_ID_CHARS: usize = 256;

/// The headers of a prediction request.
#[derive(IntoParams)]
#[into_params(parameter_in = Header)]
#[expect(dead_code, clippy::doc_markdown, reason = "only described, in words for clients")]
pub(super) struct PredictionHeaders {
    /// Time for the answer, in milliseconds; at most --max-timeout
    #[param(
        rename = "X-Request-Timeout-Ms",
        nullable = false,
        format = "uint64",
        minimum = 1,
        maximum = 18_446_744_073_709_551_615_usize
    )]
    timeout: Option<u64>,
    /// The user, as user_id: an experiment answers one user always with the same version
    #[param(rename = "X-User-Id", nullable = false, min_length = 1, max_length = 256)]
    user_id: Option<String>,
}

/// The deadline of a request.
///
/// # Errors
/// 400 for a header without a valid value.
pub fn request_deadline(headers: &HeaderMap, limits: &LimitState) -> Result<Instant, ApiError> {
    let start = limits.stall_detector.estimate_sent_at(Instant::now());
    let Some(value) = headers.get("x-request-timeout-ms") else { return Ok(start + limits.requests.timeout) };
    let milliseconds = value.to_str().ok().and_then(|value| value.parse::<u64>().ok()).filter(|&ms| ms > 0);
    let timeout = milliseconds.map(Duration::from_millis).ok_or_else(|| {
        ApiError::new(Code::InvalidHeader, "X-Request-Timeout-Ms must be a whole number of milliseconds, at least 1.")
    })?;
    Ok(start + timeout.min(limits.requests.max_timeout))
}

/// The user that a header names.
#[derive(Debug)]
pub struct UserId(Option<String>);

impl UserId {
    /// The user in the header, if there is one.
    ///
    /// # Errors
    /// [`ApiError`] for a header that is there twice, or no user id.
    pub fn from_headers(headers: &HeaderMap) -> Result<Self, ApiError> {
        let mut values = headers.get_all("x-user-id").iter();
        let Some(value) = values.next() else { return Ok(Self(None)) };
        let user = std::str::from_utf8(value.as_bytes()).ok();
        user.filter(|user| values.next().is_none() && (1..=MAX_USER_ID_CHARS).contains(&user.chars().count()))
            .map(|user| Self(Some(user.to_owned())))
            .ok_or_else(|| {
                ApiError::new(Code::InvalidHeader, "X-User-Id is 1 to 256 characters in UTF-8, and is there once.")
            })
    }

    /// The user of a request whose body names this one, or none.
    ///
    /// # Errors
    /// [`CallError`] at the user id if the header names another one.
    pub fn merge_with_body<'a>(&'a self, body: Option<&'a str>) -> Result<Option<&'a str>, CallError> {
        match (self.0.as_deref(), body) {
            (Some(header), Some(body)) if header != body => Err(CallError::Rejected {
                part: RequestPart::UserId,
                detail: "the header X-User-Id names another user".to_owned(),
            }),
            (header, body) => Ok(header.or(body)),
        }
    }
}

/// `no-cache` and `no-store`; everything else that the header can say is about caches on the way.
#[must_use]
pub fn cache_mode(headers: &HeaderMap) -> CacheMode {
    let lines = headers.get_all(CACHE_CONTROL).iter();
    lines.map(|line| parse_cache_mode(line.as_bytes())).max().unwrap_or_default()
}

/// What one line of the header asks for: a list of directives, some with a value, which may be quoted.
fn parse_cache_mode(line: &[u8]) -> CacheMode {
    let mut quoted = false;
    let mut escaped = false;
    let ends_directive = |byte: &u8| {
        let inside = quoted;
        match byte {
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' => quoted = !quoted,
            _ => {}
        }
        *byte == b',' && !inside
    };
    let directive = |part: &[u8]| {
        let name = part.split(|byte| *byte == b'=').next().unwrap_or_default().trim_ascii();
        if name.eq_ignore_ascii_case(b"no-store") {
            CacheMode::Bypass
        } else if name.eq_ignore_ascii_case(b"no-cache") {
            CacheMode::Refresh
        } else {
            CacheMode::ReadWrite
        }
    };
    line.split(ends_directive).map(directive).max().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cache_control_directive_anywhere_is_found() {
        for line in [
            "no-cache",
            "No-Cache",
            " no-cache ",
            "max-age=0, no-cache",
            "no-cache,max-age=5",
            ",,no-cache,,",
            "x=\"a\", no-cache",
            "no-cache=1",
        ] {
            assert_eq!(parse_cache_mode(line.as_bytes()), CacheMode::Refresh, "{line}");
        }
        for line in ["no-store", "no-cache, NO-STORE", "no-store, no-cache", "x=\"\\\"\", no-store"] {
            assert_eq!(parse_cache_mode(line.as_bytes()), CacheMode::Bypass, "{line}");
        }
    }

    #[test]
    fn cache_control_lookalike_directive_is_ignored() {
        for line in [
            "",
            "no",
            "no-caches",
            "x=no-cache",
            "x=\"a, no-cache, b\"",
            "x=\"\\\", no-store\"",
            "nocache",
            "no-cache no-store",
            "\u{ff}",
        ] {
            assert_eq!(parse_cache_mode(line.as_bytes()), CacheMode::ReadWrite, "{line}");
        }
    }
}
