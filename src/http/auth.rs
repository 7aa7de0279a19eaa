//! Who may use a route. Every route says so where it is listed; there is no default.
//!
//! Without a key file everybody may use everything: that is only possible on loopback, or
//! where the operator has said so. Once there is a key file, each route with a scope needs a key.

use std::convert::Infallible;
use std::fmt::{self, Display, Formatter};
use std::net::{IpAddr, Ipv4Addr};
use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use axum::extract::{FromRequestParts, Request, State};
use axum::http::HeaderMap;
use axum::http::header::AUTHORIZATION;
use axum::http::request::Parts;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use parking_lot::Mutex;
use tokio::time::Instant;

use super::App;
use super::client_address::client_address;
use super::connection_state::ConnectionState;
use super::error::{ApiError, Code};
use super::rate_limit;
use crate::api_keys::{KeyFile, Scope};
use crate::config::ServerSettings;
use crate::file_watcher::FileWatcher;
use crate::metrics::RefusalReason;

/// Longest key that is looked at, in bytes.
const MAX_KEY_BYTES: usize = 256;

/// The keys in force, and what goes without one.
#[derive(Debug)]
pub struct ApiKeys {
    /// `None` while there is no key file.
    key_file: Arc<FileWatcher<Option<KeyFile>>>,
    allow_anonymous: bool,
    unknown_key_log: UnknownKeyLog,
}

/// Who sends a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Identity {
    /// Somebody with a key.
    Key {
        /// The key's name.
        name: String,
        /// Its own rate, in texts a second.
        rate: Option<NonZeroU32>,
    },
    /// Somebody without one, by address.
    Address(IpAddr),
}

/// The caller of a route that has a scope.
#[derive(Debug, Clone)]
pub struct Caller(pub Identity);

impl Display for Caller {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Identity::Key { name, .. } => write!(f, "key {name}"),
            Identity::Address(address) => write!(f, "{address}"),
        }
    }
}

impl<S: Sync> FromRequestParts<S> for Caller {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        let caller = parts.extensions.get::<Self>().cloned();
        // Routes without a scope have no callers and no limits.
        Ok(caller.unwrap_or(Self(Identity::Address(IpAddr::V4(Ipv4Addr::UNSPECIFIED)))))
    }
}

impl ApiKeys {
    /// Opens the key file, which need not exist, and follows its changes.
    ///
    /// # Errors
    /// A sentence that names the option.
    pub fn open(settings: &ServerSettings) -> Result<Self, String> {
        let path = settings.key_file.clone();
        let said = |error: String| format!("--keys {}: {error}", settings.key_file.display());
        let must_be_there = AtomicBool::new(settings.is_key_file_explicit);
        let load = {
            let path = path.clone();
            move || match KeyFile::read(&path)? {
                Some(file) => {
                    must_be_there.store(true, Ordering::Relaxed);
                    Ok(Some(file))
                }
                // A file that vanishes must not open the server.
                None if must_be_there.load(Ordering::Relaxed) => Err("there is no such file".to_owned()),
                None => Ok(None),
            }
        };
        let file = FileWatcher::open("keys", vec![path], load).map_err(said)?;
        file.watch().map_err(|error| said(error.to_string()))?;
        let open = file.current().is_none();
        if open && !settings.listen.is_local() && !settings.allow_anonymous {
            return Err(format!(
                "--listen {} can be reached from other machines and there are no keys: make one with `predictd keys new`, or add --allow-anonymous if everybody there may use it",
                settings.listen
            ));
        }
        if open && !settings.admin_listen.is_local() {
            return Err(format!(
                "--admin-listen {} can be reached from other machines and there are no keys: make one with `predictd keys new`, or listen on 127.0.0.1",
                settings.admin_listen
            ));
        }
        Ok(Self {
            key_file: file,
            allow_anonymous: settings.allow_anonymous,
            unknown_key_log: UnknownKeyLog::default(),
        })
    }

    /// Reads the key file again, whether it has changed or not.
    pub fn reload(&self) {
        self.key_file.reload();
    }

    /// Decides whether a request may use a route of this scope.
    fn authorize(&self, scope: Scope, headers: &HeaderMap, address: IpAddr) -> Result<Identity, AuthError> {
        let file = self.key_file.current();
        let Some(file) = file.as_ref() else { return Ok(Identity::Address(address)) };
        let mut shown = headers.get_all(AUTHORIZATION).iter();
        let Some(first) = shown.next() else {
            let free = self.allow_anonymous && matches!(scope, Scope::Predict | Scope::Feedback);
            return if free { Ok(Identity::Address(address)) } else { Err(AuthError::MissingKey) };
        };
        let bearer = |value: &str| {
            let (scheme, key) = value.split_once(' ')?;
            let key = key.trim_matches(' ');
            (scheme.eq_ignore_ascii_case("bearer") && key.len() <= MAX_KEY_BYTES).then(|| key.to_owned())
        };
        let key = first.to_str().ok().and_then(bearer).filter(|_| shown.next().is_none());
        let key = key.as_deref().and_then(|key| file.find(key)).ok_or(AuthError::UnknownKey)?;
        if !key.scopes.contains(&scope) {
            return Err(AuthError::MissingScope);
        }
        Ok(Identity::Key { name: key.name.clone(), rate: key.rate })
    }
}

/// Why a request may not use a route.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum AuthError {
    MissingKey,
    UnknownKey,
    MissingScope,
}

/// Lets a request pass if it may use a route of this scope, and says who sends it.
pub async fn authorize(State((app, scope)): State<(Arc<App>, Scope)>, mut request: Request, next: Next) -> Response {
    let peer = request.extensions().get::<Arc<ConnectionState>>().map_or(Ipv4Addr::UNSPECIFIED.into(), |e| e.peer());
    let address = client_address(peer, request.headers(), &app.trusted_proxies);
    match app.keys.authorize(scope, request.headers(), address) {
        Ok(who) => {
            request.extensions_mut().insert(Caller(who));
            next.run(request).await
        }
        Err(denied) => to_denial(&app, denied, scope, address).into_response(),
    }
}

fn to_denial(app: &App, denied: AuthError, scope: Scope, address: IpAddr) -> ApiError {
    app.metrics.http.record_refusal(RefusalReason::Unauthorized);
    if denied == AuthError::MissingScope {
        return ApiError::new(Code::Forbidden, format!("This needs a key with the scope `{}`.", scope.name()));
    }
    // A right key is never slowed down: somebody else behind the same address may show wrong ones.
    if denied == AuthError::UnknownKey {
        app.keys.unknown_key_log.warn_sampled(address);
        if let Err(time) = app.rate_limits.record_unknown_key(address) {
            return rate_limit::rate_limited_error(time, "Too many unknown keys came from your address.");
        }
    }
    // The same words whether there is no key, a malformed or an unknown one.
    ApiError::new(Code::Unauthenticated, "This needs a valid API key in the header `Authorization: Bearer KEY`.")
}

/// The audit line for unknown keys: at most one a second, whatever comes.
#[derive(Debug, Default)]
struct UnknownKeyLog(Mutex<(Option<Instant>, u64)>);

impl UnknownKeyLog {
    fn warn_sampled(&self, address: IpAddr) {
        let mut state = self.0.lock();
        let now = Instant::now();
        if state.0.is_some_and(|last| now.duration_since(last).as_secs() < 1) {
            state.1 += 1;
            return;
        }
        tracing::warn!(client = %address, not_logged = state.1, "unknown API key refused");
        *state = (Some(now), 0);
    }
}
