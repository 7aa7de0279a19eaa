//! Problem details, as every error of the server has them.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// What a client reads of a problem. A proxy on the way may say no more.
#[derive(Debug, Deserialize)]
pub struct ProblemDetail {
    /// What went wrong.
    pub detail: String,
}

/// Problem details as RFC 9457 has them.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct Problem {
    /// Names the kind of problem: a place on the documentation page.
    #[serde(rename = "type")]
    #[schema(example = "/docs#invalid-request")]
    pub kind: String,
    /// The same words for every problem of this kind.
    pub title: Cow<'static, str>,
    /// The status of the answer, or of this item.
    pub status: u16,
    /// What went wrong.
    pub detail: String,
    /// The request's id.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub instance: Option<String>,
    /// What is wrong where.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub errors: Vec<FieldError>,
}

/// One thing that is wrong with a request.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct FieldError {
    /// Where it stands in the body: a JSON pointer (RFC 6901).
    #[schema(example = "/texts/3")]
    pub pointer: String,
    /// What is wrong there.
    pub detail: String,
}
