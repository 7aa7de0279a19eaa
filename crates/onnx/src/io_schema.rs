//! What a graph takes and gives: found in its file, in what the runtime says of it, and in a first run.

use ort::session::Session;
use predictd_engine::backend::BackendError;
use predictd_text::activation::AppliedActivation;
use predictd_text::manifest::{Manifest, Task};
use predictd_text::signature::{FixedAxes, GraphInput, ScoreKind, Signature, TokenRole};

use super::graph_analysis::{ClassList, class_candidates, embedding_rows, last_activation};
use super::graph_scan::GraphScan;
use super::input_schema::InputSchema;
use super::output_reader::LabelDecoder;
use super::output_schema::{
    CLASS_LABELS_OUTPUT, LabelOutput, OutputConstraints, ScoreLayout, ScoreOutput, find_label_output, find_score_output,
};
use super::session::{IoSpec, OnnxSession};

/// Ending of the class of `transformers` whose models label tokens.
const TOKEN_CLASSIFICATION_SUFFIX: &str = "ForTokenClassification";

/// What a graph takes and gives.
#[derive(Debug, Clone)]
pub(super) struct IoSchema {
    input: GraphInput,
    fixed_axes: FixedAxes,
    scores: ScoreOutput,
    label_output: Option<LabelOutput>,
    class_candidates: Vec<ClassList>,
    /// Its classes, where it names any; known after a first run.
    classes: ClassList,
    /// True if an output lists the classes.
    lists_classes: bool,
    applied_activation: Option<AppliedActivation>,
    embedding_rows: Option<usize>,
}

impl IoSchema {
    /// Reads it from the file and from a session.
    ///
    /// # Errors
    /// One sentence: which input or output this server cannot use, and how `model.toml` can help.
    pub(super) fn new(scan: &GraphScan, session: &Session, manifest: &Manifest) -> Result<Self, String> {
        let options = &manifest.options;
        let InputSchema { input, fixed_axes: fixed } = InputSchema::new(session.inputs(), &options.inputs)?;
        let constraints = OutputConstraints {
            output_name: options.output.as_deref(),
            label_count: manifest.labels.as_ref().map(Vec::len),
            per_token: declared_per_token(manifest),
        };
        let scores = find_score_output(session.outputs(), &input, constraints)?;
        let choice = find_label_output(session.outputs(), &input);
        let choice_name = choice.as_ref().map(|choice| choice.name.as_str());
        let class_candidates = match &input {
            GraphInput::Texts { .. } => class_candidates(&scan.main_graph, scores.layout.name(), choice_name),
            GraphInput::Tokens(_) => Vec::new(),
        };
        let applied = match (&input, &scores.layout) {
            (GraphInput::Tokens(_), ScoreLayout::Tensor(name)) => last_activation(&scan.main_graph, name, scores.rank),
            _ => None,
        };
        let embedding_rows = input_ids_name(&input).and_then(|name| embedding_rows(&scan.main_graph, name));
        let lists_classes = session.outputs().iter().any(|output| output.name() == CLASS_LABELS_OUTPUT);
        let classes = ClassList::default();
        Ok(Self {
            input,
            fixed_axes: fixed,
            scores,
            label_output: choice,
            class_candidates,
            classes,
            lists_classes,
            applied_activation: applied,
            embedding_rows,
        })
    }

    /// How the outputs are read, as far as that is known before a first run.
    pub(super) fn io_spec(&self) -> IoSpec {
        IoSpec {
            input: self.input.clone(),
            fixed_axes: self.fixed_axes,
            score_layout: self.scores.layout.clone(),
            label_decoder: None,
            width: self.scores.width.unwrap_or(0),
            per_token: self.scores.per_token,
        }
    }

    /// Finds in a first run what the graph leaves open: the number of scores, and the classes that an output lists.
    ///
    /// # Errors
    /// [`BackendError`] if the graph fails.
    pub(super) fn complete(mut self, session: &mut OnnxSession, manifest: &Manifest) -> Result<Self, BackendError> {
        if self.scores.width.is_none() {
            session.io_spec.width = session.probe_width()?;
        }
        let width = session.io_spec.width;
        if self.lists_classes {
            self.class_candidates.insert(0, session.probe_class_list()?);
        }
        // One score stands for two classes. Others are classes of a part of the graph.
        let fits = |classes: &ClassList| classes.len() == width || width == 1 && classes.len() == 2;
        self.classes = std::mem::take(&mut self.class_candidates).into_iter().find(fits).unwrap_or_default();
        // A map's scores come in the order of its keys, which need not be that of the graph.
        if matches!(self.scores.layout, ScoreLayout::Maps(..)) {
            self.classes.names.sort_unstable();
            self.classes.numbers.sort_unstable();
        }
        session.io_spec.label_decoder = self.label_decoder(manifest);
        Ok(self)
    }

    /// How the graph's own choice is read; `manifest` has the names where the graph has none.
    fn label_decoder(&self, manifest: &Manifest) -> Option<LabelDecoder> {
        let output = self.label_output.clone().filter(|choice| !choice.is_multi_label)?;
        let ClassList { names, numbers } = self.classes.clone();
        // A graph that names no classes chooses among those of labels.json.
        let names = if names.is_empty() { manifest.labels.clone().unwrap_or_default() } else { names };
        Some(LabelDecoder { label_output: output, class_names: names, class_numbers: numbers })
    }

    /// What the rest of the server needs to know.
    pub(super) fn signature(&self, width: usize, batch_dependent: bool) -> Signature {
        Signature {
            input: self.input.clone(),
            fixed_axes: self.fixed_axes,
            output_name: self.scores.layout.name().to_owned(),
            score_kind: match (&self.input, self.applied_activation) {
                (GraphInput::Tokens(_), None) => ScoreKind::Logits,
                _ => ScoreKind::Probabilities,
            },
            per_token: self.scores.per_token,
            applied_activation: self.applied_activation,
            width,
            batch_dependent,
            labels: Some(self.classes.names.clone()).filter(|labels| !labels.is_empty()),
            is_multi_label: self.label_output.as_ref().is_some_and(|choice| choice.is_multi_label),
            embedding_rows: self.embedding_rows,
        }
    }
}

/// Whether the files say that the model labels tokens, or texts.
fn declared_per_token(manifest: &Manifest) -> Option<bool> {
    let by_task = manifest.options.task.map(|task| task == Task::TokenClassification);
    let by_class = || manifest.config.architecture().map(|class| class.ends_with(TOKEN_CLASSIFICATION_SUFFIX));
    by_task.or_else(by_class)
}

/// Name of the input that takes token ids.
fn input_ids_name(input: &GraphInput) -> Option<&str> {
    match input {
        GraphInput::Texts { .. } => None,
        GraphInput::Tokens(inputs) => {
            inputs.iter().find(|input| input.role == TokenRole::InputIds).map(|input| input.name.as_str())
        }
    }
}
