//! The texts of a file, with the labels that stand beside them: a table, lines of JSON, or plain lines.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use serde_json::Value;

use crate::bench::texts::read;

/// Most texts of a file, and most bytes of it.
const MOST_TEXTS: usize = 100_000;
const MOST_BYTES: u64 = 64 << 20;
/// What the label of a text is called: by people, by BANKING77, by `predictd feedback export`.
const LABEL: [&str; 3] = ["label", "category", "actual"];

/// One text of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// Its line, from 1, the heading included.
    pub line: usize,
    /// The text.
    pub text: String,
    /// The second text, for a model that judges two.
    pub pair: Option<String>,
    /// What the answer should be, as it stands there.
    pub label: Option<Label>,
}

/// The rows of a file.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Rows {
    /// Those that have a text.
    pub rows: Vec<Row>,
    /// How many have none, as what is told of an answer without its text.
    pub without: usize,
}

/// A label as a file has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Label {
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
pub fn rows(path: &Path) -> Result<Rows, String> {
    match path.extension().and_then(|ending| ending.to_str()) {
        Some("csv") => Ok(Rows { rows: of_table(&bounded(path)?)?, without: 0 }),
        Some("jsonl" | "ndjson") => of_json_lines(&bounded(path)?),
        _ => {
            let plain = |(line, text)| Row { line, text, pair: None, label: None };
            Ok(Rows { rows: read(path, MOST_TEXTS)?.into_iter().map(plain).collect(), without: 0 })
        }
    }
}

/// A regular file that is not too large.
pub(super) fn bounded(path: &Path) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::new();
    // To open a pipe would wait for its other end.
    if !std::fs::metadata(path).map_err(|error| error.to_string())?.is_file() {
        return Err("it is no regular file".to_owned());
    }
    let file = File::open(path).map_err(|error| error.to_string())?;
    file.take(MOST_BYTES + 1).read_to_end(&mut bytes).map_err(|error| error.to_string())?;
    if bytes.len() as u64 > MOST_BYTES { Err(format!("it is larger than {MOST_BYTES} bytes")) } else { Ok(bytes) }
}

fn of_table(bytes: &[u8]) -> Result<Vec<Row>, String> {
    let mut table = csv::Reader::from_reader(bytes);
    let heading = table.headers().map_err(|error| error.to_string())?.clone();
    let column = |name: &str| heading.iter().position(|field| field.trim().eq_ignore_ascii_case(name));
    let text_column = column("text").ok_or("its first line names no column text")?;
    let (label_column, pair_column) = (LABEL.into_iter().find_map(column), column("text_pair"));
    let (mut rows, mut lines) = (Vec::new(), Lines { bytes, place: 0, line: 1 });
    for row in table.records() {
        let row = row.map_err(|error| error.to_string())?;
        let line = row.position().map_or(0, |place| lines.of(place.byte()));
        let field = |column: usize| row.get(column).unwrap_or_default().to_owned();
        let label = label_column.map(|column| Label::Field(field(column)));
        push(&mut rows, Row { line, text: field(text_column), pair: pair_column.map(field), label })?;
    }
    if rows.is_empty() { Err("it holds no text".to_owned()) } else { Ok(rows) }
}

fn of_json_lines(bytes: &[u8]) -> Result<Rows, String> {
    let text = std::str::from_utf8(bytes).map_err(|_| "it is not UTF-8")?;
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let (mut rows, mut without) = (Vec::new(), 0);
    for (line, written) in (1..).zip(text.lines()).filter(|(_, written)| !written.trim().is_empty()) {
        let wrong = |reason: &str| format!("line {line}: {reason}");
        let row: Value = serde_json::from_str(written).map_err(|error| wrong(&error.to_string()))?;
        let string = |field: &str| row.get(field).and_then(Value::as_str).map(str::to_owned);
        let text = match row.get("text") {
            Some(Value::Null) => {
                without += 1;
                continue;
            }
            Some(Value::String(text)) => text.clone(),
            _ => return Err(wrong("it is no object whose text is a string or null")),
        };
        let label = match LABEL.into_iter().find_map(|name| row.get(name)) {
            None | Some(Value::Null) => None,
            Some(label) => {
                Some(label_of(label).ok_or_else(|| wrong("its label is no label, number or list of labels"))?)
            }
        };
        push(&mut rows, Row { line, text, pair: string("text_pair"), label })?;
    }
    if rows.is_empty() { Err("it holds no text".to_owned()) } else { Ok(Rows { rows, without }) }
}

