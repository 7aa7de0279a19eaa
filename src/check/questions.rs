//! What a model is asked: the texts of a file, or its own examples and texts of their words.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::path::Path;

use serde::Serialize;

use super::args::CheckCommand;
use crate::bench::texts::{PLAIN, made, read};
use crate::text::golden::{Example, Expected, Golden};
use crate::text::heads::Head;
use crate::text::input::{Input, Pair};
use crate::text::pipeline::Pipeline;

/// Most texts of a file, and most bytes of it.
const MOST_TEXTS: usize = 100_000;
const MOST_BYTES: u64 = 64 << 20;
/// Texts that are made where no file is named.
const MADE: usize = 256;
/// What stands between the labels of one row of a CSV file, for a model that gives several.
const BETWEEN_LABELS: char = '|';

/// What is asked, in this order.
#[derive(Debug)]
pub struct Questions {
    /// Where they are from.
    pub from: String,
    /// What the number of a text counts.
    pub unit: Unit,
    /// The texts.
    pub asked: Vec<Question>,
    /// Largest difference of a score that counts as the same, where the file names scores.
    pub tolerance: f32,
    /// True if an answer is either right or wrong: a number of a CSV file is neither, as no tolerance is named there.
    pub graded: bool,
}

/// What the number of a text counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Unit {
    /// Lines of a file, the heading included.
    Line,
    /// Examples of a golden.json.
    Example,
    /// Texts that were made.
    Text,
}

impl std::fmt::Display for Unit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Line => "line",
            Self::Example => "example",
            Self::Text => "text",
        })
    }
}

/// One text, or two.
#[derive(Debug)]
pub struct Question {
    /// Its number, from 1.
    pub number: usize,
    /// The text.
    pub input: Input,
    /// What the answer should be, if a file says so.
    pub expected: Option<Example>,
}

impl Questions {
    /// What the command names, or what can be made for this model.
    ///
    /// # Errors
    /// A sentence that names the option, the file, and what is wrong with it.
    pub fn find(command: &CheckCommand, pipeline: &Pipeline) -> Result<Self, String> {
        let said = |option: &str, path: &Path, error: String| format!("{option} {}: {error}", path.display());
        if let Some(path) = command.against() {
            return Self::against(path, pipeline).map_err(|error| said("--against", path, error));
        }
        if let Some(path) = command.texts() {
            let lines = read(path, MOST_TEXTS).map_err(|error| said("--texts", path, error))?;
            let asked = lines.into_iter().map(|(number, text)| Question::of(number, text)).collect();
            return Ok(Self::asking(asked, path.display().to_string(), Unit::Line));
        }
        let examples = pipeline.golden().map(|golden| golden.examples.as_slice()).unwrap_or_default();
        let own: Vec<&str> = examples.iter().map(|example| example.text.as_str()).collect();
        let (words, from) = if own.is_empty() {
            (&PLAIN[..], "plain sentences and texts of their words")
        } else {
            (&own[..], "golden.json and texts of its words")
        };
        let inputs = if own.is_empty() {
            PLAIN.iter().map(|text| Input::from((*text).to_owned())).collect::<Vec<_>>()
        } else {
            examples.iter().map(Example::input).collect()
        };
        let made = made(words, pipeline, MADE).into_iter().map(Input::from);
        let asked = (1..).zip(inputs.into_iter().chain(made));
        let asked = asked.map(|(number, input)| Question { number, input, expected: None }).collect();
        Ok(Self::asking(asked, from.to_owned(), Unit::Text))
    }

    fn asking(asked: Vec<Question>, from: String, unit: Unit) -> Self {
        Self { from, unit, asked, tolerance: 0.0, graded: false }
    }

    fn against(path: &Path, pipeline: &Pipeline) -> Result<Self, String> {
        let from = path.display().to_string();
        match path.extension().and_then(|ending| ending.to_str()) {
            Some("json") => of_golden(&bounded(path)?, from, pipeline),
            Some("csv") => of_table(&bounded(path)?, from, pipeline),
            _ => Err("its name ends neither in .json (a golden.json) nor in .csv".to_owned()),
        }
    }
}

impl Question {
    fn of(number: usize, text: String) -> Self {
        Self { number, input: text.into(), expected: None }
    }
}

