//! Who asks, as experiments see it: `X-User-Id`, or `user_id` in the body.

use axum::http::HeaderMap;

use super::error::{ApiError, Code};

const USER_ID_HEADER: &str = "x-user-id";
/// Longest name of a user, in characters.
const MAX_USER_ID_CHARS: usize = 256;

/// The user that a header names.
#[derive(Debug)]
pub struct UserId(Option<String>);

impl UserId {
    /// The user in the header, if there is one.
    ///
    /// # Errors
    /// [`ApiError`] for a header that is there twice, or no user id.
    pub fn from_headers(headers: &HeaderMap) -> Result<Self, ApiError> {
        let mut values = headers.get_all(USER_ID_HEADER).iter();
        let Some(value) = values.next() else { return Ok(Self(None)) };
        let user = std::str::from_utf8(value.as_bytes()).ok();
        user.filter(|user| values.next().is_none() && (1..=MAX_USER_ID_CHARS).contains(&user.chars().count()))
            .map(|user| Self(Some(user.to_owned())))
            .ok_or_else(|| {
                let detail = "X-User-Id is 1 to 256 characters in UTF-8, and is there once.";
                ApiError::new(Code::InvalidHeader, detail)
            })
    }

    /// The user of a request whose body names this one, or none.
    ///
    /// # Errors
    /// [`ApiError`] at `/user_id` if the header names another one.
    pub fn merge_with_body<'a>(&'a self, body: Option<&'a str>) -> Result<Option<&'a str>, ApiError> {
        match (self.0.as_deref(), body) {
            (Some(header), Some(body)) if header != body => {
                Err(ApiError::at_pointer("/user_id", "the header X-User-Id names another user"))
            }
            (header, body) => Ok(header.or(body)),
        }
    }
}
