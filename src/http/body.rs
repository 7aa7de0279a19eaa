//! From a request's body to checked types. Whatever is wrong stops here.

use std::fmt::Write as _;
use std::sync::Arc;

use axum::body::Body;
use axum::extract::{FromRequest, Request, State};
use axum::http::header::{ACCEPT_ENCODING, CONNECTION, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use serde::de::DeserializeOwned;
use validator::{ValidationError, ValidationErrors, ValidationErrorsKind};

use super::App;
use super::error::{ApiError, Code, FieldError};
use crate::config::Limits;

/// Longest field name of a client that an error repeats.
const MAX_ECHO: usize = 64;

/// Refuses a body by its head: kind, encoding, size.
pub async fn check_head(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    if request.method() != Method::POST {
        return next.run(request).await;
    }
    if let Err(error) = check_media_type(request.headers()) {
        let mut response = error.into_response();
        let headers = response.headers_mut();
        headers.insert(HeaderName::from_static("accept-post"), HeaderValue::from_static("application/json"));
        headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        return response;
    }
    let length = request.headers().get(CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
    if length.is_some_and(|length| length > app.limits.max_body as u64) {
        let mut response = too_large(&app.limits).into_response();
        // The body is not read: what comes on this connection would be the rest of it.
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        return response;
    }
    next.run(request).await
}

fn check_media_type(headers: &HeaderMap) -> Result<(), ApiError> {
    let refuse = |detail: &'static str| Err(ApiError::new(Code::UnsupportedMediaType, detail));
    if headers.contains_key(CONTENT_ENCODING) {
        return refuse("A Content-Encoding is not supported: send the body as it is.");
    }
    let Some(Ok(content_type)) = headers.get(CONTENT_TYPE).map(HeaderValue::to_str) else {
        return refuse("The Content-Type must be application/json.");
    };
    let mut parts = content_type.split(';').map(str::trim);
    if !parts.next().is_some_and(|kind| kind.eq_ignore_ascii_case("application/json")) {
        return refuse("The Content-Type must be application/json.");
    }
    let foreign = |parameter: &str| {
        let (name, value) = parameter.split_once('=').unwrap_or((parameter, ""));
        name.trim().eq_ignore_ascii_case("charset") && !value.trim().trim_matches('"').eq_ignore_ascii_case("utf-8")
    };
    if parts.any(foreign) { refuse("The charset must be UTF-8.") } else { Ok(()) }
}

fn too_large(limits: &Limits) -> ApiError {
    ApiError::new(Code::BodyTooLarge, format!("The body is larger than the limit of {} bytes.", limits.max_body))
}

/// A body that can be read and checked against the limits.
pub trait RequestBody: Sized {
    /// Parses the body.
    ///
    /// # Errors
    /// [`ApiError`] that says where the body is wrong.
    fn parse(body: &[u8]) -> Result<Self, ApiError>;

    /// Checks what was parsed.
    ///
    /// # Errors
    /// Every place that is wrong.
    fn check(&self, limits: &Limits) -> Result<(), ApiError>;
}

/// A body that was read and checked.
#[derive(Debug)]
pub struct Checked<T>(pub T);

impl<T: RequestBody + Send> FromRequest<Arc<App>> for Checked<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, app: &Arc<App>) -> Result<Self, ApiError> {
        let body: Body = request.into_body();
        let bytes = match Limited::new(body, app.limits.max_body).collect().await {
            Ok(collected) => collected.to_bytes(),
            Err(error) if error.is::<LengthLimitError>() => return Err(too_large(&app.limits)),
            Err(_) => {
                return Err(ApiError::new(
                    Code::IncompleteBody,
                    "The connection broke off before the end of the body.",
                ));
            }
        };
        let parsed = T::parse(&bytes)?;
        parsed.check(&app.limits)?;
        Ok(Self(parsed))
    }
}

/// True if a body can only be a JSON list, if it is JSON.
#[must_use]
pub fn is_list(body: &[u8]) -> bool {
    body.iter().find(|byte| !byte.is_ascii_whitespace()) == Some(&b'[')
}

