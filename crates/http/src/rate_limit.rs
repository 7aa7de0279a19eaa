//! Charges callers for their texts.

use std::num::NonZeroU32;
use std::sync::Arc;

use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::Response;
use predictd_metrics::RefusalReason;

use super::caller::Caller;
use super::caller_rates::RateLimitError;
use super::error::{ApiError, rate_limited_error};
use super::state::{AccessState, TelemetryState};

/// Takes one text before the body is read; a batch takes the others once they are known.
pub async fn charge_first_text(
    State(access): State<Arc<AccessState>>,
    State(telemetry): State<Arc<TelemetryState>>,
    caller: Caller,
    request: Request,
    next: Next,
) -> Result<Response, ApiError> {
    let charged = access.rate_limits.charge(&caller.0, NonZeroU32::MIN, NonZeroU32::MIN);
    charged.map_err(|error| refuse(&error, &telemetry))?;
    Ok(next.run(request).await)
}

/// Takes the texts of a batch that are not taken yet: all but one.
///
/// # Errors
/// 429 with the time to wait, 422 for a batch that never fits.
pub fn charge_remaining_texts(
    access: &AccessState,
    telemetry: &TelemetryState,
    caller: &Caller,
    texts: usize,
) -> Result<(), ApiError> {
    let texts = u32::try_from(texts).unwrap_or(u32::MAX);
    let Some(rest) = NonZeroU32::new(texts.saturating_sub(1)) else { return Ok(()) };
    let charged = access.rate_limits.charge(&caller.0, rest, rest.saturating_add(1));
    charged.map_err(|error| refuse(&error, telemetry))
}

/// Counts a refusal and makes its error.
fn refuse(error: &RateLimitError, telemetry: &TelemetryState) -> ApiError {
    telemetry.metrics.http.record_refusal(RefusalReason::RateLimit);
    match error {
        RateLimitError::RetryAfter(time) => {
            rate_limited_error(*time, "More texts came from you than your rate allows.")
        }
        RateLimitError::ExceedsBurst(rate) => {
            ApiError::at_pointer("", format!("there are more texts than the {rate} that your rate allows at once"))
        }
    }
}
