//! The one table of errors, and how they look on the wire (RFC 9457).
//!
//! A handler returns an [`ApiError`]; it travels in the response's extensions until
//! [`super::observability`] writes it down with the request's id and logs it once. Texts of 5xx
//! errors are fixed, and no error repeats what the client sent beyond a short field name.

use std::borrow::Cow;
use std::time::Duration;

use axum::http::header::{ACCEPT_ENCODING, CONNECTION, RETRY_AFTER, WWW_AUTHENTICATE};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use predictd_api::problem::{FieldError, Problem};
use predictd_engine::{InferenceError, ItemError};
use predictd_platform::clock;
use predictd_registry::ResolveError;
use predictd_text::tokenizer::TokenizeError;

/// Longest detail, in bytes.
const MAX_DETAIL_BYTES: usize = 512;

macro_rules! codes {
    ($($(#[$doc:meta])* $name:ident = $kind:literal, $status:ident, $title:literal;)*) => {
        /// Every kind of error.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum Code { $($(#[$doc])* $name,)* }

        impl Code {
            /// All of them, for the documentation page.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// The last part of the problem's type.
            #[must_use]
            pub fn kind(self) -> &'static str {
                match self { $(Self::$name => $kind,)* }
            }

            /// The status it is answered with.
            #[must_use]
            pub fn status(self) -> StatusCode {
                match self { $(Self::$name => StatusCode::$status,)* }
            }

            /// A few words, the same for every occurrence.
            #[must_use]
            pub fn title(self) -> &'static str {
                match self { $(Self::$name => $title,)* }
            }
        }
    };
}

codes! {
    /// Not JSON at all.
    MalformedJson = "malformed-json", BAD_REQUEST, "The body is not JSON";
    /// A header that cannot be read.
    InvalidHeader = "invalid-header", BAD_REQUEST, "A header has no valid value";
    /// No `Host`, two of them, or one that is none.
    InvalidHost = "invalid-host", BAD_REQUEST, "The Host header is not valid";
    /// A body that could not be read to its end.
    IncompleteBody = "incomplete-body", BAD_REQUEST, "The body did not come in full";
    /// A compressed body that cannot be decompressed.
    CorruptEncoding = "damaged-encoding", BAD_REQUEST, "The body cannot be decompressed";
    /// No key, or none that is known.
    Unauthenticated = "unauthenticated", UNAUTHORIZED, "An API key is needed";
    /// A key without the scope.
    Forbidden = "forbidden", FORBIDDEN, "The API key is not good for this";
    /// A host that the admin listener does not answer to.
    HostNotAllowed = "host-not-allowed", FORBIDDEN, "The admin listener does not answer to this Host";
    /// A web page of another origin.
    OriginNotAllowed = "origin-not-allowed", FORBIDDEN, "Web pages of this origin cannot change anything here";
    /// No such route.
    NotFound = "not-found", NOT_FOUND, "There is nothing here";
    /// No such model or version.
    ModelNotFound = "model-not-found", NOT_FOUND, "There is no such model";
    /// No such experiment.
    ExperimentNotFound = "experiment-not-found", NOT_FOUND, "There is no such experiment";
    /// A prediction id that no server with these keys made.
    UnknownPrediction = "unknown-prediction", NOT_FOUND, "There is no such prediction";
    /// One that is too old.
    PredictionExpired = "prediction-expired", GONE, "The prediction is too old";
    /// The registry does not allow it as things are.
    Conflict = "conflict", CONFLICT, "This cannot be done as things are";
    /// The revision is not that of `If-Match`.
    PreconditionFailed = "precondition-failed", PRECONDITION_FAILED, "It has changed meanwhile";
    /// A change that does not say what it was decided on.
    PreconditionRequired = "precondition-required", PRECONDITION_REQUIRED, "If-Match is missing";
    /// A version that does not load, or does not answer as it should.
    VersionUnusable = "version-unusable", UNPROCESSABLE_ENTITY, "The version cannot serve";
    /// Wrong method.
    MethodNotAllowed = "method-not-allowed", METHOD_NOT_ALLOWED, "The method is not allowed here";
    /// A body that came too slowly.
    BodyTimeout = "body-timeout", REQUEST_TIMEOUT, "The body did not come in time";
    /// Body over the limit.
    BodyTooLarge = "body-too-large", PAYLOAD_TOO_LARGE, "The body is too large";
    /// URI over the limit.
    UriTooLong = "uri-too-long", URI_TOO_LONG, "The URI is too long";
    /// Not `application/json` in UTF-8, or compressed otherwise than by gzip.
    UnsupportedMediaType = "unsupported-media-type", UNSUPPORTED_MEDIA_TYPE, "The body must be JSON in UTF-8";
    /// JSON, but not what the route takes.
    InvalidRequest = "invalid-request", UNPROCESSABLE_ENTITY, "The request is not valid";
    /// More tokens than the model takes, and its policy refuses that.
    TextTooLong = "text-too-long", UNPROCESSABLE_ENTITY, "The text has too many tokens";
    /// A text that the model's tokenizer or graph cannot take.
    UnusableText = "unusable-text", UNPROCESSABLE_ENTITY, "The model cannot take this text";
    /// More texts than the caller's rate allows.
    RateLimited = "rate-limited", TOO_MANY_REQUESTS, "The rate limit is reached";
    /// Too many headers, or too large ones.
    HeadersTooLarge = "headers-too-large", REQUEST_HEADER_FIELDS_TOO_LARGE, "The headers are too large";
    /// A bug of ours.
    Internal = "internal", INTERNAL_SERVER_ERROR, "Something went wrong in the server";
    /// The model failed.
    InferenceFailed = "inference-failed", INTERNAL_SERVER_ERROR, "The model failed on this text";
    /// The model's output is no answer.
    ModelOutputInvalid = "model-output-invalid", INTERNAL_SERVER_ERROR, "The model gave no valid answer";
    /// Loading, or broken.
    ModelNotReady = "model-not-ready", SERVICE_UNAVAILABLE, "The model is not ready";
    /// No permit.
    Overloaded = "overloaded", SERVICE_UNAVAILABLE, "The server is overloaded";
    /// The database or the store.
    RegistryUnavailable = "registry-unavailable", SERVICE_UNAVAILABLE, "The registry does not answer";
    /// The MLflow server.
    SourceUnavailable = "source-unavailable", BAD_GATEWAY, "The model cannot be had from where it is kept";
    /// Stopping.
    ShuttingDown = "shutting-down", SERVICE_UNAVAILABLE, "The server is shutting down";
    /// A version that does not fit into the memory.
    InsufficientMemory = "no-room", INSUFFICIENT_STORAGE, "There is not enough memory for the version";
    /// Out of time.
    DeadlineExceeded = "deadline-exceeded", GATEWAY_TIMEOUT, "The answer did not come in time";
}

