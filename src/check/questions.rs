//! What a model is asked: the texts of a file, or its own examples and texts of their words.

use std::collections::BTreeMap;
use std::path::Path;

use serde::Serialize;

use super::args::CheckCommand;
use super::rows::{Label, Row, Rows, bounded, rows};
use crate::bench::texts::{PLAIN, made};
use crate::text::golden::{Example, Expected, Golden};
use crate::text::heads::Head;
use crate::text::input::{Input, Pair};
use crate::text::pipeline::Pipeline;

/// Texts that are made where no file is named.
const MADE: usize = 256;
/// What stands between the labels of one row of a table, for a model that gives several: as people write them, and as
/// `predictd feedback export` does.
const BETWEEN_LABELS: [char; 2] = ['|', '\n'];

/// What is asked, in this order.
#[derive(Debug)]
pub struct Questions {
    /// Where they are from.
    pub from: String,
    /// What the number of a text counts.
    pub unit: Unit,
    /// The texts.
    pub asked: Vec<Question>,
    /// Rows of the file that have no text.
    pub without: usize,
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
            return Self::plain(path).map_err(|error| said("--texts", path, error));
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
        Self { from, unit, asked, without: 0, tolerance: 0.0, graded: false }
    }

    /// The texts of a file, whatever labels stand beside them.
    fn plain(path: &Path) -> Result<Self, String> {
        let Rows { rows, without } = rows(path)?;
        let asked = rows.into_iter().map(|row| Question { expected: None, ..Question::of(row) }).collect();
        Ok(Self { without, ..Self::asking(asked, path.display().to_string(), Unit::Line) })
    }

    /// The texts of a file, and what the answers should be where that stands beside them.
    ///
    /// # Errors
    /// One sentence: among others that the model has no such label.
    pub fn of_file(path: &Path, pipeline: &Pipeline) -> Result<Self, String> {
        if let Head::Entities(..) = pipeline.head() {
            return Err("a table has no place for entities: name a golden.json".to_owned());
        }
        let mut asked = Vec::new();
        let Rows { rows, without } = rows(path)?;
        for mut row in rows {
            let label = row.label.take();
            let expected = label.map(|label| expected(label, &row, pipeline)).transpose()?;
            asked.push(Question { expected, ..Question::of(row) });
        }
        let graded = !pipeline.head().is_number();
        Ok(Self { without, graded, ..Self::asking(asked, path.display().to_string(), Unit::Line) })
    }

    fn against(path: &Path, pipeline: &Pipeline) -> Result<Self, String> {
        match path.extension().and_then(|ending| ending.to_str()) {
            Some("json") => of_golden(&bounded(path)?, path.display().to_string(), pipeline),
            Some("csv" | "jsonl" | "ndjson") => {
                let questions = Self::of_file(path, pipeline)?;
                match questions.asked.iter().find(|question| question.expected.is_none()) {
                    Some(Question { number, .. }) => {
                        Err(format!("line {number}: there is no column label, and no category"))
                    }
                    None => Ok(questions),
                }
            }
            _ => Err("its name ends neither in .json (a golden.json) nor in .csv or .jsonl".to_owned()),
        }
    }
}

impl Question {
    fn of(row: Row) -> Self {
        let pair = row.pair.map(|text| Pair { text, whole: false });
        Self { number: row.line, input: Input { text: row.text, pair }, expected: None }
    }
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

/// What a row expects.
fn expected(wanted: Label, row: &Row, pipeline: &Pipeline) -> Result<Example, String> {
    let place = format!("line {}", row.line);
    let (mut label, mut score) = (None, None);
    match (pipeline.head(), wanted) {
        (head, Label::Field(field)) if head.is_number() => {
            let number = field.trim().parse::<f32>().ok().filter(|number| number.is_finite());
            score = Some(number.ok_or_else(|| format!("{place}: the label {field:?} is no number"))?);
        }
        (Head::MultiLabel { .. }, wanted) => {
            let mut labels = match wanted {
                Label::Field(field) => {
                    field.split(BETWEEN_LABELS).filter(|label| !label.is_empty()).map(str::to_owned).collect()
                }
                Label::List(labels) => labels,
            };
            known(labels.iter(), pipeline, &place)?;
            // Answers name them in this order.
            labels.sort_by_key(|label| pipeline.labels().iter().position(|known| known == label));
            labels.dedup();
            label = Some(Expected::Many(labels));
        }
        // What was told of an answer that no label is right for: it is wrong, whatever it is.
        (head, Label::List(labels)) if labels.is_empty() && !head.is_number() => label = Some(Expected::Many(labels)),
        (_, wanted) => {
            let one = match wanted {
                Label::Field(field) => field,
                Label::List(labels) => match <[String; 1]>::try_from(labels) {
                    Ok([one]) => one,
                    Err(labels) => return Err(format!("{place}: {} labels, where the model gives one", labels.len())),
                },
            };
            known([&one], pipeline, &place)?;
            label = Some(Expected::One(one));
        }
    }
    let (text, scores) = (row.text.clone(), BTreeMap::new());
    Ok(Example { text, text_pair: None, label, scores, score, entities: None })
}

fn known<'a>(labels: impl IntoIterator<Item = &'a String>, pipeline: &Pipeline, place: &str) -> Result<(), String> {
    match labels.into_iter().find(|label| !pipeline.labels().contains(label)) {
        Some(label) => Err(format!("{place}: the model has no label {label:?}")),
        None => Ok(()),
    }
}
