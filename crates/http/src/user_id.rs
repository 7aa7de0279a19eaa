//! Who asks, as experiments see it: `X-User-Id`, or `user_id` in the body.

use axum::extract::FromRequestParts;
use axum::http::request::Parts;

use super::caller::Caller;
use super::error::{ApiError, Code};

const USER_ID_HEADER: &str = "x-user-id";
/// Longest name of a user, in characters.
const MAX_USER_ID_CHARS: usize = 256;

/// Who sends a request, and for whom.
#[derive(Debug)]
pub struct CallerAndUser(pub Caller, pub UserId);

impl<S: Sync> FromRequestParts<S> for CallerAndUser {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let Ok(caller) = Caller::from_request_parts(parts, state).await;
        Ok(Self(caller, UserId::from_request_parts(parts, state).await?))
    }
}

/// The user that a header names.
#[derive(Debug, Clone, Default)]
pub struct UserId(Option<String>);

impl<S: Sync> FromRequestParts<S> for UserId {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ApiError> {
        let mut values = parts.headers.get_all(USER_ID_HEADER).iter();
        let user = match (values.next(), values.next()) {
            (None, _) => return Ok(Self(None)),
            (Some(value), None) => std::str::from_utf8(value.as_bytes()).map_err(|_| invalid_header())?,
            (Some(_), Some(_)) => return Err(invalid_header()),
        };
        if (1..=MAX_USER_ID_CHARS).contains(&user.chars().count()) {
            Ok(Self(Some(user.to_owned())))
        } else {
            Err(invalid_header())
        }
    }
}

fn invalid_header() -> ApiError {
    ApiError::new(Code::InvalidHeader, "X-User-Id is 1 to 256 characters in UTF-8, and is there once.")
}

impl UserId {
    /// The user of a request whose body names this one, or none.
    ///
    /// # Errors
    /// [`ApiError`] at `/user_id` if the header names another one.
    pub fn merge_with_body(self, body: Option<String>) -> Result<Option<String>, ApiError> {
        match (self.0, body) {
            (Some(header), Some(body)) if header != body => {
                Err(ApiError::at_pointer("/user_id", "the header X-User-Id names another user"))
            }
            (header, body) => Ok(header.or(body)),
        }
    }
}