/// Parses JSON; says where it is wrong without repeating it.
///
/// # Errors
/// 400 for what is not JSON, 422 for JSON of another form.
pub fn from_json<T: DeserializeOwned>(body: &[u8]) -> Result<T, ApiError> {
    let mut reader = serde_json::Deserializer::from_slice(body);
    let value = serde_path_to_error::deserialize(&mut reader).map_err(|error| {
        let pointer = pointer(error.path());
        explain(error.inner(), &pointer)
    })?;
    reader.end().map_err(|error| explain(&error, ""))?;
    Ok(value)
}

fn explain(error: &serde_json::Error, pointer: &str) -> ApiError {
    let message = error.to_string();
    let message = message.rsplit_once(" at line ").map_or(message.as_str(), |(head, _)| head);
    if !error.is_data() {
        // These messages are fixed texts of the parser: nothing of the body is in them.
        let place = format!("line {}, column {}", error.line(), error.column());
        return ApiError::new(Code::MalformedJson, format!("The body is not valid JSON ({place}): {message}."));
    }
    ApiError::at(pointer, describe(message))
}

/// serde's message without the value that the client sent.
fn describe(message: &str) -> String {
    let quoted = |prefix: &str| {
        let name = message.strip_prefix(prefix)?.strip_prefix('`')?;
        let end =
            name.find("`, expected ").or_else(|| name.find("`, there are ")).unwrap_or(name.len().saturating_sub(1));
        let mut escaped = name.get(..end)?.chars().flat_map(char::escape_debug);
        let mut shown: String = escaped.by_ref().take(MAX_ECHO).collect();
        if escaped.next().is_some() {
            shown.push('…');
        }
        Some(shown)
    };
    if let Some(name) = quoted("unknown field ") {
        return format!("unknown field `{name}`");
    }
    if let Some(name) = quoted("missing field ") {
        return format!("the field `{name}` is missing");
    }
    if let Some(name) = quoted("duplicate field ") {
        return format!("the field `{name}` stands there twice");
    }
    match message.rsplit_once(", expected ") {
        Some((_, expected)) => format!("expected {}", in_json(expected)),
        None => "the value is not of the expected form".to_owned(),
    }
}

/// What serde expected, in words of JSON: clients know nothing of Rust's types.
fn in_json(expected: &str) -> &str {
    match expected {
        "u32" => "a whole number from 0 to 4294967295",
        "a sequence" => "a list",
        structure if structure.starts_with("struct ") => "an object",
        other => other,
    }
}

/// A path as a JSON pointer (RFC 6901).
fn pointer(path: &serde_path_to_error::Path) -> String {
    let mut pointer = String::new();
    for segment in path {
        match segment {
            serde_path_to_error::Segment::Seq { index } => _ = write!(pointer, "/{index}"),
            serde_path_to_error::Segment::Map { key } => {
                let key: String = key.chars().take(MAX_ECHO).collect();
                _ = write!(pointer, "/{}", key.replace('~', "~0").replace('/', "~1"));
            }
            serde_path_to_error::Segment::Enum { .. } | serde_path_to_error::Segment::Unknown => {}
        }
    }
    pointer
}

/// What the field checks of `validator` found, with a pointer each. `root` is the pointer of the checked value.
#[must_use]
pub fn invalid(errors: &ValidationErrors) -> ApiError {
    let mut found = Vec::new();
    collect("", errors, &mut found);
    found.sort_by(|a, b| a.pointer.cmp(&b.pointer));
    ApiError::invalid(found)
}

fn collect(root: &str, errors: &ValidationErrors, found: &mut Vec<FieldError>) {
    for (field, kind) in errors.errors() {
        let pointer = format!("{root}/{field}");
        match kind {
            ValidationErrorsKind::Field(errors) => {
                found.extend(errors.iter().map(|error| field_error(&pointer, error)));
            }
            ValidationErrorsKind::Struct(inner) => collect(&pointer, inner, found),
            ValidationErrorsKind::List(items) => {
                for (index, inner) in items {
                    collect(&format!("{pointer}/{index}"), inner, found);
                }
            }
        }
    }
}

