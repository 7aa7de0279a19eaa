//! The texts of a file, with the labels that stand beside them: a table, lines of JSON, or plain lines.

use std::path::Path;

use serde_json::Value;

use crate::bench::texts::{self, read_lines};

/// Most texts of a file, and most bytes of it.
const MAX_TEXTS: usize = 100_000;
const MAX_FILE_BYTES: u64 = 64 << 20;
/// What the label of a text is called: by people, by BANKING77, by `predictd feedback export`.
const LABEL_COLUMNS: [&str; 3] = ["label", "category", "actual"];

/// One text of a file.
#[derive(Debug, PartialEq, Eq)]
pub struct TextRow {
    /// Its line, from 1, the heading included.
    pub line: usize,
    /// The text.
    pub text: String,
    /// The second text, for a model that judges two.
    pub pair: Option<String>,
    /// What the answer should be, as it stands there.
    pub label: Option<RowLabel>,
}

/// The rows of a file.
#[derive(Debug, Default)]
pub struct TextRows {
    /// Those that have a text.
    pub rows: Vec<TextRow>,
    /// How many have none, as feedback without its text.
    pub without_text: usize,
}

/// A label as a file has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RowLabel {
    /// A field: one label, a number, or several labels with a sign between.
    Field(String),
    /// A list of labels.
    List(Vec<String>),
}

impl TextRows {
    fn push(&mut self, row: TextRow) -> Result<(), String> {
        if self.rows.len() == MAX_TEXTS {
            return Err(format!("it holds more than {MAX_TEXTS} texts"));
        }
        self.rows.push(row);
        Ok(())
    }
}

/// The rows of a file, by the end of its name: `.csv` is a table, `.jsonl` and `.ndjson` are lines of JSON, anything else
/// is plain lines.
///
/// # Errors
/// One sentence.
pub fn read_rows(path: &Path) -> Result<TextRows, String> {
    let mut found = TextRows::default();
    match path.extension().and_then(|ending| ending.to_str()) {
        Some("csv") => parse_csv(&read_bounded(path)?, &mut found)?,
        Some("jsonl" | "ndjson") => parse_json_lines(&read_bounded(path)?, &mut found)?,
        _ => {
            for (line, text) in read_lines(path, MAX_TEXTS)? {
                found.push(TextRow { line, text, pair: None, label: None })?;
            }
        }
    }
    if found.rows.is_empty() { Err("it holds no text".to_owned()) } else { Ok(found) }
}

/// A regular file that is not too large.
pub(super) fn read_bounded(path: &Path) -> Result<Vec<u8>, String> {
    texts::read_bounded(path, MAX_FILE_BYTES)
}

fn parse_csv(bytes: &[u8], found: &mut TextRows) -> Result<(), String> {
    let mut table = csv::Reader::from_reader(bytes);
    let heading = table.headers().map_err(|error| error.to_string())?.clone();
    let column = |name: &str| heading.iter().position(|field| field.trim().eq_ignore_ascii_case(name));
    let text_column = column("text").ok_or("its first line names no column text")?;
    let label_column = LABEL_COLUMNS.into_iter().find_map(column);
    let pair_column = column("text_pair");
    let mut lines = LineFinder { bytes, offset: 0, line: 1 };
    for row in table.records() {
        let row = row.map_err(|error| error.to_string())?;
        let line = row.position().map_or(0, |position| lines.line_at(position.byte()));
        let field = |column: usize| row.get(column).unwrap_or_default().to_owned();
        let label = label_column.map(field).map(RowLabel::Field);
        found.push(TextRow { line, text: field(text_column), pair: pair_column.map(field), label })?;
    }
    Ok(())
}

fn parse_json_lines(bytes: &[u8], found: &mut TextRows) -> Result<(), String> {
    for (line, written) in texts::non_blank_lines(bytes)? {
        let row: Value = serde_json::from_str(written).map_err(|error| format!("line {line}: {error}"))?;
        let text = match row.get("text") {
            Some(Value::Null) => {
                found.without_text += 1;
                continue;
            }
            Some(Value::String(text)) => text.clone(),
            _ => return Err(format!("line {line}: it is no object whose text is a string or null")),
        };
        let label = LABEL_COLUMNS.into_iter().find_map(|name| row.get(name)).filter(|label| !label.is_null());
        let label = label.map(|label| {
            parse_label(label).ok_or_else(|| format!("line {line}: its label is no label, number or list of labels"))
        });
        let pair = row.get("text_pair").and_then(Value::as_str).map(str::to_owned);
        found.push(TextRow { line, text, pair, label: label.transpose()? })?;
    }
    Ok(())
}

