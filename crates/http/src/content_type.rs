//! What a `Content-Type` says.

/// True for this content type, whatever its parameters.
#[must_use]
pub fn is_content_type(kind: &str, expected: &str) -> bool {
    kind.split(';').next().is_some_and(|kind| kind.trim().eq_ignore_ascii_case(expected))
}
