//! Web pages of other origins that may use the data listener (CORS): none, unless an operator names them.

use std::time::Duration;

use axum::http::{HeaderName, HeaderValue, Method};
use tower_http::cors::{AllowOrigin, CorsLayer};

use crate::cors_origins::CorsOrigins;

/// How long a browser may keep the answer to a preflight request.
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
    let request_headers = [
        "authorization",
        "cache-control",
        "content-encoding",
        "content-type",
        "server-timing",
        "traceparent",
        "tracestate",
        "x-request-id",
        "x-request-timeout-ms",
        "x-user-id",
    ]
    .map(HeaderName::from_static);
    let response_headers =
        ["etag", "retry-after", "www-authenticate", "server-timing", "x-request-id"].map(HeaderName::from_static);
    let layer = CorsLayer::new().allow_origin(allowed).allow_methods([Method::GET, Method::HEAD, Method::POST]);
    Some(layer.allow_headers(request_headers).expose_headers(response_headers).max_age(PREFLIGHT_MAX_AGE))
}