fn parse_label(value: &Value) -> Option<RowLabel> {
    match value {
        Value::String(label) => Some(RowLabel::Field(label.clone())),
        Value::Number(number) => Some(RowLabel::Field(number.to_string())),
        Value::Array(labels) => {
            let labels = labels.iter().map(|label| label.as_str().map(str::to_owned));
            labels.collect::<Option<_>>().map(RowLabel::List)
        }
        Value::Null | Value::Bool(_) | Value::Object(_) => None,
    }
}

/// Finds lines by their place: the parser counts those that end in CR LF one row late.
struct LineFinder<'a> {
    bytes: &'a [u8],
    offset: usize,
    line: usize,
}

impl LineFinder<'_> {
    /// The line of a row that begins here, or after the ends of lines that stand here; rows are asked for in order.
    fn line_at(&mut self, byte: u64) -> usize {
        let start = usize::try_from(byte).unwrap_or(usize::MAX);
        let rest = self.bytes.get(start..).unwrap_or_default();
        let blank = rest.iter().take_while(|byte| matches!(byte, b'\r' | b'\n')).count();
        let new = self.bytes.get(self.offset..start + blank).unwrap_or_default();
        self.line += new.split(|&byte| byte == b'\n').count().saturating_sub(1);
        self.offset = start + blank;
        self.line
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_rows_of(name: &str, content: &str) -> Result<Vec<TextRow>, String> {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join(name);
        std::fs::write(&path, content).unwrap();
        read_rows(&path).map(|read| read.rows)
    }

    fn row(line: usize, text: &str, label: Option<RowLabel>) -> TextRow {
        TextRow { line, text: text.to_owned(), pair: None, label }
    }

    fn field_label(label: &str) -> RowLabel {
        RowLabel::Field(label.to_owned())
    }

    #[test]
    fn text_file_extension_selects_format() {
        let table = read_rows_of("t.csv", "id,Category,TEXT\n1,a,\"x, y\"\n2,b,z\n").unwrap();
        assert_eq!(table, [row(2, "x, y", Some(field_label("a"))), row(3, "z", Some(field_label("b")))]);
        assert_eq!(read_rows_of("t.csv", "text\nx\n").unwrap(), [row(2, "x", None)]);
        let list = Some(RowLabel::List(vec!["a".to_owned(), "b".to_owned()]));
        let lines = "{\"text\":\"x\",\"actual\":[\"a\",\"b\"],\"who\":1}\n\n{\"text\":\"y\",\"label\":null}\n{\"text\":\"z\",\"label\":1.5}\n";
        assert_eq!(
            read_rows_of("t.jsonl", lines).unwrap(),
            [row(1, "x", list), row(3, "y", None), row(4, "z", Some(field_label("1.5")))]
        );
        assert_eq!(read_rows_of("texts", "text,label\nx\n").unwrap(), [row(1, "text,label", None), row(2, "x", None)]);
    }

    #[test]
    fn text_file_rows_without_text_are_counted() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("told.jsonl");
        std::fs::write(&path, "{\"text\":null,\"actual\":[]}\n{\"text\":\"x\",\"actual\":[]}\n").unwrap();
        let rows = read_rows(&path).unwrap();
        assert_eq!((rows.rows, rows.without_text), (vec![row(2, "x", Some(RowLabel::List(vec![])))], 1));
    }

    #[test]
    fn text_file_malformed_error_names_line() {
        for (name, content, reason) in [
            ("t.csv", "label\nx\n", "no column text"),
            ("t.csv", "text,label\n", "no text"),
            ("t.jsonl", "\n", "no text"),
            ("t.jsonl", "{\"text\":\"x\"}\n{", "line 2: "),
            ("t.ndjson", "{\"text\":null}", "no text"),
            ("t.ndjson", "{\"text\":1}", "line 1: it is no object whose text is a string or null"),
            ("t.ndjson", "{\"label\":\"x\"}", "line 1: it is no object whose text"),
            ("t.ndjson", "[1]", "line 1: it is no object whose text"),
            ("t.jsonl", "{\"text\":\"x\",\"label\":{}}", "line 1: its label"),
            ("t.jsonl", "{\"text\":\"x\",\"label\":[1]}", "line 1: its label"),
        ] {
            let found = read_rows_of(name, content).unwrap_err();
            assert!(found.contains(reason), "{content}: {found}");
        }
        assert!(read_rows(Path::new("/dev/zero")).unwrap_err().contains("no regular file"));
    }
}
