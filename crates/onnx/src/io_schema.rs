//! What a graph takes and gives: found in its file, in what the runtime says of it, and in a first run.

use ort::session::Session;
use predictd_engine::backend::BackendError;
use predictd_text::activation::AppliedActivation;
use predictd_text::manifest::{Manifest, Task};
use predictd_text::signature::{GraphInput, ScoreKind, Signature, TokenRole};

use super::graph_analysis::{ClassList, class_candidates, embedding_rows, last_activation};
use super::graph_scan::GraphScan;
use super::input_schema::InputSchema;
use super::output_reader::LabelDecoder;
use super::output_schema::{
    CLASS_LABELS_OUTPUT, LabelOutput, OutputConstraints, ScoreLayout, find_label_output, find_score_output,
};
use super::session::{IoSpec, OnnxSession};

/// Ending of the class of `transformers` whose models label tokens.
const TOKEN_CLASSIFICATION_SUFFIX: &str = "ForTokenClassification";

/// What a graph takes and gives.
pub(super) struct IoSchema {
    /// How the outputs are read, as far as that is known before a first run.
    pub(super) io_spec: IoSpec,
    label_output: Option<LabelOutput>,
    class_candidates: Vec<ClassList>,
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
        let InputSchema { input, fixed_axes } = InputSchema::new(session.inputs(), &options.inputs)?;
        let constraints = OutputConstraints {
            output_name: options.output.as_deref(),
            label_count: manifest.labels.as_ref().map(Vec::len),
            per_token: declared_per_token(manifest),
        };
        let scores = find_score_output(session.outputs(), &input, constraints)?;
        let label_output = find_label_output(session.outputs(), &input);
        let choice = label_output.as_ref().map(|output| output.name.as_str());
        let graph = &scan.main_graph;
        let (class_candidates, ids) = match &input {
            GraphInput::Texts { .. } => (class_candidates(graph, scores.layout.name(), choice), None),
            GraphInput::Tokens(inputs) => (Vec::new(), inputs.iter().find(|input| input.role == TokenRole::InputIds)),
        };
        let embedding_rows = ids.and_then(|input| embedding_rows(graph, &input.name));
        let applied_activation = match (&input, &scores.layout) {
            (GraphInput::Tokens(_), ScoreLayout::Tensor(name)) => last_activation(graph, name, scores.rank),
            _ => None,
        };
        Ok(Self {
            io_spec: IoSpec {
                input,
                fixed_axes,
                score_layout: scores.layout,
                label_decoder: None,
                width: scores.width.unwrap_or(0),
                per_token: scores.per_token,
            },
            label_output,
            class_candidates,
            lists_classes: session.outputs().iter().any(|output| output.name() == CLASS_LABELS_OUTPUT),
            applied_activation,
            embedding_rows,
        })
    }

    /// Finds in a first run what the graph leaves open: the number of scores, and the classes that an output lists. Returns
    /// what the rest of the server needs to know.
    ///
    /// # Errors
    /// [`BackendError`] if the graph fails.
    pub(super) fn complete(
        self,
        session: &mut OnnxSession,
        manifest: &Manifest,
        batch_dependent: bool,
    ) -> Result<Signature, BackendError> {
        if session.io_spec.width == 0 {
            session.io_spec.width = session.probe_width()?;
        }
        let width = session.io_spec.width;
        let listed = self.lists_classes.then(|| session.probe_class_list()).transpose()?;
        // One score stands for two classes. Others are classes of a part of the graph.
        let fits = |classes: &ClassList| classes.len() == width || width == 1 && classes.len() == 2;
        let mut classes = listed.into_iter().chain(self.class_candidates).find(fits).unwrap_or_default();
        let IoSpec { input, fixed_axes, score_layout, per_token, .. } = self.io_spec;
        // A map's scores come in the order of its keys, which need not be that of the graph.
        if matches!(score_layout, ScoreLayout::Maps(..)) {
            classes.names.sort_unstable();
            classes.numbers.sort_unstable();
        }
        let labels = Some(classes.names.clone()).filter(|labels| !labels.is_empty());
        let is_multi_label = self.label_output.as_ref().is_some_and(|choice| choice.is_multi_label);
        if let Some(LabelOutput { name, is_multi_label: false }) = self.label_output {
            // A graph that names no classes chooses among those of labels.json.
            if classes.names.is_empty() {
                classes.names = manifest.labels.clone().unwrap_or_default();
            }
            session.io_spec.label_decoder = Some(LabelDecoder { output_name: name, classes });
        }
        Ok(Signature {
            output_name: score_layout.name().to_owned(),
            score_kind: match (&input, self.applied_activation) {
                (GraphInput::Tokens(_), None) => ScoreKind::Logits,
                _ => ScoreKind::Probabilities,
            },
            input,
            fixed_axes,
            per_token,
            applied_activation: self.applied_activation,
            width,
            batch_dependent,
            labels,
            is_multi_label,
            embedding_rows: self.embedding_rows,
        })
    }
}

/// Whether the files say that the model labels tokens, or texts.
fn declared_per_token(manifest: &Manifest) -> Option<bool> {
    let by_task = manifest.options.task.map(|task| task == Task::TokenClassification);
    by_task.or_else(|| manifest.config.architecture().map(|class| class.ends_with(TOKEN_CLASSIFICATION_SUFFIX)))
}
