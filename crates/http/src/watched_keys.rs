//! The API keys in force.
//!
//! Without a key file every request is allowed: only on loopback, or with `--allow-anonymous`. With
//! a key file, each route with a scope needs a key.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use axum::http::header::AUTHORIZATION;
use axum::http::{HeaderMap, HeaderValue};
use predictd_platform::file_watcher::FileWatcher;

use super::caller::Identity;
use super::log_sampler::LogSampler;
use crate::api_keys::{KeyFile, Scope};
use crate::settings::AccessSettings;

/// Longest key that is compared, in bytes.
const MAX_KEY_BYTES: usize = 256;

/// The keys in force, and the rule for requests without a key.
#[derive(Debug)]
pub struct WatchedKeys {
    /// `None` while there is no key file.
    key_file: Arc<FileWatcher<Option<KeyFile>>>,
    allow_anonymous: bool,
    /// The audit line for unknown keys: at most one a second.
    pub(super) unknown_key_log: LogSampler,
}

impl WatchedKeys {
    /// Opens the key file, which need not exist, and follows its changes.
    ///
    /// # Errors
    /// A sentence that names the option.
    pub fn open(settings: &AccessSettings) -> Result<Self, String> {
        let path = settings.key_file.clone();
        let named_error = |error: String| format!("--keys {}: {error}", settings.key_file.display());
        let is_required = AtomicBool::new(settings.is_key_file_explicit);
        let load = move || match KeyFile::read(&path)? {
            Some(file) => {
                is_required.store(true, Ordering::Relaxed);
                Ok(Some(file))
            }
            // A file that vanishes must not open the server.
            None if is_required.load(Ordering::Relaxed) => Err("there is no such file".to_owned()),
            None => Ok(None),
        };
        let file = FileWatcher::open("keys", vec![settings.key_file.clone()], load).map_err(named_error)?;
        file.watch().map_err(|error| named_error(error.to_string()))?;
        let has_no_keys = file.current().is_none();
        if has_no_keys && !settings.listen.is_local() && !settings.allow_anonymous {
            return Err(format!(
                "--listen {} can be reached from other machines and there are no keys: make one with `predictd keys new`, or add --allow-anonymous if everybody there may use it",
                settings.listen
            ));
        }
        if has_no_keys && !settings.admin_listen.is_local() {
            return Err(format!(
                "--admin-listen {} can be reached from other machines and there are no keys: make one with `predictd keys new`, or listen on 127.0.0.1",
                settings.admin_listen
            ));
        }
        Ok(Self { key_file: file, allow_anonymous: settings.allow_anonymous, unknown_key_log: LogSampler::new(1) })
    }

    /// Reads the key file again, whether it has changed or not.
    pub fn reload(&self) {
        self.key_file.reload();
    }

    /// Decides whether a request may use a route of this scope.
    pub(super) fn authorize(&self, scope: Scope, headers: &HeaderMap, address: IpAddr) -> Result<Identity, AuthError> {
        let file = self.key_file.current();
        let Some(file) = file.as_ref() else { return Ok(Identity::Address(address)) };
        let mut authorizations = headers.get_all(AUTHORIZATION).iter();
        let Some(first) = authorizations.next() else {
            let is_allowed = self.allow_anonymous && matches!(scope, Scope::Predict | Scope::Feedback);
            return if is_allowed { Ok(Identity::Address(address)) } else { Err(AuthError::MissingKey) };
        };
        let key = bearer_key(first).filter(|_| authorizations.next().is_none());
        let key = key.and_then(|key| file.find(key)).ok_or(AuthError::UnknownKey)?;
        if !key.scopes.contains(&scope) {
            return Err(AuthError::MissingScope);
        }
        Ok(Identity::Key { name: key.name.clone(), rate: key.rate })
    }
}

fn bearer_key(authorization: &HeaderValue) -> Option<&str> {
    let (scheme, key) = authorization.to_str().ok()?.split_once(' ')?;
    let key = key.trim_matches(' ');
    (scheme.eq_ignore_ascii_case("bearer") && key.len() <= MAX_KEY_BYTES).then_some(key)
}

/// Why a request may not use a route.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum AuthError {
    MissingKey,
    UnknownKey,
    MissingScope,
}
