//! Who asks, as experiments see it: `X-User-Id`, or `user_id` in the body.

use axum::extract::FromRequestParts;
use axum::http::request::Parts;

use super::auth::Caller;
use super::error::{ApiError, Code};

const HEADER: &str = "x-user-id";
/// Longest name of a user, in characters.
const LONGEST: usize = 256;

/// Who sends a request, and for whom.
#[derive(Debug)]
pub struct Asking(pub Caller, pub UserHeader);

impl<S: Sync> FromRequestParts<S> for Asking {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let Ok(caller) = Caller::from_request_parts(parts, state).await;
        Ok(Self(caller, UserHeader::from_request_parts(parts, state).await?))
    }
}

/// The user that a header names.
#[derive(Debug, Clone, Default)]
pub struct UserHeader(Option<String>);

impl<S: Sync> FromRequestParts<S> for UserHeader {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ApiError> {
        let wrong =
            || ApiError::new(Code::InvalidHeader, "X-User-Id is 1 to 256 characters in UTF-8, and is there once.");
        let mut values = parts.headers.get_all(HEADER).iter();
        let user = match (values.next(), values.next()) {
            (None, _) => return Ok(Self(None)),
            (Some(value), None) => std::str::from_utf8(value.as_bytes()).map_err(|_| wrong())?,
            (Some(_), Some(_)) => return Err(wrong()),
        };
        if (1..=LONGEST).contains(&user.chars().count()) { Ok(Self(Some(user.to_owned()))) } else { Err(wrong()) }
    }
}

impl UserHeader {
    /// The user of a request whose body names this one, or none.
    ///
    /// # Errors
    /// [`ApiError`] at `/user_id` if the header names another one.
    pub fn or(self, body: Option<String>) -> Result<Option<String>, ApiError> {
        match (self.0, body) {
            (Some(header), Some(body)) if header != body => {
                Err(ApiError::at("/user_id", "the header X-User-Id names another user"))
            }
            (header, body) => Ok(header.or(body)),
        }
    }
}
