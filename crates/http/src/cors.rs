//! Web pages of other origins that may use the data listener (CORS): none, unless an operator names them.

use std::time::Duration;

use axum::http::header::{
    AUTHORIZATION, CACHE_CONTROL, CONTENT_ENCODING, CONTENT_TYPE, ETAG, RETRY_AFTER, WWW_AUTHENTICATE,
};
use axum::http::{HeaderName, HeaderValue, Method};
use tower_http::cors::{AllowOrigin, CorsLayer};

use crate::cors_origins::CorsOrigins;

/// How long a browser may remember what it was allowed.
const PREFLIGHT_MAX_AGE: Duration = Duration::from_hours(1);

/// The layer that answers preflight requests and says which pages may read answers. Nothing where none may.
#[must_use]
pub fn layer(origins: &CorsOrigins) -> Option<CorsLayer> {
    let allowed = match origins {
        CorsOrigins::None => return None,
        CorsOrigins::Any => AllowOrigin::any(),
        // They were checked: none is left out.
        CorsOrigins::List(origins) => {
            AllowOrigin::list(origins.iter().filter_map(|origin| HeaderValue::from_str(origin).ok()))
        }
    };
    let sent = [
        AUTHORIZATION,
        CACHE_CONTROL,
        CONTENT_ENCODING,
        CONTENT_TYPE,
        HeaderName::from_static("server-timing"),
        HeaderName::from_static("traceparent"),
        HeaderName::from_static("tracestate"),
        HeaderName::from_static("x-request-id"),
        HeaderName::from_static("x-request-timeout-ms"),
        HeaderName::from_static("x-user-id"),
    ];
    let exposed = [
        ETAG,
        RETRY_AFTER,
        WWW_AUTHENTICATE,
        HeaderName::from_static("server-timing"),
        HeaderName::from_static("x-request-id"),
    ];
    let layer = CorsLayer::new().allow_origin(allowed).allow_methods([Method::GET, Method::HEAD, Method::POST]);
    Some(layer.allow_headers(sent).expose_headers(exposed).max_age(PREFLIGHT_MAX_AGE))
}
