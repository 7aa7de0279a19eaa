//! The caller of a request.

use std::convert::Infallible;
use std::fmt::{self, Display, Formatter};
use std::net::{IpAddr, Ipv4Addr};
use std::num::NonZeroU32;

use axum::extract::FromRequestParts;
use axum::http::request::Parts;

/// The identity behind a caller.
#[derive(Debug, Clone)]
pub enum Identity {
    /// A client with a key.
    Key {
        /// The key's name.
        name: String,
        /// Its own rate, in texts a second.
        rate: Option<NonZeroU32>,
    },
    /// A client without one, by address.
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