/// What the nginx in front says of itself (`deploy/nginx/problems.conf`), besides kinds that are listed above: kind,
/// status, title.
pub const GATEWAY_PROBLEMS: &[(&str, u16, &str)] = &[
    ("malformed-request", 400, "The request is not valid HTTP"),
    ("server-unreachable", 502, "The server cannot be reached"),
];

impl Code {
    /// The problem's type: a place on the documentation page.
    #[must_use]
    pub fn type_uri(self) -> String {
        format!("/docs#{}", self.kind())
    }

    /// Whether and when it makes sense to try again.
    fn retry_after_header(self) -> Option<HeaderValue> {
        match self {
            // Spread over 1 to 3 s, so that clients refused together do not come back together.
            Self::Overloaded | Self::ModelNotReady | Self::RegistryUnavailable | Self::ShuttingDown => {
                let nanoseconds = clock::since_unix_epoch(clock::now()).subsec_nanos();
                Some(HeaderValue::from(1 + nanoseconds / 1_000 % 3))
            }
            _ => None,
        }
    }
}

/// An error on its way to the client.
#[derive(Debug, Clone)]
pub struct ApiError {
    /// Which one.
    pub code: Code,
    /// What went wrong, for people.
    pub detail: Cow<'static, str>,
    /// What is wrong where, if the body is to blame.
    pub errors: Vec<FieldError>,
    /// Seconds until it makes sense to try again, if that is known.
    pub retry_after_seconds: Option<u32>,
}

impl ApiError {
    /// An error of this kind.
    pub fn new(code: Code, detail: impl Into<Cow<'static, str>>) -> Self {
        Self { code, detail: detail.into(), errors: Vec::new(), retry_after_seconds: None }
    }

    /// An error about one place of the body.
    pub fn at_pointer(pointer: impl Into<String>, detail: impl Into<String>) -> Self {
        Self::from_field_errors(vec![FieldError { pointer: pointer.into(), detail: detail.into() }])
    }

    /// An error about several places of the body.
    #[must_use]
    pub fn from_field_errors(errors: Vec<FieldError>) -> Self {
        let detail = match errors.as_slice() {
            [only] => format!("{}: {}", if only.pointer.is_empty() { "body" } else { &only.pointer }, only.detail),
            several => format!("{} places of the body are not valid.", several.len()),
        };
        Self { errors, ..Self::new(Code::InvalidRequest, detail) }
    }

