//! What a model is asked: the texts of a file, or its own examples and texts of their words.

use std::collections::BTreeMap;
use std::fmt::{self, Display, Formatter};
use std::path::Path;

use predictd_text::golden::{ExpectedLabels, GoldenExample, GoldenSet};
use predictd_text::heads::Head;
use predictd_text::input::Input;
use predictd_text::pipeline::Pipeline;
use serde::{Deserialize, Serialize};

use super::args::CheckCommand;
use super::text_file::{RowLabel, TextRow, TextRows, read_bounded, read_rows};
use crate::bench::texts::{SAMPLE_SENTENCES, generate_texts};

/// Texts that are made where no file is named.
const GENERATED_TEXTS: usize = 256;
/// What stands between the labels of one row of a table, for a model that gives several: as people write them, and as
/// `predictd feedback export` does.
const LABEL_SEPARATORS: [char; 2] = ['|', '\n'];

/// What is asked, in this order.
#[derive(Debug)]
pub struct EvalSet {
    /// Where they are from.
    pub source: String,
    /// What the number of a text counts.
    pub unit: CaseUnit,
    /// The texts.
    pub cases: Vec<EvalCase>,
    /// Rows of the file that have no text.
    pub without_text: usize,
    /// Largest difference of a score that counts as the same, where the file names scores.
    pub tolerance: f32,
    /// True if an answer is either right or wrong: a number of a CSV file is neither, as no tolerance is named there.
    pub graded: bool,
}

/// What the number of a text counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CaseUnit {
    /// Lines of a file, the heading included.
    Line,
    /// Examples of a golden.json.
    Example,
    /// Texts that were made.
    Text,
}

impl Display for CaseUnit {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Line => "line",
            Self::Example => "example",
            Self::Text => "text",
        })
    }
}

/// One text, or two.
#[derive(Debug)]
pub struct EvalCase {
    /// Its number, from 1.
    pub number: usize,
    /// The text.
    pub input: Input,
    /// What the answer should be, if a file says so.
    pub expected: Option<GoldenExample>,
}

impl EvalSet {
    /// What the command names, or what can be made for this model.
    ///
    /// # Errors
    /// A sentence that names the option, the file, and what is wrong with it.
    pub fn load(command: &CheckCommand, pipeline: &Pipeline) -> Result<Self, String> {
        if let Some(path) = command.against_path() {
            return Self::from_expected_file(path, pipeline)
                .map_err(|error| format!("--against {}: {error}", path.display()));
        }
        if let Some(path) = command.texts_path() {
            // Whatever labels stand beside them.
            return Self::from_rows(path, |_| Ok(None)).map_err(|error| format!("--texts {}: {error}", path.display()));
        }
        let (inputs, from): (Vec<Input>, _) = match pipeline.golden() {
            Some(golden) => {
                (golden.examples.iter().map(GoldenExample::input).collect(), "golden.json and texts of its words")
            }
            None => (
                SAMPLE_SENTENCES.iter().map(|&text| Input::from(text.to_owned())).collect(),
                "plain sentences and texts of their words",
            ),
        };
        let words: Vec<&str> = inputs.iter().map(|input| input.text.as_str()).collect();
        let generated = generate_texts(&words, pipeline, GENERATED_TEXTS).into_iter().map(Input::from);
        let cases = (1..).zip(inputs.into_iter().chain(generated));
        let cases = cases.map(|(number, input)| EvalCase { number, input, expected: None }).collect();
        Ok(Self::new(cases, from.to_owned(), CaseUnit::Text))
    }

    fn new(cases: Vec<EvalCase>, source: String, unit: CaseUnit) -> Self {
        Self { source, unit, cases, without_text: 0, tolerance: 0.0, graded: false }
    }

    /// The texts of a file, and what the answers should be by `expected`.
    fn from_rows(
        path: &Path,
        expected: impl Fn(&TextRow) -> Result<Option<GoldenExample>, String>,
    ) -> Result<Self, String> {
        let TextRows { rows, without_text } = read_rows(path)?;
        let cases = rows.into_iter().map(|row| {
            let expected = expected(&row)?;
            Ok(EvalCase { number: row.line, input: Input::new(row.text, row.pair), expected })
        });
        let cases = cases.collect::<Result<_, String>>()?;
        Ok(Self { without_text, ..Self::new(cases, path.display().to_string(), CaseUnit::Line) })
    }

