//! JSON to types, with errors that repeat nothing of the body.

use std::fmt::Write as _;

use serde::de::{DeserializeOwned, Error, Unexpected, Visitor};
use serde::{Deserialize, Deserializer};
use serde_path_to_error::{Path, Segment};

use super::error::{ApiError, Code};

/// Longest field name of a client that an error repeats.
const MAX_ECHOED_CHARS: usize = 64;

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
    let value = serde_path_to_error::deserialize(&mut reader)
        .map_err(|error| to_api_error(error.inner(), &to_json_pointer(error.path())))?;
    reader.end().map_err(|error| to_api_error(&error, ""))?;
    Ok(value)
}

/// Reads a number as JSON Schema has it: 3.0 and 3e0 are whole numbers too.
///
/// # Errors
/// If it is none from 0 to 2³² - 1.
pub fn whole_number<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u32>, D::Error> {
    Option::<WholeNumber>::deserialize(deserializer).map(|number| number.map(|WholeNumber(number)| number))
}

struct WholeNumber(u32);

impl<'de> Deserialize<'de> for WholeNumber {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_u32(WholeNumberVisitor)
    }
}

struct WholeNumberVisitor;

impl Visitor<'_> for WholeNumberVisitor {
    type Value = WholeNumber;

    fn expecting(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("u32")
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<WholeNumber, E> {
        u32::try_from(number).map(WholeNumber).map_err(|_| E::invalid_value(Unexpected::Unsigned(number), &self))
    }

    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "it is whole and in range")]
    fn visit_f64<E: Error>(self, number: f64) -> Result<WholeNumber, E> {
        if number.fract() == 0.0 && (0.0..=f64::from(u32::MAX)).contains(&number) {
            return Ok(WholeNumber(number as u32));
        }
        Err(E::invalid_value(Unexpected::Float(number), &self))
    }
}

fn to_api_error(error: &serde_json::Error, pointer: &str) -> ApiError {
    let message = error.to_string();
    let message = message.rsplit_once(" at line ").map_or(message.as_str(), |(head, _)| head);
    if !error.is_data() {
        // Fixed texts of the parser, without anything of the body.
        let position = format!("line {}, column {}", error.line(), error.column());
        return ApiError::new(Code::MalformedJson, format!("The body is not valid JSON ({position}): {message}."));
    }
    ApiError::at_pointer(pointer, describe_data_error(message))
}

/// serde's message without the value that the client sent.
fn describe_data_error(message: &str) -> String {
    for (prefix, before, after) in [
        ("unknown field ", "unknown field", ""),
        ("missing field ", "the field", " is missing"),
        ("duplicate field ", "the field", " stands there twice"),
    ] {
        if let Some(name) = quoted_name(message, prefix) {
            return format!("{before} `{name}`{after}");
        }
    }
    match message.rsplit_once(", expected ") {
        Some((_, expected)) => format!("expected {}", json_type_name(expected)),
        None => "the value is not of the expected form".to_owned(),
    }
}

/// The name that a message of serde has in quotes after `prefix`, shortened.
fn quoted_name(message: &str, prefix: &str) -> Option<String> {
    let name = message.strip_prefix(prefix)?.strip_prefix('`')?;
    let end = name.find("`, expected ").or_else(|| name.find("`, there are ")).unwrap_or(name.len().saturating_sub(1));
    let mut escaped = name.get(..end)?.chars().flat_map(char::escape_debug);
    let mut echoed: String = escaped.by_ref().take(MAX_ECHOED_CHARS).collect();
    if escaped.next().is_some() {
        echoed.push('…');
    }
    Some(echoed)
}

/// What serde expected, in the terms of JSON.
fn json_type_name(expected: &str) -> &str {
    match expected {
        "u32" => "a whole number from 0 to 4294967295",
        "a sequence" => "a list",
        structure if structure.starts_with("struct ") => "an object",
        other => other,
    }
}

/// A path as a JSON pointer (RFC 6901).
fn to_json_pointer(path: &Path) -> String {
    let mut pointer = String::new();
    for segment in path {
        match segment {
            Segment::Seq { index } => _ = write!(pointer, "/{index}"),
            Segment::Map { key } => {
                let key: String = key.chars().take(MAX_ECHOED_CHARS).collect();
                _ = write!(pointer, "/{}", key.replace('~', "~0").replace('/', "~1"));
            }
            Segment::Enum { .. } | Segment::Unknown => {}
        }
    }
    pointer
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde::Deserialize;

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct ExampleBody {
        #[expect(dead_code, reason = "only parsed")]
        text: String,
        #[expect(dead_code, reason = "only parsed")]
        flag: Option<bool>,
    }

    #[derive(Debug, Deserialize)]
    struct NumberBody {
        #[serde(default, deserialize_with = "whole_number")]
        top_k: Option<u32>,
    }

    #[test]
    fn json_whole_number_in_any_notation_is_read() {
        for (body, expected) in [
            ("{}", None),
            (r#"{"top_k":null}"#, None),
            (r#"{"top_k":0}"#, Some(0)),
            (r#"{"top_k":3.0}"#, Some(3)),
            (r#"{"top_k":3e0}"#, Some(3)),
            (r#"{"top_k":4294967295}"#, Some(u32::MAX)),
        ] {
            assert_eq!(from_json::<NumberBody>(body.as_bytes()).unwrap().top_k, expected, "{body}");
        }
        for value in ["4294967296", "18446744073709551615", "-1", "0.5", "1e300", "\"3\"", "true", "[]", "{}"] {
            let error = from_json::<NumberBody>(format!("{{\"top_k\":{value}}}").as_bytes()).unwrap_err();
            assert_eq!(error.detail, "/top_k: expected a whole number from 0 to 4294967295", "{value}");
        }
    }

    fn parse_failure(body: &str) -> (u16, String) {
        let error = from_json::<ExampleBody>(body.as_bytes()).unwrap_err();
        (error.code.status().as_u16(), error.detail.into_owned())
    }

    #[test]
    fn json_invalid_field_error_has_pointer_without_value() {
        assert_eq!(parse_failure(r#"{"text":"a","colour":1}"#), (422, "/colour: unknown field `colour`".to_owned()));
        assert_eq!(parse_failure("{}"), (422, "body: the field `text` is missing".to_owned()));
        assert_eq!(parse_failure(r#"{"text":"a","text":"b"}"#).1, "body: the field `text` stands there twice");
        assert_eq!(
            parse_failure(r#"{"text":"a","flag":"secret, expected nothing"}"#),
            (422, "/flag: expected a boolean".to_owned())
        );
        assert_eq!(parse_failure(r#"{"text":7}"#), (422, "/text: expected a string".to_owned()));
        assert!(parse_failure(&format!(r#"{{"text":"a","{}":1}}"#, "x".repeat(5_000))).1.len() < 300);
    }

    #[test]
    fn json_malformed_body_is_bad_request() {
        for body in [
            "",
            "{",
            "nonsense",
            r#"{"text":"a"} trailing"#,
            r#"{"text":"\ud800"}"#,
            "{\"text\":\"a\0\"}",
            "\u{feff}{}",
        ] {
            let (status, detail) = parse_failure(body);
            assert_eq!(status, 400, "{body:?}");
            assert!(detail.contains("line 1, column"), "{detail}");
        }
        let latin1 = from_json::<ExampleBody>(b"{\"text\":\"\xe4\"}").unwrap_err();
        assert_eq!(latin1.code, Code::MalformedJson);
    }

    #[test]
    fn json_deep_nesting_is_rejected() {
        let body = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
        assert!(from_json::<serde_json::Value>(body.as_bytes()).is_err());
    }
}
