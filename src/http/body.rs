//! From a request's body to checked types: kind, size and pace. Whatever is wrong stops here.

use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::{FromRequest, Request, State};
use axum::http::header::{CONNECTION, CONTENT_LENGTH, CONTENT_TYPE};
use axum::http::{HeaderMap, HeaderValue, Method};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use http_body_util::BodyExt;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout_at};

use super::App;
use super::charset;
use super::content_encoding::{ContentEncoding, Gunzip};
use super::error::{ApiError, Code};
use super::exchange::Exchange;
use crate::config::{Limits, Patience};
use crate::engine::Refusal;
use crate::metrics::{CutOff, Refused};

/// Bytes of a body that are accounted for together; a body of fewer costs nothing.
pub const FREE_BODY: usize = 16 << 10;
/// Least memory for large bodies, in bytes.
const LEAST_MEMORY: usize = 64 << 20;
/// Longest body that a full server reads: the answer to its texts may be known, and then it needs no room.
const MAY_BE_KNOWN: u64 = 16 << 10;

/// Refuses a body by its head: kind, encoding, size.
pub async fn check_head(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    if request.method() != Method::POST {
        return next.run(request).await;
    }
    if let Err(error) = check_media_type(request.headers()) {
        return error.into_response();
    }
    let length = request.headers().get(CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
    if length.is_some_and(|length| length > app.limits.max_body as u64) {
        let mut response = too_large(&app.limits).into_response();
        // The body is not read: what comes on this connection would be the rest of it.
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        return response;
    }
    let may_be_known = app.engine.has_cache() && length.is_some_and(|length| length <= MAY_BE_KNOWN);
    if app.engine.free_permits() == 0 && !may_be_known {
        // Told at once: reading the body would only make both sides wait.
        app.metrics.http.refused(Refused::Overloaded);
        return ApiError::from(Refusal::Overloaded).into_response();
    }
    next.run(request).await
}

fn check_media_type(headers: &HeaderMap) -> Result<(), ApiError> {
    let refuse = |detail: &'static str| Err(ApiError::new(Code::UnsupportedMediaType, detail));
    ContentEncoding::of(headers)?;
    let Some(Ok(content_type)) = headers.get(CONTENT_TYPE).map(HeaderValue::to_str) else {
        return refuse("The Content-Type must be application/json.");
    };
    if !is_json(content_type) {
        return refuse("The Content-Type must be application/json.");
    }
    let mut parts = content_type.split(';').map(str::trim).skip(1);
    let foreign = |parameter: &str| {
        let (name, value) = parameter.split_once('=').unwrap_or((parameter, ""));
        name.trim().eq_ignore_ascii_case("charset") && !value.trim().trim_matches('"').eq_ignore_ascii_case("utf-8")
    };
    if parts.any(foreign) { refuse("The charset must be UTF-8.") } else { Ok(()) }
}

/// True for a content type that is JSON, whatever its parameters.
pub(super) fn is_json(content_type: &str) -> bool {
    content_type.split(';').next().is_some_and(|kind| kind.trim().eq_ignore_ascii_case("application/json"))
}

pub(super) fn too_large(limits: &Limits) -> ApiError {
    ApiError::new(Code::BodyTooLarge, format!("The body is larger than the limit of {} bytes.", limits.max_body))
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
    fn check(&self, limits: &Limits) -> Result<(), ApiError>;
}

/// A body that was read and checked, and its share of the memory for bodies: what was in the body is in the texts now.
#[derive(Debug)]
pub struct Checked<T>(pub T, pub Option<OwnedSemaphorePermit>);

impl<T: RequestBody + Send> FromRequest<Arc<App>> for Checked<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, app: &Arc<App>) -> Result<Self, ApiError> {
        let exchange = request.extensions().get::<Arc<Exchange>>().cloned();
        let encoding = ContentEncoding::of(request.headers())?;
        let mut memory = None;
        let bytes = match encoding {
            ContentEncoding::Identity => read(request.into_body(), app, &mut memory).await?,
            ContentEncoding::Gzip => read_compressed(request.into_body(), app, &mut memory).await?,
        };
        if let Some(exchange) = exchange {
            exchange.body_complete();
        }
        let parsed = T::parse(charset::utf8(&bytes)?)?;
        parsed.check(&app.limits)?;
        Ok(Self(parsed, memory))
    }
}

