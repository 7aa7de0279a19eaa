//! What a request's head may be. hyper has limits of its own, higher ones, and its refusals have no body.

use axum::extract::{Request, State};
use axum::http::header::HOST;
use axum::http::uri::Authority;
use axum::http::{HeaderMap, Version};
use axum::middleware::Next;
use axum::response::Response;

use super::error::{ApiError, Code};
use crate::settings::RequestLimits;

/// Refuses a head that is too large, or that has no valid `Host` (RFC 9112, 3.2).
pub async fn check_request(
    State(limits): State<RequestLimits>,
    request: Request,
    next: Next,
) -> Result<Response, ApiError> {
    match find_violation(&request, &limits) {
        Some((code, detail)) => Err(ApiError::new(code, detail)),
        None => Ok(next.run(request).await),
    }
}

fn find_violation(request: &Request, limits: &RequestLimits) -> Option<(Code, String)> {
    let RequestLimits { max_headers, max_header_bytes, max_uri_bytes: max_uri, .. } = *limits;
    let uri = request.uri();
    let path = uri.path_and_query().map_or(0, |path| path.as_str().len());
    if path + uri.authority().map_or(0, |authority| authority.as_str().len()) > max_uri {
        return Some((Code::UriTooLong, format!("The URI has more than {max_uri} bytes.")));
    }
    let headers = request.headers();
    if headers.len() > max_headers {
        return Some((Code::HeadersTooLarge, format!("There are more than {max_headers} headers.")));
    }
    let bytes: usize = headers.iter().map(|(name, value)| name.as_str().len() + value.len() + 4).sum();
    if bytes > max_header_bytes {
        return Some((Code::HeadersTooLarge, format!("The headers have more than {max_header_bytes} bytes.")));
    }
    find_host_violation(headers, request.version()).map(|detail| (Code::InvalidHost, detail.to_owned()))
}

fn find_host_violation(headers: &HeaderMap, version: Version) -> Option<&'static str> {
    let mut hosts = headers.get_all(HOST).iter();
    let Some(host) = hosts.next() else {
        // HTTP/1.0 has no Host.
        return (version == Version::HTTP_11).then_some("A request must have a Host header.");
    };
    if hosts.next().is_some() {
        return Some("A request must have one Host header, not several.");
    }
    // A client without a name for the server sends an empty one.
    let is_valid = host.to_str().is_ok_and(|host| host.is_empty() || is_valid_host(host));
    (!is_valid).then_some("The Host header names no host.")
}

/// True for a name or an address, with or without a port. `Authority` takes more: user names, and ports that are none.
fn is_valid_host(host: &str) -> bool {
    host.parse::<Authority>().is_ok_and(|authority| match host.strip_prefix(authority.host()) {
        Some("") => true,
        Some(rest) => rest.strip_prefix(':').is_some_and(|port| port.bytes().all(|digit| digit.is_ascii_digit())),
        None => false,
    })
}
