//! Names and labels of others, as they are printed: a terminal must not take them for commands to it.
//!
//! A model, a server or a file may hold any character. Control characters could colour or clear the screen, or end the
//! line and begin one that looks like this program's own; characters of direction make text read backwards. They are
//! printed as in `\u{1b}`.

use std::borrow::Cow;
use std::fmt::{self, Arguments};
use std::io::Write as _;

use serde::Serialize;

use crate::error::ServerError;

/// True for a character that a terminal may take for something else than text.
fn is_unsafe_char(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{061c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// The text on one line, with every control character and every character of direction escaped.
#[must_use]
pub fn escape(text: &str) -> Cow<'_, str> {
    escape_except(text, |_, _| false)
}

/// The same for a text of several lines: their ends stay.
#[must_use]
pub fn escape_lines(text: &str) -> Cow<'_, str> {
    escape_except(text, |c, _| c == '\n')
}

/// The same for a cell of a table that programs read: tabs and the ends of lines, with or without a CR, stay.
#[must_use]
pub fn escape_cell(text: &str) -> Cow<'_, str> {
    escape_except(text, |c, next| matches!(c, '\n' | '\t') || (c == '\r' && next == Some('\n')))
}

/// The same for a line of a log with colours, without its end: those stay, and no other command. What others wrote in
/// the line must have been escaped before, or its colours stay as well.
#[must_use]
pub fn escape_log(text: &str) -> Cow<'_, str> {
    let mut pieces = text.split('\u{1b}');
    let mut out = escape(pieces.next().unwrap_or_default()).into_owned();
    for piece in pieces {
        out.push_str(if is_color_code(piece) { "\u{1b}" } else { "\\u{1b}" });
        out.push_str(&escape(piece));
    }
    Cow::Owned(out)
}

/// True if this makes a colour or a style behind an escape character: `[`, digits and semicolons, `m`.
fn is_color_code(piece: &str) -> bool {
    let numbers = piece.strip_prefix('[').map(|rest| rest.trim_start_matches(|c: char| c.is_ascii_digit() || c == ';'));
    numbers.is_some_and(|rest| rest.starts_with('m'))
}

/// JSON of the same value in which no such character stands for itself. JSON escapes those below a space by itself.
#[must_use]
pub fn escape_json(json: &str) -> Cow<'_, str> {
    // Outside of strings JSON has no other character than the ends of lines. All of these have four digits.
    escape_with(json, |c, _| c == '\n', |c| format!("\\u{:04x}", u32::from(c)))
}

/// Escapes what is active, but for characters that `stays` accepts: it gets the character and the next one.
fn escape_except(text: &str, stays: impl Fn(char, Option<char>) -> bool) -> Cow<'_, str> {
    escape_with(text, stays, |c| c.escape_unicode().to_string())
}

/// Replaces what is active by what `escape` makes of it, but for characters that `stays`.
fn escape_with(
    text: &str,
    stays: impl Fn(char, Option<char>) -> bool,
    escape: impl Fn(char) -> String,
) -> Cow<'_, str> {
    if !text.contains(is_unsafe_char) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len() + 16);
    let mut rest = text.chars().peekable();
    while let Some(c) = rest.next() {
        if is_unsafe_char(c) && !stays(c, rest.peek().copied()) {
            out.push_str(&escape(c));
        } else {
            out.push(c);
        }
    }
    Cow::Owned(out)
}

/// Writes one line, whatever is in it. Every line that a command prints goes through here.
///
/// # Errors
/// That of `out`.
pub fn write_line(out: &mut (impl fmt::Write + ?Sized), line: Arguments<'_>) -> fmt::Result {
    writeln!(out, "{}", escape(&line.to_string()))
}

/// Writes a text to standard output.
///
/// # Errors
/// [`ServerError::Runtime`] if standard output is closed.
pub fn print(text: &str) -> Result<(), ServerError> {
    let mut out = std::io::stdout().lock();
    let written = out.write_all(text.as_bytes()).and_then(|()| out.flush());
    written.map_err(|error| ServerError::Runtime(format!("standard output: {error}")))
}

/// Writes a value as a line of JSON to standard output.
///
/// # Errors
/// [`ServerError::Runtime`] if it is none, or standard output is closed.
pub fn print_json(value: &impl Serialize) -> Result<(), ServerError> {
    let json = serde_json::to_string(value).map_err(ServerError::runtime)?;
    print(&format!("{}\n", escape_json(&json)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escape_plain_text_is_unchanged() {
        for text in ["", "card_arrival", "na\u{ef}ve \u{1f642} \u{4f60}\u{597d} \u{5e9}\u{5dc}", "a\\b \"c\" 'd'"] {
            assert!(matches!(escape(text), Cow::Borrowed(same) if same == text), "{text}");
            assert!(matches!(escape_json(text), Cow::Borrowed(same) if same == text), "{text}");
        }
    }

    #[test]
    fn escape_unsafe_characters_are_replaced() {
        for code in (0..0x20).chain(0x7f..0xa0).chain(0x202a..0x202f).chain([0x61c, 0x200e, 0x200f, 0x2066, 0x2069]) {
            let text = format!("a{}b", char::from_u32(code).unwrap());
            assert_eq!(escape(&text), format!("a\\u{{{code:x}}}b"));
            let json = serde_json::to_string(&text).unwrap();
            let shown = escape_json(&json);
            assert!(!shown.contains(is_unsafe_char), "{shown:?}");
            assert_eq!(serde_json::from_str::<String>(&shown).unwrap(), text, "it is the same value");
        }
    }

    #[test]
    fn escape_line_ends_kept_where_allowed() {
        let text = "a\nb\r\nc\td\re\u{1b}";
        assert_eq!(escape(text), "a\\u{a}b\\u{d}\\u{a}c\\u{9}d\\u{d}e\\u{1b}");
        assert_eq!(escape_lines(text), "a\nb\\u{d}\nc\\u{9}d\\u{d}e\\u{1b}");
        assert_eq!(escape_cell(text), "a\nb\r\nc\td\\u{d}e\\u{1b}");
        assert_eq!(escape_log("a\u{1b}[1;31mb\u{1b}[0mc"), "a\u{1b}[1;31mb\u{1b}[0mc");
        assert_eq!(
            escape_log("\u{1b}[2J\u{1b}]0;t\u{7}\u{1b}\nd\u{1b}[3"),
            "\\u{1b}[2J\\u{1b}]0;t\\u{7}\\u{1b}\\u{a}d\\u{1b}[3"
        );
        let mut out = String::new();
        write_line(&mut out, format_args!("{}: {}", "a\nok", 7)).unwrap();
        assert_eq!(out, "a\\u{a}ok: 7\n");
    }
}