fn field_error(pointer: &str, error: &ValidationError) -> FieldError {
    let pointer = match error.params.get("index") {
        Some(index) => format!("{pointer}/{index}"),
        None => pointer.to_owned(),
    };
    FieldError { pointer, detail: error.message.as_deref().unwrap_or("the value is not valid").to_owned() }
}

/// Checks one text.
///
/// # Errors
/// [`ValidationError`] with a message that names the limit.
pub fn check_text(text: &str, limits: &Limits) -> Result<(), ValidationError> {
    let refuse = |message: String| Err(ValidationError::new("text").with_message(message.into()));
    // Counting characters of a text of few bytes is not needed.
    if text.len() > limits.max_text_chars && text.chars().count() > limits.max_text_chars {
        return refuse(format!("a text must have at most {} characters", limits.max_text_chars));
    }
    if text.trim().is_empty() {
        return refuse("a text must not be empty or blank".to_owned());
    }
    // No model has a use for it, and C strings end at it.
    if text.contains('\0') {
        return refuse("a text must not contain the character NUL (U+0000)".to_owned());
    }
    Ok(())
}

/// Checks a list of texts: the number of them, then each until one is wrong.
///
/// # Errors
/// [`ValidationError`] with a message that names the limit, and the place of the wrong text.
pub fn check_texts(texts: &[String], limits: &Limits) -> Result<(), ValidationError> {
    if texts.is_empty() || texts.len() > limits.max_batch_texts {
        let message = format!("there are {} texts, where 1 to {} are possible", texts.len(), limits.max_batch_texts);
        return Err(ValidationError::new("texts").with_message(message.into()));
    }
    for (index, text) in texts.iter().enumerate() {
        check_text(text, limits).map_err(|mut error| {
            error.add_param("index".into(), &index);
            error
        })?;
    }
    Ok(())
}

/// Checks a model's or version's name.
///
/// # Errors
/// [`ValidationError`] with the rule for names.
pub fn check_name(name: &str) -> Result<(), ValidationError> {
    if crate::registry::is_name(name) {
        return Ok(());
    }
    let rule = "a name is 1 to 64 lower-case letters, digits, '.', '_' and '-', and begins with a letter or digit, without '..'";
    Err(ValidationError::new("name").with_message(rule.into()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde::Deserialize;

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Example {
        #[expect(dead_code, reason = "only parsed")]
        text: String,
        #[expect(dead_code, reason = "only parsed")]
        flag: Option<bool>,
    }

    fn refusal(body: &str) -> (u16, String) {
        let error = from_json::<Example>(body.as_bytes()).unwrap_err();
        (error.code.status().as_u16(), error.detail.into_owned())
    }

    #[test]
    fn errors_name_the_place_and_repeat_nothing() {
        assert_eq!(refusal(r#"{"text":"a","colour":1}"#), (422, "/colour: unknown field `colour`".to_owned()));
        assert_eq!(refusal("{}"), (422, "body: the field `text` is missing".to_owned()));
        assert_eq!(refusal(r#"{"text":"a","text":"b"}"#).1, "body: the field `text` stands there twice");
        assert_eq!(
            refusal(r#"{"text":"a","flag":"secret, expected nothing"}"#),
            (422, "/flag: expected a boolean".to_owned())
        );
        assert_eq!(refusal(r#"{"text":7}"#), (422, "/text: expected a string".to_owned()));
        assert!(refusal(&format!(r#"{{"text":"a","{}":1}}"#, "x".repeat(5_000))).1.len() < 300);
    }

    #[test]
    fn what_is_not_json_is_told_apart() {
        for body in [
            "",
            "{",
            "nonsense",
            r#"{"text":"a"} trailing"#,
            r#"{"text":"\ud800"}"#,
            "{\"text\":\"a\0\"}",
            "\u{feff}{}",
        ] {
            let (status, detail) = refusal(body);
            assert_eq!(status, 400, "{body:?}");
            assert!(detail.contains("line 1, column"), "{detail}");
        }
        let latin1 = from_json::<Example>(b"{\"text\":\"\xe4\"}").unwrap_err();
        assert_eq!(latin1.code, Code::MalformedJson);
    }

    #[test]
    fn depth_is_bounded() {
        let body = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
        assert!(from_json::<serde_json::Value>(body.as_bytes()).is_err());
    }
}