fn label_of(value: &Value) -> Option<Label> {
    match value {
        Value::String(label) => Some(Label::Field(label.clone())),
        Value::Number(number) => Some(Label::Field(number.to_string())),
        Value::Array(labels) => {
            let labels = labels.iter().map(|label| label.as_str().map(str::to_owned));
            labels.collect::<Option<_>>().map(Label::List)
        }
        Value::Null | Value::Bool(_) | Value::Object(_) => None,
    }
}

fn push(rows: &mut Vec<Row>, row: Row) -> Result<(), String> {
    if rows.len() == MOST_TEXTS {
        return Err(format!("it holds more than {MOST_TEXTS} texts"));
    }
    rows.push(row);
    Ok(())
}

/// Finds lines by their place: the parser counts those that end in CR LF one row late.
struct Lines<'a> {
    bytes: &'a [u8],
    place: usize,
    line: usize,
}

impl Lines<'_> {
    /// The line of a row that begins here, or after the ends of lines that stand here; rows are asked for in order.
    fn of(&mut self, byte: u64) -> usize {
        let start = usize::try_from(byte).unwrap_or(usize::MAX);
        let ends = |byte: &u8| matches!(byte, b'\r' | b'\n');
        let blank = self.bytes.get(start..).unwrap_or_default().iter().take_while(|&byte| ends(byte)).count();
        let new = self.bytes.get(self.place..start + blank).unwrap_or_default();
        self.line += new.split(|&byte| byte == b'\n').count().saturating_sub(1);
        self.place = start + blank;
        self.line
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_as(name: &str, content: &str) -> Result<Vec<Row>, String> {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join(name);
        std::fs::write(&path, content).unwrap();
        rows(&path).map(|read| read.rows)
    }

    fn row(line: usize, text: &str, label: Option<Label>) -> Row {
        Row { line, text: text.to_owned(), pair: None, label }
    }

    #[test]
    fn the_end_of_the_name_says_how_a_file_is_read() {
        let field = |label: &str| Some(Label::Field(label.to_owned()));
        let table = read_as("t.csv", "id,Category,TEXT\n1,a,\"x, y\"\n2,b,z\n").unwrap();
        assert_eq!(table, [row(2, "x, y", field("a")), row(3, "z", field("b"))]);
        assert_eq!(read_as("t.csv", "text\nx\n").unwrap(), [row(2, "x", None)]);
        let list = Some(Label::List(vec!["a".to_owned(), "b".to_owned()]));
        let lines = "{\"text\":\"x\",\"actual\":[\"a\",\"b\"],\"who\":1}\n\n{\"text\":\"y\",\"label\":null}\n{\"text\":\"z\",\"label\":1.5}\n";
        assert_eq!(
            read_as("t.jsonl", lines).unwrap(),
            [row(1, "x", list), row(3, "y", None), row(4, "z", field("1.5"))]
        );
        assert_eq!(read_as("texts", "text,label\nx\n").unwrap(), [row(1, "text,label", None), row(2, "x", None)]);
    }

    #[test]
    fn rows_without_a_text_are_counted() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("told.jsonl");
        std::fs::write(&path, "{\"text\":null,\"actual\":[]}\n{\"text\":\"x\",\"actual\":[]}\n").unwrap();
        let rows = rows(&path).unwrap();
        assert_eq!((rows.rows, rows.without), (vec![row(2, "x", Some(Label::List(vec![])))], 1));
    }

    #[test]
    fn what_is_wrong_is_told_with_its_line() {
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
            let found = read_as(name, content).unwrap_err();
            assert!(found.contains(reason), "{content}: {found}");
        }
        assert!(rows(Path::new("/dev/zero")).unwrap_err().contains("no regular file"));
    }
}
