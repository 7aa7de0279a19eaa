//! Authorization: each route names its scope where it is listed; there is no default.

use std::net::IpAddr;

use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::Response;
use predictd_metrics::RefusalReason;

use super::caller::Caller;
use super::client_address::client_address;
use super::connection_state::peer_address;
use super::error::{ApiError, Code, rate_limited_error};
use super::state::App;
use super::watched_keys::AuthError;
use crate::api_keys::Scope;

/// Lets a request pass if it may use a route of this scope, and adds its caller.
pub async fn authorize(
    State((app, scope)): State<(App, Scope)>,
    mut request: Request,
    next: Next,
) -> Result<Response, ApiError> {
    let address = client_address(peer_address(&request), request.headers(), &app.access.trusted_proxies);
    let identity = app.access.keys.authorize(scope, request.headers(), address);
    let caller = Caller(identity.map_err(|denied| to_denial(&app, denied, scope, address))?);
    request.extensions_mut().insert(caller);
    Ok(next.run(request).await)
}

fn to_denial(app: &App, denied: AuthError, scope: Scope, address: IpAddr) -> ApiError {
    app.telemetry.metrics.http.record_refusal(RefusalReason::Unauthorized);
    if denied == AuthError::MissingScope {
        return ApiError::new(Code::Forbidden, format!("This needs a key with the scope `{}`.", scope.name()));
    }
    // A valid key is never delayed: another client behind the same address may send wrong keys.
    if denied == AuthError::UnknownKey {
        if let Some(suppressed) = app.access.keys.unknown_key_log.sample() {
            tracing::warn!(client = %address, suppressed, "unknown API key refused");
        }
        if let Err(time) = app.access.rate_limits.record_unknown_key(address) {
            return rate_limited_error(time, "Too many unknown keys came from your address.");
        }
    }
    // The same words whether there is no key, a malformed or an unknown one.
    ApiError::new(Code::Unauthenticated, "This needs a valid API key in the header `Authorization: Bearer KEY`.")
}
