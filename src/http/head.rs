//! What a request's head may be. hyper has limits of its own, higher ones, and its refusals have no body.

use axum::extract::Request;
use axum::http::header::HOST;
use axum::http::uri::Authority;
use axum::http::{HeaderMap, HeaderValue, Version};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use super::error::{ApiError, Code};

/// Longest URI, in bytes.
const MAX_URI: usize = 8 << 10;
/// Most headers.
const MAX_HEADERS: usize = 64;
/// Bytes of all headers, names and values and the four bytes between and after them.
const MAX_HEADER_BYTES: usize = 32 << 10;

/// Refuses a head that is too large, or that does not say whom it is for (RFC 9112, 3.2).
pub async fn check(request: Request, next: Next) -> Response {
    match problem(&request) {
        Some(error) => error.into_response(),
        None => next.run(request).await,
    }
}

fn problem(request: &Request) -> Option<ApiError> {
    let uri = request.uri();
    let path = uri.path_and_query().map_or(0, |path| path.as_str().len());
    if path + uri.authority().map_or(0, |authority| authority.as_str().len()) > MAX_URI {
        return Some(ApiError::new(Code::UriTooLong, format!("The URI has more than {MAX_URI} bytes.")));
    }
    let headers = request.headers();
    if headers.len() > MAX_HEADERS {
        return Some(ApiError::new(Code::HeadersTooLarge, format!("There are more than {MAX_HEADERS} headers.")));
    }
    let bytes: usize = headers.iter().map(|(name, value)| name.as_str().len() + value.len() + 4).sum();
    if bytes > MAX_HEADER_BYTES {
        return Some(ApiError::new(
            Code::HeadersTooLarge,
            format!("The headers have more than {MAX_HEADER_BYTES} bytes."),
        ));
    }
    host_problem(headers, request.version()).map(|detail| ApiError::new(Code::InvalidHost, detail))
}

fn host_problem(headers: &HeaderMap, version: Version) -> Option<&'static str> {
    let mut hosts = headers.get_all(HOST).iter();
    let Some(host) = hosts.next() else {
        // HTTP/1.0 knows no Host.
        return (version == Version::HTTP_11).then_some("A request must have a Host header.");
    };
    if hosts.next().is_some() {
        return Some("A request must have one Host header, not several.");
    }
    let named = |host: &HeaderValue| {
        // Empty means: the client knows no name.
        let host = host.to_str().ok()?;
        (host.is_empty() || host.parse::<Authority>().is_ok_and(|host| !host.as_str().contains('@'))).then_some(())
    };
    named(host).is_none().then_some("The Host header names no host.")
}
