//! Refuses requests of web pages to /admin: any page can make an operator's browser send requests.
//!
//! A page whose name is made to point at this server (DNS rebinding) is found by its `Host`; a page that sends a request
//! across origins by its `Origin`, or, where a browser would send neither, by a content type that needs no preflight.

use std::net::IpAddr;
use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::header::{CONTENT_LENGTH, CONTENT_TYPE, HOST, ORIGIN, TRANSFER_ENCODING};
use axum::http::uri::Authority;
use axum::http::{HeaderMap, HeaderValue, Method};
use axum::middleware::Next;
use axum::response::Response;

use super::content_type::is_content_type;
use super::error::{ApiError, Code};
use crate::settings::AccessSettings;

/// Content types of HTML forms: a browser sends them to any origin without a preflight.
const FORM_CONTENT_TYPES: [&str; 3] = ["application/x-www-form-urlencoded", "multipart/form-data", "text/plain"];
/// Routes below this take files, which have no content type or one of their own.
const UPLOAD_ROUTE_PREFIX: &str = "/admin/store/";

/// The hosts that clients may name.
#[derive(Debug)]
pub struct AdminHosts {
    /// What the listener is bound to; none for a Unix socket, which no browser reaches.
    listen_ip: Option<IpAddr>,
    /// Names and addresses, in lower case.
    allowed_names: Vec<String>,
}

impl AdminHosts {
    /// Those of a server with these settings.
    #[must_use]
    pub fn from_settings(settings: &AccessSettings) -> Self {
        Self { listen_ip: settings.admin_listen.ip(), allowed_names: settings.admin_hosts.clone() }
    }

    /// True for a host of this server, with or without a port.
    fn is_allowed(&self, host: &str) -> bool {
        let Some(listen) = self.listen_ip else { return true };
        // A user name before the host is no part of a `Host` header.
        let Some(authority) = host.parse::<Authority>().ok().filter(|_| !host.contains('@')) else { return false };
        let host = authority.host().trim_end_matches('.').to_ascii_lowercase();
        let Ok(address) = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>() else {
            return host == "localhost" || self.allowed_names.contains(&host);
        };
        // DNS rebinding needs a name.
        let address = address.to_canonical();
        listen.is_unspecified()
            || address.is_loopback()
            || address == listen.to_canonical()
            || self.allowed_names.contains(&address.to_string())
    }
}

/// Lets a request to /admin pass if no web page of another origin can have sent it.
pub async fn check(State(hosts): State<Arc<AdminHosts>>, request: Request, next: Next) -> Result<Response, ApiError> {
    let host = check_host(&hosts, &request)?;
    if !matches!(*request.method(), Method::GET | Method::HEAD | Method::OPTIONS) {
        check_origin(request.headers(), host)?;
        check_content_type(&request)?;
    }
    Ok(next.run(request).await)
}

/// The host that the request names.
fn check_host<'a>(hosts: &AdminHosts, request: &'a Request) -> Result<&'a str, ApiError> {
    let host = request.headers().get(HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
    let target = request.uri().authority().map_or(host, Authority::as_str);
    if hosts.is_allowed(host) && hosts.is_allowed(target) {
        return Ok(host);
    }
    Err(ApiError::new(
        Code::HostNotAllowed,
        "The admin listener does not answer to this Host. Use localhost or the address that it listens on, or start the server with the name in --admin-hosts.",
    ))
}

/// A browser sends the origin of the page with a change. Only this server's own origin may change anything.
fn check_origin(headers: &HeaderMap, host: &str) -> Result<(), ApiError> {
    let same = |origin: &HeaderValue| {
        let origin = origin.to_str().ok().and_then(|origin| origin.split_once("://"));
        origin.is_some_and(|(_, authority)| !host.is_empty() && authority.eq_ignore_ascii_case(host))
    };
    if headers.get_all(ORIGIN).iter().all(same) {
        return Ok(());
    }
    Err(ApiError::new(
        Code::OriginNotAllowed,
        "Web pages of another origin cannot change anything here. Send the request without an Origin header.",
    ))
}

/// A change is JSON: a browser sends it to another origin only after a preflight.
fn check_content_type(request: &Request) -> Result<(), ApiError> {
    let headers = request.headers();
    let kind = headers.get(CONTENT_TYPE).map(|kind| kind.to_str().unwrap_or_default());
    let has_body = headers.contains_key(TRANSFER_ENCODING)
        || headers.get(CONTENT_LENGTH).is_some_and(|length| length.as_bytes() != b"0");
    let is_upload = request.uri().path().starts_with(UPLOAD_ROUTE_PREFIX) && request.method() == Method::PUT;
    let fits = match kind {
        Some(kind) if is_upload => !FORM_CONTENT_TYPES.iter().any(|form| is_content_type(kind, form)),
        Some(kind) => is_content_type(kind, "application/json"),
        // Methods other than POST need a preflight.
        None => is_upload || (!has_body && request.method() != Method::POST),
    };
    if fits {
        return Ok(());
    }
    Err(ApiError::new(Code::UnsupportedMediaType, "The Content-Type must be application/json."))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hosts_listening_on(listen: Option<&str>) -> AdminHosts {
        let names = vec!["admin.internal".to_owned()];
        AdminHosts { listen_ip: listen.map(|address| address.parse().unwrap()), allowed_names: names }
    }

    #[test]
    fn admin_host_that_dns_can_rebind_is_rejected() {
        let own = hosts_listening_on(Some("10.0.0.7"));
        for host in [
            "localhost",
            "LOCALHOST.:1",
            "127.0.0.1:8001",
            "[::1]:8001",
            "127.9.9.9",
            "10.0.0.7:1",
            "admin.internal:8001",
        ] {
            assert!(own.is_allowed(host), "{host}");
        }
        for host in [
            "",
            "evil.example",
            "evil.example:8001",
            "10.0.0.8",
            "localhost.evil.example",
            "2130706433",
            "127.1",
            "a@localhost",
            "admin.internal.evil.example",
        ] {
            assert!(!own.is_allowed(host), "{host}");
        }
        assert!(
            hosts_listening_on(Some("0.0.0.0")).is_allowed("10.0.0.8:8001")
                && !hosts_listening_on(Some("0.0.0.0")).is_allowed("evil.example")
        );
        assert!(hosts_listening_on(None).is_allowed("anything"), "a Unix socket");
    }
}