fn bounded(path: &Path) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::new();
    // To open a pipe would wait for its other end.
    if !std::fs::metadata(path).map_err(|error| error.to_string())?.is_file() {
        return Err("it is no regular file".to_owned());
    }
    let file = File::open(path).map_err(|error| error.to_string())?;
    file.take(MOST_BYTES + 1).read_to_end(&mut bytes).map_err(|error| error.to_string())?;
    if bytes.len() as u64 > MOST_BYTES { Err(format!("it is larger than {MOST_BYTES} bytes")) } else { Ok(bytes) }
}

fn of_golden(bytes: &[u8], from: String, pipeline: &Pipeline) -> Result<Questions, String> {
    let golden: Golden = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
    golden.check()?;
    let tolerance = golden.tolerance;
    let mut asked = Vec::with_capacity(golden.examples.len());
    for (number, example) in (1..).zip(golden.examples) {
        let named: Vec<&String> = match &example.label {
            Some(Expected::One(label)) => vec![label],
            Some(Expected::Many(labels)) => labels.iter().collect(),
            None => Vec::new(),
        };
        known(named.into_iter().chain(example.scores.keys()), pipeline, &format!("example {number}"))?;
        asked.push(Question { number, input: example.input(), expected: Some(example) });
    }
    Ok(Questions { tolerance, graded: true, ..Questions::asking(asked, from, Unit::Example) })
}

fn of_table(bytes: &[u8], from: String, pipeline: &Pipeline) -> Result<Questions, String> {
    if let Head::Entities(_) = pipeline.head() {
        return Err("a CSV file has no place for entities: name a golden.json".to_owned());
    }
    let mut rows = csv::Reader::from_reader(bytes);
    let heading = rows.headers().map_err(|error| error.to_string())?.clone();
    let column = |name: &str| heading.iter().position(|field| field.trim().eq_ignore_ascii_case(name));
    let text_column = column("text").ok_or("its first line names no column text")?;
    let label_column = column("label")
        .or_else(|| column("category"))
        .ok_or("its first line names no column label, and no category")?;
    let pair_column = column("text_pair");
    let (mut asked, mut lines) = (Vec::new(), Lines { bytes, place: 0, line: 1 });
    for row in rows.records() {
        let row = row.map_err(|error| error.to_string())?;
        let number = row.position().map_or(0, |place| lines.of(place.byte()));
        if asked.len() == MOST_TEXTS {
            return Err(format!("it holds more than {MOST_TEXTS} texts"));
        }
        let field = |column: usize| row.get(column).unwrap_or_default();
        let text = field(text_column).to_owned();
        let pair = pair_column.map(|column| Pair { text: field(column).to_owned(), whole: false });
        let expected = expected(field(label_column), &text, pipeline, &format!("line {number}"))?;
        asked.push(Question { number, input: Input { text, pair }, expected: Some(expected) });
    }
    if asked.is_empty() {
        return Err("it holds no text".to_owned());
    }
    let graded = !is_number(pipeline.head());
    Ok(Questions { graded, ..Questions::asking(asked, from, Unit::Line) })
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

/// What a row of a table expects.
fn expected(field: &str, text: &str, pipeline: &Pipeline, place: &str) -> Result<Example, String> {
    let (mut label, mut score) = (None, None);
    match pipeline.head() {
        head if is_number(head) => {
            let number = field.trim().parse::<f32>().ok().filter(|number| number.is_finite());
            score = Some(number.ok_or_else(|| format!("{place}: the label {field:?} is no number"))?);
        }
        Head::MultiLabel { .. } => {
            let mut labels: Vec<String> =
                field.split(BETWEEN_LABELS).filter(|label| !label.is_empty()).map(str::to_owned).collect();
            known(labels.iter(), pipeline, place)?;
            // Answers name them in this order.
            labels.sort_by_key(|label| pipeline.labels().iter().position(|known| known == label));
            labels.dedup();
            label = Some(Expected::Many(labels));
        }
        _ => {
            let one = field.to_owned();
            known([&one], pipeline, place)?;
            label = Some(Expected::One(one));
        }
    }
    let (text, scores) = (text.to_owned(), BTreeMap::new());
    Ok(Example { text, text_pair: None, label, scores, score, entities: None })
}

/// True if the answer is a number.
fn is_number(head: &Head) -> bool {
    matches!(head, Head::Regression | Head::Sigmoid)
}

fn known<'a>(labels: impl IntoIterator<Item = &'a String>, pipeline: &Pipeline, place: &str) -> Result<(), String> {
    match labels.into_iter().find(|label| !pipeline.labels().contains(label)) {
        Some(label) => Err(format!("{place}: the model has no label {label:?}")),
        None => Ok(()),
    }
}
