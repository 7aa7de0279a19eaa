//! The texts of a file, with the labels that stand beside them: a table, lines of JSON, or plain lines.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use serde_json::Value;

use crate::bench::texts::read_lines;

/// Most texts of a file, and most bytes of it.
const MAX_TEXTS: usize = 100_000;
const MAX_FILE_BYTES: u64 = 64 << 20;
/// What the label of a text is called: by people, by BANKING77, by `predictd feedback export`.
const LABEL_COLUMNS: [&str; 3] = ["label", "category", "actual"];

/// One text of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
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
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TextRows {
    /// Those that have a text.
    pub rows: Vec<TextRow>,
    /// How many have none, as what is told of an answer without its text.
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

/// The rows of a file, by the end of its name: `.csv` is a table, `.jsonl` and `.ndjson` are lines of JSON, anything else
/// is plain lines.
///
/// # Errors
/// One sentence.
pub fn read_rows(path: &Path) -> Result<TextRows, String> {
    match path.extension().and_then(|ending| ending.to_str()) {
        Some("csv") => Ok(TextRows { rows: parse_csv(&read_bounded(path)?)?, without_text: 0 }),
        Some("jsonl" | "ndjson") => parse_json_lines(&read_bounded(path)?),
        _ => {
            let plain = |(line, text)| TextRow { line, text, pair: None, label: None };
            Ok(TextRows { rows: read_lines(path, MAX_TEXTS)?.into_iter().map(plain).collect(), without_text: 0 })
        }
    }
}

/// A regular file that is not too large.
pub(super) fn read_bounded(path: &Path) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::new();
    // To open a pipe would wait for its other end.
    if !std::fs::metadata(path).map_err(|error| error.to_string())?.is_file() {
        return Err("it is no regular file".to_owned());
    }
    let file = File::open(path).map_err(|error| error.to_string())?;
    file.take(MAX_FILE_BYTES + 1).read_to_end(&mut bytes).map_err(|error| error.to_string())?;
    if bytes.len() as u64 > MAX_FILE_BYTES {
        Err(format!("it is larger than {MAX_FILE_BYTES} bytes"))
    } else {
        Ok(bytes)
    }
}

fn parse_csv(bytes: &[u8]) -> Result<Vec<TextRow>, String> {
    let mut table = csv::Reader::from_reader(bytes);
    let heading = table.headers().map_err(|error| error.to_string())?.clone();
    let column = |name: &str| heading.iter().position(|field| field.trim().eq_ignore_ascii_case(name));
    let text_column = column("text").ok_or("its first line names no column text")?;
    let label_column = LABEL_COLUMNS.into_iter().find_map(column);
    let pair_column = column("text_pair");
    let mut rows = Vec::new();
    let mut lines = LineFinder { bytes, offset: 0, line: 1 };
    for row in table.records() {
        let row = row.map_err(|error| error.to_string())?;
        let line = row.position().map_or(0, |position| lines.line_at(position.byte()));
        let field = |column: usize| row.get(column).unwrap_or_default().to_owned();
        let label = label_column.map(|column| RowLabel::Field(field(column)));
        push_row(&mut rows, TextRow { line, text: field(text_column), pair: pair_column.map(field), label })?;
    }
    if rows.is_empty() { Err("it holds no text".to_owned()) } else { Ok(rows) }
}

fn parse_json_lines(bytes: &[u8]) -> Result<TextRows, String> {
    let text = std::str::from_utf8(bytes).map_err(|_| "it is not UTF-8")?;
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut rows = Vec::new();
    let mut without = 0;
    for (line, written) in (1..).zip(text.lines()).filter(|(_, written)| !written.trim().is_empty()) {
        let row: Value = serde_json::from_str(written).map_err(|error| format!("line {line}: {error}"))?;
        let string = |field: &str| row.get(field).and_then(Value::as_str).map(str::to_owned);
        let text = match row.get("text") {
            Some(Value::Null) => {
                without += 1;
                continue;
            }
            Some(Value::String(text)) => text.clone(),
            _ => return Err(format!("line {line}: it is no object whose text is a string or null")),
        };
        let label = match LABEL_COLUMNS.into_iter().find_map(|name| row.get(name)) {
            None | Some(Value::Null) => None,
            Some(label) => {
                let label = parse_label(label);
                Some(label.ok_or_else(|| format!("line {line}: its label is no label, number or list of labels"))?)
            }
        };
        push_row(&mut rows, TextRow { line, text, pair: string("text_pair"), label })?;
    }
    if rows.is_empty() { Err("it holds no text".to_owned()) } else { Ok(TextRows { rows, without_text: without }) }
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

fn push_row(rows: &mut Vec<TextRow>, row: TextRow) -> Result<(), String> {
    if rows.len() == MAX_TEXTS {
        return Err(format!("it holds more than {MAX_TEXTS} texts"));
    }
    rows.push(row);
    Ok(())
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

    #[test]
    fn text_file_extension_selects_format() {
        let field = |label: &str| Some(RowLabel::Field(label.to_owned()));
        let table = read_rows_of("t.csv", "id,Category,TEXT\n1,a,\"x, y\"\n2,b,z\n").unwrap();
        assert_eq!(table, [row(2, "x, y", field("a")), row(3, "z", field("b"))]);
        assert_eq!(read_rows_of("t.csv", "text\nx\n").unwrap(), [row(2, "x", None)]);
        let list = Some(RowLabel::List(vec!["a".to_owned(), "b".to_owned()]));
        let lines = "{\"text\":\"x\",\"actual\":[\"a\",\"b\"],\"who\":1}\n\n{\"text\":\"y\",\"label\":null}\n{\"text\":\"z\",\"label\":1.5}\n";
        assert_eq!(
            read_rows_of("t.jsonl", lines).unwrap(),
            [row(1, "x", list), row(3, "y", None), row(4, "z", field("1.5"))]
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
