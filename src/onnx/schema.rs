//! What a graph takes and gives: found in its file, in what the runtime says of it, and in a first run.

use ort::session::Session;

use super::analysis::{Classes, class_candidates, embedding_rows, last_activation};
use super::input_schema::InputSchema;
use super::output_schema::{CLASS_LABELS, ChoiceOutput, Output, ScoresOutput, Wanted, choice_output, scores_output};
use super::read_output::Choice;
use super::scan::Scan;
use super::session::{OnnxSession, Reading};
use crate::engine::session::RunError;
use crate::text::activation::Applied;
use crate::text::manifest::{Manifest, Task};
use crate::text::signature::{FixedAxes, GraphInput, ScoreKind, Signature, TokenRole};

/// Ending of the class of `transformers` whose models label tokens.
const OF_TOKENS: &str = "ForTokenClassification";

/// What a graph takes and gives.
#[derive(Debug, Clone)]
pub(super) struct Schema {
    input: GraphInput,
    fixed: FixedAxes,
    scores: ScoresOutput,
    choice: Option<ChoiceOutput>,
    class_candidates: Vec<Classes>,
    /// Its classes, where it names any; known after a first run.
    classes: Classes,
    /// True if an output lists the classes.
    lists_classes: bool,
    applied: Option<Applied>,
    embedding_rows: Option<usize>,
}

impl Schema {
    /// Reads it from the file and from a session.
    ///
    /// # Errors
    /// One sentence: which input or output this server cannot use, and how `model.toml` can help.
    pub(super) fn new(scan: &Scan<'_>, session: &Session, manifest: &Manifest) -> Result<Self, String> {
        let options = &manifest.options;
        let InputSchema { input, fixed } = InputSchema::new(session.inputs(), &options.inputs)?;
        let wanted = Wanted {
            output: options.output.as_deref(),
            labels: manifest.labels.as_ref().map(Vec::len),
            per_token: labels_tokens(manifest),
        };
        let scores = scores_output(session.outputs(), &input, wanted)?;
        let choice = choice_output(session.outputs(), &input);
        let choice_name = choice.as_ref().map(|choice| choice.name.as_str());
        let class_candidates = match &input {
            GraphInput::Texts { .. } => class_candidates(&scan.main, scores.output.name(), choice_name),
            GraphInput::Tokens(_) => Vec::new(),
        };
        let applied = match (&input, &scores.output) {
            (GraphInput::Tokens(_), Output::Tensor(name)) => last_activation(&scan.main, name, scores.rank),
            _ => None,
        };
        let embedding_rows = ids_of(&input).and_then(|name| embedding_rows(&scan.main, name));
        let lists_classes = session.outputs().iter().any(|output| output.name() == CLASS_LABELS);
        let classes = Classes::default();
        Ok(Self { input, fixed, scores, choice, class_candidates, classes, lists_classes, applied, embedding_rows })
    }

    /// How the outputs are read, as far as that is known before a first run.
    pub(super) fn reading(&self) -> Reading {
        Reading {
            input: self.input.clone(),
            fixed: self.fixed,
            output: self.scores.output.clone(),
            choice: None,
            width: self.scores.width.unwrap_or(0),
            per_token: self.scores.per_token,
        }
    }

    /// Finds in a first run what the graph leaves open: the number of scores, and the classes that an output lists.
    ///
    /// # Errors
    /// [`RunError`] if the graph fails.
    pub(super) fn complete(mut self, session: &mut OnnxSession, manifest: &Manifest) -> Result<Self, RunError> {
        if self.scores.width.is_none() {
            session.reading.width = session.probe()?;
        }
        let width = session.reading.width;
        if self.lists_classes {
            self.class_candidates.insert(0, session.listed_classes()?);
        }
        // One score stands for two classes. Others are classes of a part of the graph.
        let fits = |classes: &Classes| classes.len() == width || width == 1 && classes.len() == 2;
        self.classes = std::mem::take(&mut self.class_candidates).into_iter().find(fits).unwrap_or_default();
        // A map's scores come in the order of its keys, which need not be that of the graph.
        if matches!(self.scores.output, Output::Maps(..)) {
            self.classes.names.sort_unstable();
            self.classes.numbers.sort_unstable();
        }
        session.reading.choice = self.choice(manifest);
        Ok(self)
    }

    /// How the graph's own choice is read; `manifest` has the names where the graph has none.
    fn choice(&self, manifest: &Manifest) -> Option<Choice> {
        let output = self.choice.clone().filter(|choice| !choice.many)?;
        let Classes { names, numbers } = self.classes.clone();
        // A graph that names no classes chooses among those of labels.json.
        let names = if names.is_empty() { manifest.labels.clone().unwrap_or_default() } else { names };
        Some(Choice { output, names, numbers })
    }

    /// What the rest of the server needs to know.
    pub(super) fn signature(&self, width: usize, batch_dependent: bool) -> Signature {
        Signature {
            input: self.input.clone(),
            fixed: self.fixed,
            output: self.scores.output.name().to_owned(),
            scores: match (&self.input, self.applied) {
                (GraphInput::Tokens(_), None) => ScoreKind::Logits,
                _ => ScoreKind::Probabilities,
            },
            per_token: self.scores.per_token,
            applied: self.applied,
            width,
            batch_dependent,
            labels: Some(self.classes.names.clone()).filter(|labels| !labels.is_empty()),
            many_labels: self.choice.as_ref().is_some_and(|choice| choice.many),
            embedding_rows: self.embedding_rows,
        }
    }
}

/// Whether the files say that the model labels tokens, or texts.
fn labels_tokens(manifest: &Manifest) -> Option<bool> {
    let by_task = manifest.options.task.map(|task| task == Task::TokenClassification);
    let by_class = || manifest.config.architecture().map(|class| class.ends_with(OF_TOKENS));
    by_task.or_else(by_class)
}

/// Name of the input that takes token ids.
fn ids_of(input: &GraphInput) -> Option<&str> {
    match input {
        GraphInput::Texts { .. } => None,
        GraphInput::Tokens(inputs) => {
            inputs.iter().find(|input| input.role == TokenRole::InputIds).map(|input| input.name.as_str())
        }
    }
}