/// Memory for the large bodies of all requests together, and the texts in them until they are answered.
///
/// Without it, as many clients as there are connections could each leave most of a body here.
#[derive(Debug)]
pub struct BodyMemory(Arc<Semaphore>);

impl BodyMemory {
    /// Room for eight of the largest bodies, and for 64 MiB at least.
    #[must_use]
    pub fn new(limits: &Limits) -> Self {
        Self(Arc::new(Semaphore::new(Self::bytes(limits).div_ceil(FREE_BODY))))
    }

    /// How much that is.
    #[must_use]
    pub fn bytes(limits: &Limits) -> usize {
        LEAST_MEMORY.max(8 * limits.max_body)
    }

    /// Takes what a body of `length` bytes needs beyond what it holds. A first step is free.
    fn grow(&self, held: &mut Option<OwnedSemaphorePermit>, length: usize) -> Result<(), Refusal> {
        let holds = held.as_ref().map_or(0, OwnedSemaphorePermit::num_permits);
        let missing = (length / FREE_BODY).saturating_sub(holds);
        if missing == 0 {
            return Ok(());
        }
        let wanted = u32::try_from(missing).map_err(|_| Refusal::Overloaded)?;
        let more = Arc::clone(&self.0).try_acquire_many_owned(wanted).map_err(|_| Refusal::Overloaded)?;
        match held {
            Some(held) => held.merge(more),
            None => *held = Some(more),
        }
        Ok(())
    }
}

/// Reads a body to its end, within the limits of size and time.
async fn read(mut body: Body, app: &App, memory: &mut Option<OwnedSemaphorePermit>) -> Result<Vec<u8>, ApiError> {
    let end = Instant::now() + app.patience.body;
    let mut whole = Vec::new();
    while let Some(data) = next_bytes(&mut body, app, Some(end)).await? {
        if data.len() > app.limits.max_body - whole.len() {
            return Err(too_large(&app.limits));
        }
        app.grow_body(memory, whole.len() + data.len())?;
        whole.extend_from_slice(&data);
    }
    Ok(whole)
}

/// The same of a body that is compressed: the limit of size is for both of its forms.
async fn read_compressed(
    mut body: Body,
    app: &App,
    memory: &mut Option<OwnedSemaphorePermit>,
) -> Result<Vec<u8>, ApiError> {
    let end = Instant::now() + app.patience.body;
    let mut gunzip = Gunzip::begin(app, memory)?;
    let mut compressed = 0;
    while let Some(data) = next_bytes(&mut body, app, Some(end)).await? {
        compressed += data.len();
        if compressed > app.limits.max_body {
            return Err(too_large(&app.limits));
        }
        gunzip.add(&data).await?;
    }
    gunzip.end()
}

impl App {
    /// Takes memory for a body of `length` bytes, beyond what it holds.
    pub(super) fn grow_body(&self, held: &mut Option<OwnedSemaphorePermit>, length: usize) -> Result<(), ApiError> {
        self.body_memory
            .grow(held, length)
            .inspect_err(|_| self.metrics.http.refused(Refused::Overloaded))
            .map_err(ApiError::from)
    }
}

/// The next bytes of a body, which may pause for so long, and must not last until after `end`; nothing at its end.
pub(super) async fn next_bytes(body: &mut Body, app: &App, end: Option<Instant>) -> Result<Option<Bytes>, ApiError> {
    let Patience { body: longest, body_idle: longest_pause, .. } = app.patience;
    loop {
        let pause = Instant::now() + longest_pause;
        let frame = match timeout_at(end.map_or(pause, |end| pause.min(end)), body.frame()).await {
            Ok(None) => return Ok(None),
            Ok(Some(Ok(frame))) => frame,
            Ok(Some(Err(_))) => {
                let detail = "The connection broke off before the end of the body.";
                return Err(ApiError::new(Code::IncompleteBody, detail));
            }
            Err(_) => {
                app.metrics.http.cut_off(CutOff::Body);
                let paused = end.is_none_or(|end| pause < end);
                return Err(too_slow(if paused { longest_pause } else { longest }, paused));
            }
        };
        // Trailers are of no use here.
        if let Ok(data) = frame.into_data() {
            return Ok(Some(data));
        }
    }
}

fn too_slow(limit: Duration, paused: bool) -> ApiError {
    let limit = humantime::format_duration(limit);
    let detail = if paused {
        format!("Nothing of the body came for {limit}.")
    } else {
        format!("The whole body did not come within {limit}.")
    };
    ApiError::new(Code::BodyTimeout, detail)
}