    /// The texts of a file, and what the answers should be where that stands beside them.
    ///
    /// # Errors
    /// One sentence: among others that the model has no such label.
    pub fn from_labelled_file(path: &Path, pipeline: &Pipeline) -> Result<Self, String> {
        if let Head::Entities(..) = pipeline.head() {
            return Err("a table has no place for entities: name a golden.json".to_owned());
        }
        let questions = Self::from_rows(path, |row| parse_expected(row, pipeline))?;
        Ok(Self { graded: !pipeline.head().is_numeric(), ..questions })
    }

    fn from_expected_file(path: &Path, pipeline: &Pipeline) -> Result<Self, String> {
        match path.extension().and_then(|ending| ending.to_str()) {
            Some("json") => parse_golden(&read_bounded(path)?, path.display().to_string(), pipeline),
            Some("csv" | "jsonl" | "ndjson") => {
                let questions = Self::from_labelled_file(path, pipeline)?;
                match questions.cases.iter().find(|question| question.expected.is_none()) {
                    Some(EvalCase { number, .. }) => {
                        Err(format!("line {number}: there is no column label, and no category"))
                    }
                    None => Ok(questions),
                }
            }
            _ => Err("its name ends neither in .json (a golden.json) nor in .csv or .jsonl".to_owned()),
        }
    }
}

fn parse_golden(bytes: &[u8], from: String, pipeline: &Pipeline) -> Result<EvalSet, String> {
    let golden: GoldenSet = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
    golden.check()?;
    let tolerance = golden.tolerance;
    let mut cases = Vec::with_capacity(golden.examples.len());
    for (number, example) in (1..).zip(golden.examples) {
        let named = expected_labels(&example).iter().chain(example.scores.keys());
        check_labels(named, pipeline, &format!("example {number}"))?;
        cases.push(EvalCase { number, input: example.input(), expected: Some(example) });
    }
    Ok(EvalSet { tolerance, graded: true, ..EvalSet::new(cases, from, CaseUnit::Example) })
}

/// The labels that an example names.
#[must_use]
pub fn expected_labels(example: &GoldenExample) -> &[String] {
    match &example.label {
        Some(ExpectedLabels::Single(label)) => std::slice::from_ref(label),
        Some(ExpectedLabels::Multiple(labels)) => labels,
        None => &[],
    }
}

/// What a row expects, if it says so.
fn parse_expected(row: &TextRow, pipeline: &Pipeline) -> Result<Option<GoldenExample>, String> {
    let head = pipeline.head();
    let is_multi_label = matches!(head, Head::MultiLabel { .. });
    let line = format!("line {}", row.line);
    let text = row.text.clone();
    let expected =
        GoldenExample { text, text_pair: None, label: None, scores: BTreeMap::new(), score: None, entities: None };
    let mut labels = match row.label.clone() {
        None => return Ok(None),
        Some(RowLabel::Field(field)) if head.is_numeric() => {
            let score = field.trim().parse().ok().filter(|number: &f32| number.is_finite());
            let score = score.ok_or_else(|| format!("{line}: the label {field:?} is no number"))?;
            return Ok(Some(GoldenExample { score: Some(score), ..expected }));
        }
        Some(RowLabel::Field(field)) if is_multi_label => {
            field.split(LABEL_SEPARATORS).filter(|label| !label.is_empty()).map(str::to_owned).collect()
        }
        Some(RowLabel::Field(field)) => vec![field],
        Some(RowLabel::List(labels)) => labels,
    };
    let label = match labels.as_slice() {
        _ if is_multi_label => {
            check_labels(&labels, pipeline, &line)?;
            // Answers name them in this order.
            labels.sort_by_key(|label| pipeline.labels().iter().position(|known| known == label));
            labels.dedup();
            ExpectedLabels::Multiple(labels)
        }
        // The feedback says that no label is right: every answer is wrong.
        [] if !head.is_numeric() => ExpectedLabels::Multiple(labels),
        [one] => {
            check_labels(&labels, pipeline, &line)?;
            ExpectedLabels::Single(one.clone())
        }
        others => return Err(format!("{line}: {} labels, where the model gives one", others.len())),
    };
    Ok(Some(GoldenExample { label: Some(label), ..expected }))
}

fn check_labels<'a>(
    labels: impl IntoIterator<Item = &'a String>,
    pipeline: &Pipeline,
    location: &str,
) -> Result<(), String> {
    match labels.into_iter().find(|label| !pipeline.labels().contains(label)) {
        Some(label) => Err(format!("{location}: the model has no label {label:?}")),
        None => Ok(()),
    }
}