    /// What goes on the wire.
    #[must_use]
    pub fn to_problem(&self, instance: Option<String>) -> Problem {
        let mut detail = self.detail.to_string();
        detail.truncate(detail.floor_char_boundary(MAX_DETAIL_BYTES));
        Problem {
            kind: self.code.type_uri(),
            title: self.code.title().into(),
            status: self.code.status().as_u16(),
            detail,
            instance,
            errors: self.errors.clone(),
        }
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let mut response = self.code.status().into_response();
        let headers = response.headers_mut();
        if let Some(seconds) =
            self.retry_after_seconds.map(HeaderValue::from).or_else(|| self.code.retry_after_header())
        {
            headers.insert(RETRY_AFTER, seconds);
        }
        if self.code == Code::Unauthenticated {
            headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer realm=\"predictd\""));
        }
        if self.code == Code::UnsupportedMediaType {
            headers.insert("accept-post", HeaderValue::from_static("application/json"));
            headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("gzip, identity"));
        }
        if self.code == Code::BodyTimeout {
            // The rest of the body may still come: nothing else can be read from this connection.
            headers.insert(CONNECTION, HeaderValue::from_static("close"));
        }
        response.extensions_mut().insert(self);
        response
    }
}

impl From<InferenceError> for ApiError {
    fn from(refusal: InferenceError) -> Self {
        match refusal {
            InferenceError::Overloaded => {
                Self::new(Code::Overloaded, "Too much is in work. Try again after the time in Retry-After.")
            }
            InferenceError::DeadlineExceeded => {
                Self::new(Code::DeadlineExceeded, "The time for this request was over before its answer was there.")
            }
            InferenceError::Closed => {
                Self::new(Code::ShuttingDown, "The server or the model was stopped while the request waited.")
            }
        }
    }
}

impl From<ItemError> for ApiError {
    fn from(error: ItemError) -> Self {
        match error {
            ItemError::RejectedByPolicy { error, .. } => Self::at_pointer("", error.to_string()),
            ItemError::Tokenize(TokenizeError::TooLong { tokens, limit }) => Self::new(
                Code::TextTooLong,
                format!("The text has {tokens} tokens; this model takes at most {limit} and does not cut it off."),
            ),
            ItemError::Tokenize(TokenizeError::OutOfRange { id, rows }) => Self::new(
                Code::UnusableText,
                format!("The text has a token (id {id}) that this model cannot take: it knows the ids below {rows}."),
            ),
            ItemError::Tokenize(TokenizeError::NoTokens) => Self::new(
                Code::UnusableText,
                "The text has no tokens for this model: its vocabulary has nothing of what stands there.",
            ),
            ItemError::Tokenize(TokenizeError::NormalizedTooLong { limit }) => Self::new(
                Code::UnusableText,
                format!("The model's tokenizer makes this text longer than {limit} bytes: send a shorter one."),
            ),
            ItemError::Tokenize(TokenizeError::Failed | TokenizeError::Panicked) => {
                Self::new(Code::UnusableText, "The tokenizer of this model fails on this text. Change the text.")
            }
            ItemError::InferenceFailed => {
                Self::new(Code::InferenceFailed, "The model failed on this text. The server's log says more.")
            }
            ItemError::OutputInvalid(_) => Self::new(
                Code::ModelOutputInvalid,
                "The model's scores for this text are not valid numbers in the expected shape.",
            ),
            ItemError::DeadlineExceeded => InferenceError::DeadlineExceeded.into(),
        }
    }
}

impl From<ResolveError> for ApiError {
    fn from(error: ResolveError) -> Self {
        match error {
            ResolveError::UnknownModel => {
                Self::new(Code::ModelNotFound, "There is no model of this name; GET /models lists them.")
            }
            ResolveError::UnknownVersion => {
                Self::new(Code::ModelNotFound, "The model has no such version; GET /models lists them.")
            }
            ResolveError::ModelLoading => Self::new(Code::ModelNotReady, "The model is still being loaded."),
            ResolveError::LoadFailed => {
                Self::new(Code::ModelNotReady, "The model could not be loaded. The server's log says why.")
            }
        }
    }
}

/// 429 with the time to wait, in whole seconds.
#[must_use]
pub fn rate_limited_error(time: Duration, detail: &'static str) -> ApiError {
    let seconds = u32::try_from(time.as_secs()).unwrap_or(u32::MAX).saturating_add(1);
    ApiError { retry_after_seconds: Some(seconds), ..ApiError::new(Code::RateLimited, detail) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn problem_kinds_unique_and_detail_bounded() {
        let mut kinds: Vec<&str> = Code::ALL.iter().map(|code| code.kind()).collect();
        kinds.sort_unstable();
        kinds.dedup();
        assert_eq!(kinds.len(), Code::ALL.len());
        let problem = ApiError::new(Code::NotFound, "ä".repeat(1_000)).to_problem(None);
        assert_eq!(problem.detail.len(), MAX_DETAIL_BYTES);
    }
}
