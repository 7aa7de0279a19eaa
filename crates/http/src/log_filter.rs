//! `/admin/log`: what is logged, changed while the server runs.

use axum::Json;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::body::{RequestBody, ValidatedJson};
use super::caller::Caller;
use super::error::{ApiError, Code};
use super::json;
use crate::settings::RequestLimits;

/// Longest filter, in bytes.
const MAX_FILTER_BYTES: usize = 512;

/// What is logged.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct LogFilter {
    /// error, warn, info, debug, trace, or a filter such as `info,predictd::http=debug`.
    pub filter: String,
}

impl RequestBody for LogFilter {
    fn parse(bytes: &[u8]) -> Result<Self, ApiError> {
        json::from_json(bytes)
    }

    fn check(&self, _: &RequestLimits) -> Result<(), ApiError> {
        if self.filter.trim().is_empty() || self.filter.len() > MAX_FILTER_BYTES {
            return Err(ApiError::at_pointer("/filter", format!("a filter has 1 to {MAX_FILTER_BYTES} bytes")));
        }
        Ok(())
    }
}

/// What is logged.
#[utoipa::path(get, path = "/admin/log", tag = "admin", responses((status = 200, body = LogFilter)))]
pub async fn show() -> Result<Json<LogFilter>, ApiError> {
    let none = || ApiError::new(Code::Internal, "This process does not log.");
    Ok(Json(LogFilter { filter: predictd_telemetry::current_filter().ok_or_else(none)? }))
}

/// Log something else from now on, until the server ends.
#[utoipa::path(put, path = "/admin/log", tag = "admin", request_body = LogFilter, responses((status = 200, body = LogFilter)))]
pub async fn update(
    caller: Caller,
    ValidatedJson(request, _memory): ValidatedJson<LogFilter>,
) -> Result<Json<LogFilter>, ApiError> {
    let previous_filter = predictd_telemetry::current_filter();
    // Logged before the change: the new filter may suppress the line after it.
    let log_request =
        || tracing::warn!(actor = %caller, previous_filter, filter = request.filter, "log filter change requested");
    predictd_telemetry::set_filter(&request.filter, log_request)
        .map_err(|error| ApiError::at_pointer("/filter", error))?;
    tracing::warn!(actor = %caller, previous_filter, filter = request.filter, "log filter changed");
    Ok(Json(request))
}
