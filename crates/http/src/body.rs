//! From a request's body to checked types, within the limits of type, size and time.

use std::sync::Arc;

use axum::body::{Body, Bytes};
use axum::extract::{FromRequest, Request, State};
use axum::http::header::{CONNECTION, CONTENT_LENGTH, CONTENT_TYPE};
use axum::http::{HeaderMap, HeaderValue, Method};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use http_body_util::BodyExt;
use humantime::format_duration;
use predictd_engine::InferenceError;
use predictd_metrics::{RefusalReason, TimeoutStage};
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{Instant, timeout_at};

use super::body_limits::too_large_error;
use super::charset;
use super::connection_state::ConnectionState;
use super::content_encoding::{BodyDecoder, is_gzip};
use super::content_type::is_content_type;
use super::error::{ApiError, Code};
use super::state::App;
use crate::settings::{ClientTimeouts, RequestLimits};

/// Longest body that a full server reads: its answers may be in the result cache, and need no permit then.
const MAX_BODY_BYTES_WHEN_FULL: u64 = 16 << 10;

/// Refuses a body by its head: kind, encoding, size.
pub async fn check_headers(State(app): State<App>, request: Request, next: Next) -> Result<Response, ApiError> {
    if request.method() != Method::POST {
        return Ok(next.run(request).await);
    }
    check_media_type(request.headers())?;
    let length = request.headers().get(CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
    if length.is_some_and(|length| length > app.limits.requests.max_body_bytes as u64) {
        let mut response = too_large_error(&app.limits.requests).into_response();
        // The body is not read: what comes on this connection would be the rest of it.
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        return Ok(response);
    }
    let may_be_cached =
        app.inference.engine.cache.is_some() && length.is_some_and(|length| length <= MAX_BODY_BYTES_WHEN_FULL);
    if app.inference.engine.free_permits() == 0 && !may_be_cached {
        // Refused at once: the body would be read in vain.
        app.telemetry.metrics.http.record_refusal(RefusalReason::Overload);
        return Err(InferenceError::Overloaded.into());
    }
    Ok(next.run(request).await)
}

fn check_media_type(headers: &HeaderMap) -> Result<(), ApiError> {
    is_gzip(headers)?;
    let content_type = headers
        .get(CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .filter(|kind| is_content_type(kind, "application/json"));
    let Some(content_type) = content_type else {
        return Err(ApiError::new(Code::UnsupportedMediaType, "The Content-Type must be application/json."));
    };
    if content_type.split(';').skip(1).any(is_other_charset) {
        return Err(ApiError::new(Code::UnsupportedMediaType, "The charset must be UTF-8."));
    }
    Ok(())
}

/// True for a parameter of a content type that names another charset than UTF-8.
fn is_other_charset(parameter: &str) -> bool {
    let (name, value) = parameter.split_once('=').unwrap_or((parameter, ""));
    name.trim().eq_ignore_ascii_case("charset") && !value.trim().trim_matches('"').eq_ignore_ascii_case("utf-8")
}

/// A body that can be read and checked against the limits.
pub trait RequestBody: Sized {
    /// Parses the body.
    ///
    /// # Errors
    /// [`ApiError`] that says where the body is wrong.
    fn parse(body: &[u8]) -> Result<Self, ApiError>;

    /// Checks what was parsed.
    ///
    /// # Errors
    /// Every place that is wrong.
    fn check(&self, limits: &RequestLimits) -> Result<(), ApiError>;
}

/// A body that was read and checked, and its memory: the texts that were parsed of it take as much.
#[derive(Debug)]
pub struct ValidatedJson<T>(pub T, pub Option<OwnedSemaphorePermit>);

impl<T: RequestBody + Send> FromRequest<App> for ValidatedJson<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, app: &App) -> Result<Self, ApiError> {
        let connection_state = request.extensions().get::<Arc<ConnectionState>>().cloned();
        let is_gzip = is_gzip(request.headers())?;
        let mut memory = None;
        let decoder = BodyDecoder::new(is_gzip, app, &mut memory)?;
        let bytes = read_body(request.into_body(), app, decoder).await?;
        if let Some(connection_state) = connection_state {
            connection_state.mark_body_complete();
        }
        let parsed = T::parse(charset::decode_utf8(&bytes)?)?;
        parsed.check(&app.limits.requests)?;
        Ok(Self(parsed, memory))
    }
}

/// Reads a body to its end, within the limits of size and time. The limit of size is for both forms of one that is
/// compressed.
async fn read_body(mut body: Body, app: &App, mut decoder: BodyDecoder<'_>) -> Result<Vec<u8>, ApiError> {
    let deadline = Instant::now() + app.limits.client_timeouts.body;
    let mut received = 0;
    while let Some(data) = read_chunk(&mut body, app, Some(deadline)).await? {
        received += data.len();
        if received > app.limits.requests.max_body_bytes {
            return Err(too_large_error(&app.limits.requests));
        }
        decoder.decode(&data).await?;
    }
    decoder.finish()
}

/// The next bytes of a body, by `deadline` and within the idle timeout; none at its end.
pub(super) async fn read_chunk(
    body: &mut Body,
    app: &App,
    deadline: Option<Instant>,
) -> Result<Option<Bytes>, ApiError> {
    let ClientTimeouts { body: body_timeout, body_idle: idle_timeout, .. } = app.limits.client_timeouts;
    loop {
        let idle_deadline = Instant::now() + idle_timeout;
        let next_deadline = deadline.map_or(idle_deadline, |deadline| idle_deadline.min(deadline));
        let frame = match timeout_at(next_deadline, body.frame()).await {
            Ok(None) => return Ok(None),
            Ok(Some(Ok(frame))) => frame,
            Ok(Some(Err(_))) => {
                return Err(ApiError::new(
                    Code::IncompleteBody,
                    "The connection broke off before the end of the body.",
                ));
            }
            Err(_) => {
                app.telemetry.metrics.http.record_timeout(TimeoutStage::Body);
                let detail = match deadline {
                    Some(deadline) if deadline <= idle_deadline => {
                        format!("The whole body did not come within {}.", format_duration(body_timeout))
                    }
                    _ => format!("Nothing of the body came for {}.", format_duration(idle_timeout)),
                };
                return Err(ApiError::new(Code::BodyTimeout, detail));
            }
        };
        // Trailers are of no use here.
        if let Ok(data) = frame.into_data() {
            return Ok(Some(data));
        }
    }
}
