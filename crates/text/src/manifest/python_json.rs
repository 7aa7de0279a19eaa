//! JSON as Python's `json` module writes and reads it.
//!
//! It knows three numbers that JSON does not: `NaN`, `Infinity` and `-Infinity`. No key that is read here means one of
//! them, except where "no limit" is meant: they are read as `null`. Of a key that stands twice, the last one counts.

use std::borrow::Cow;

use serde::de::DeserializeOwned;
use serde_json::Value;

use super::error::ManifestError;

/// Longer than any number that fits a 64-bit float without an exponent.
const MAX_PLAIN_NUMBER_BYTES: usize = 300;

/// Reads a file.
///
/// # Errors
/// [`ManifestError`] naming the file, and the place or the key that is wrong.
pub(super) fn parse<T: DeserializeOwned>(file: &str, bytes: &[u8]) -> Result<T, ManifestError> {
    let value = parse_value(file, bytes)?;
    from_value(file, value)
}

/// Reads a file of any shape.
///
/// # Errors
/// [`ManifestError`] naming the file and the place.
pub(super) fn parse_value(file: &str, bytes: &[u8]) -> Result<Value, ManifestError> {
    let text = std::str::from_utf8(bytes).map_err(|e| {
        ManifestError::new(file, format!("it is not UTF-8 from byte {} on: save it as UTF-8", e.valid_up_to()))
    })?;
    serde_json::from_str(&replace_nonfinite(text)).map_err(|e| ManifestError::new(file, e.to_string()))
}

/// Makes a typed value of what a file holds.
///
/// # Errors
/// [`ManifestError`] naming the file, the key, its value and what is expected.
pub(super) fn from_value<T: DeserializeOwned>(file: &str, value: Value) -> Result<T, ManifestError> {
    serde_path_to_error::deserialize(value).map_err(|e| {
        let path = e.path().to_string();
        let inner = e.into_inner();
        let message = inner.to_string();
        // The path of the whole file is a dot; an unknown field is named by the message itself.
        let is_named = path == "." || message.starts_with("unknown field");
        ManifestError::new(file, if is_named { message } else { format!("{path:?}: {message}") })
    })
}

/// The text with `null` for every number that is not finite. Strings are left as they are.
fn replace_nonfinite(text: &str) -> Cow<'_, str> {
    let mut replaced = String::new();
    let mut copied = 0;
    let mut offset = 0;
    while let Some(rest) = text.get(offset..).filter(|rest| !rest.is_empty()) {
        let length = token_length(rest);
        if let Some(length) = nonfinite_length(rest) {
            replaced.push_str(text.get(copied..offset).unwrap_or_default());
            replaced.push_str("null");
            copied = offset + length;
            offset = copied;
        } else {
            offset += length;
        }
    }
    if copied == 0 {
        return Cow::Borrowed(text);
    }
    replaced.push_str(text.get(copied..).unwrap_or_default());
    Cow::Owned(replaced)
}

/// Bytes of the string or the number at the beginning, or of the characters before the next one.
fn token_length(rest: &str) -> usize {
    let bytes = rest.as_bytes();
    match bytes.first() {
        Some(b'"') => string_length(rest),
        Some(&byte) if is_number_byte(byte) => bytes.iter().take_while(|&&byte| is_number_byte(byte)).count(),
        _ => bytes.iter().skip(1).take_while(|&&byte| !is_token_start(byte)).count() + 1,
    }
}

fn is_token_start(byte: u8) -> bool {
    byte.is_ascii_digit() || matches!(byte, b'"' | b'-' | b'N' | b'I')
}

fn is_number_byte(byte: u8) -> bool {
    byte.is_ascii_digit() || matches!(byte, b'-' | b'+' | b'.' | b'e' | b'E')
}

/// Bytes of the string at the beginning, its quotes included.
fn string_length(rest: &str) -> usize {
    let mut escaped = false;
    for (offset, byte) in rest.bytes().enumerate().skip(1) {
        match byte {
            b'"' if !escaped => return offset + 1,
            b'\\' => escaped = !escaped,
            _ => escaped = false,
        }
    }
    rest.len()
}

/// Bytes of a number at the beginning that no 64-bit float holds.
fn nonfinite_length(rest: &str) -> Option<usize> {
    let named = ["NaN", "Infinity", "-Infinity"].into_iter().find(|name| rest.starts_with(name));
    if let Some(name) = named {
        return Some(name.len());
    }
    let length = rest.bytes().take_while(|&byte| is_number_byte(byte)).count();
    let number = rest.get(..length)?;
    let may_be_large = length > MAX_PLAIN_NUMBER_BYTES || number.contains(['e', 'E']);
    (may_be_large && number.parse::<f64>().is_ok_and(f64::is_infinite)).then_some(length)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn python_json_nonfinite_numbers_become_null() {
        let text = r#"{"a":NaN,"b":[-Infinity, Infinity,-1e-3],"c":"NaN \" Infinity \\","NaN":1e999,"d":-12.50}"#;
        let expected = r#"{"a":null,"b":[null, null,-1e-3],"c":"NaN \" Infinity \\","NaN":null,"d":-12.50}"#;
        assert_eq!(replace_nonfinite(text), expected);
        assert!(matches!(replace_nonfinite(r#"{"a":"Infinity"}"#), Cow::Borrowed(_)));
        assert_eq!(parse::<Value>("f", br#"{"a":1,"a":2}"#).unwrap()["a"], 2);
    }

    #[test]
    fn python_json_misspelt_numbers_are_rejected() {
        for text in ["NaNa", "Infinit", "-Infinit", "{\"a\":nan}", "[1e999", "\"NaN", "--Infinity"] {
            assert!(parse::<Value>("f", text.as_bytes()).is_err(), "{text}");
        }
    }

    #[test]
    fn python_json_error_names_key_and_expected_type() {
        let wrong = parse::<std::collections::BTreeMap<String, Vec<u32>>>("f.json", br#"{"a":[1,"x"]}"#).unwrap_err();
        assert_eq!(wrong.to_string(), r#"f.json: "a[1]": invalid type: string "x", expected u32"#);
    }

    proptest! {
        #[test]
        fn python_json_plain_json_is_unchanged(text in ".{0,40}", number in any::<f64>().prop_filter("finite", |n| n.is_finite())) {
            let json = serde_json::json!({ "text": text, "number": number, "list": [text, -1, 1e300] });
            let written = json.to_string();
            prop_assert_eq!(replace_nonfinite(&written), written.as_str());
            prop_assert_eq!(parse::<Value>("f", written.as_bytes()).unwrap(), json);
        }

        #[test]
        fn python_json_arbitrary_text_never_panics(text in "[-\"\\\\NaInfity0-9eE.,:{}\\[\\]é ]{0,60}") {
            let _ = parse::<Value>("f", text.as_bytes());
        }
    }
}
