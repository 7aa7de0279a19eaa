//! Which outputs hold the scores, and which the graph's own choice of a class.

use ort::value::{Outlet, TensorElementType, ValueType};
use predictd_text::signature::GraphInput;

/// Names that exporters give to hidden states and other outputs that are no scores.
const NON_SCORE_OUTPUT_NAMES: [&str; 12] = [
    "last_hidden_state",
    "hidden_state",
    "pooler_output",
    "pooled_output",
    "sentence_embedding",
    "token_embedding",
    "attention",
    "cross_attention",
    "encoder_",
    "decoder_",
    "past_key_values",
    "present",
];
/// Names that exporters give to scores.
const SCORE_OUTPUT_NAMES: [&str; 6] = ["logits", "scores", "probabilities", "output_probability", "output", "output_0"];

/// What the labels of a model need of an output.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct OutputConstraints<'a> {
    /// Name of the output, where `model.toml` names it.
    pub(super) output_name: Option<&'a str>,
    /// How many labels there are, where the files say.
    pub(super) label_count: Option<usize>,
    /// True for a model that labels tokens, false for one that labels texts.
    pub(super) per_token: Option<bool>,
}

/// Where the scores are.
#[derive(Debug, Clone)]
pub(super) enum ScoreLayout {
    /// A float tensor of shape `[n, width]`, `[n]`, `[n, 1, width]`, or `[n, tokens, width]`.
    Tensor(String),
    /// ZipMap: one map from class to probability per text. True if the classes are text.
    Maps(String, bool),
    /// ZipMap with columns: a float tensor of shape `[n]` for each class.
    Columns(Vec<String>),
    /// A sequence of float tensors of shape `[n, 2]`: no and yes for each label.
    Sequence(String),
}

impl ScoreLayout {
    /// Its name: that of its first column.
    pub(super) fn name(&self) -> &str {
        match self {
            Self::Tensor(name) | Self::Maps(name, _) | Self::Sequence(name) => name,
            Self::Columns(names) => names.first().map_or("", String::as_str),
        }
    }
}

/// The output of the scores.
pub(super) struct ScoreOutput {
    pub(super) layout: ScoreLayout,
    /// Axes that the graph declares.
    pub(super) rank: usize,
    /// True if there are scores for each token.
    pub(super) per_token: bool,
    /// Scores per text or token, where the graph fixes it.
    pub(super) width: Option<usize>,
}

/// The output in which a graph names the class it chose.
pub(super) struct LabelOutput {
    /// Its name.
    pub(super) name: String,
    /// True if it holds any number of classes per text.
    pub(super) is_multi_label: bool,
}

/// The `label` output of a scikit-learn graph: text or class numbers.
pub(super) fn find_label_output(outputs: &[Outlet], input: &GraphInput) -> Option<LabelOutput> {
    if matches!(input, GraphInput::Tokens(_)) {
        return None;
    }
    outputs.iter().find(|outlet| is_label_output(outlet)).map(|outlet| LabelOutput {
        name: outlet.name().to_owned(),
        is_multi_label: outlet
            .dtype()
            .tensor_shape()
            .is_some_and(|shape| matches!(shape[..], [_, classes] if classes != 1)),
    })
}

fn is_label_output(outlet: &Outlet) -> bool {
    matches!(outlet.dtype().tensor_type(), Some(TensorElementType::String | TensorElementType::Int64))
        && outlet.name() != CLASS_LABELS_OUTPUT
}

/// Output in which `skl2onnx` lists the classes, if it is asked to.
pub(super) const CLASS_LABELS_OUTPUT: &str = "class_labels";

/// Chooses the output that holds the scores.
///
/// # Errors
/// One sentence that names the outputs there are.
pub(super) fn find_score_output(
    outputs: &[Outlet],
    input: &GraphInput,
    constraints: OutputConstraints<'_>,
) -> Result<ScoreOutput, String> {
    let of_texts = matches!(input, GraphInput::Texts { .. });
    let is_candidate = |outlet: &&Outlet| constraints.output_name.is_none_or(|name| outlet.name() == name);
    let candidates: Vec<&Outlet> = outputs.iter().filter(is_candidate).collect();
    if candidates.is_empty()
        && let Some(name) = constraints.output_name
    {
        return Err(format!(
            "model.toml: output names {name:?}, but the graph's outputs are {}",
            describe_outputs(outputs)
        ));
    }
    if of_texts && let Some(found) = classifier_output(&candidates, constraints) {
        return Ok(found);
    }
    let tensors = candidates.iter().filter(|outlet| is_float(outlet));
    let mut found: Vec<ScoreOutput> = tensors.filter_map(|outlet| tensor_output(outlet, of_texts)).collect();
    if found.is_empty() {
        return Err(format!(
            "it has no output of one row of float scores per text or token; its outputs are {}",
            describe_outputs(outputs)
        ));
    }
    if constraints.output_name.is_none() {
        if !retain_if_any(&mut found, |scores| !is_hidden_state(scores.layout.name())) {
            let names: Vec<&str> = found.iter().map(|scores| scores.layout.name()).collect();
            return Err(format!(
                "its outputs {names:?} are hidden states, not scores: the model has no classification head. Export the model with its head; if one of them holds scores, say which with output = \"NAME\" in model.toml"
            ));
        }
        if let Some(per_token) = constraints.per_token {
            retain_if_any(&mut found, |scores| scores.per_token == per_token);
        }
        retain_if_any(&mut found, |scores| constraints.accepts_width(scores.width));
        // A model of which nothing is said labels texts, if it has scores for texts.
        retain_if_any(&mut found, |scores| scores.per_token == constraints.per_token.unwrap_or(false));
        for name in SCORE_OUTPUT_NAMES {
            if retain_if_any(&mut found, |scores| scores.layout.name() == name) {
                break;
            }
        }
    }
    match (found.pop(), &found[..]) {
        (Some(only), []) => Ok(only),
        _ => Err(format!(
            "several of its outputs could be the scores: {}; say which with output = \"NAME\" in model.toml",
            describe_outputs(outputs)
        )),
    }
}

impl OutputConstraints<'_> {
    fn accepts_width(&self, width: Option<usize>) -> bool {
        match (self.label_count, width) {
            (Some(labels), Some(width)) => labels == width || width == 1 && labels <= 2,
            _ => true,
        }
    }
}

/// Keeps the outputs that meet a condition, where there are any; false if there are none.
fn retain_if_any(found: &mut Vec<ScoreOutput>, condition: impl Fn(&ScoreOutput) -> bool) -> bool {
    let any = found.iter().any(&condition);
    if any {
        found.retain(condition);
    }
    any
}

fn is_hidden_state(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    NON_SCORE_OUTPUT_NAMES.iter().any(|hidden| name.starts_with(hidden))
}

fn describe_outputs(outputs: &[Outlet]) -> String {
    let described: Vec<String> = outputs
        .iter()
        .map(|outlet| match outlet.dtype() {
            ValueType::Tensor { ty, shape, .. } => format!("{:?} ({ty} {:?})", outlet.name(), &shape[..]),
            other => format!("{:?} ({other})", outlet.name()),
        })
        .collect();
    described.join(", ")
}

fn is_float(outlet: &Outlet) -> bool {
    matches!(outlet.dtype().tensor_type(), Some(TensorElementType::Float32 | TensorElementType::Float16))
}

fn tensor_shape(outlet: &Outlet) -> Vec<i64> {
    outlet.dtype().tensor_shape().map(|shape| shape.to_vec()).unwrap_or_default()
}

/// A tensor that could hold the scores, by its shape.
fn tensor_output(outlet: &Outlet, of_texts: bool) -> Option<ScoreOutput> {
    let shape = tensor_shape(outlet);
    let (per_token, width) = match shape[..] {
        [_] if !of_texts => (false, 1),
        [_, width] | [_, 1, width] => (false, width),
        [_, _, width] if !of_texts => (true, width),
        _ => return None,
    };
    let width = usize::try_from(width).ok().filter(|&width| width > 0);
    Some(ScoreOutput { layout: ScoreLayout::Tensor(outlet.name().to_owned()), rank: shape.len(), per_token, width })
}

/// The forms in which only classifiers of scikit-learn give their probabilities.
fn classifier_output(outputs: &[&Outlet], constraints: OutputConstraints<'_>) -> Option<ScoreOutput> {
    for outlet in outputs {
        let ValueType::Sequence(inner) = outlet.dtype() else { continue };
        match &**inner {
            ValueType::Map { key, value: TensorElementType::Float32 } => {
                let layout = ScoreLayout::Maps(outlet.name().to_owned(), *key == TensorElementType::String);
                return Some(classifier_scores(layout, None));
            }
            ValueType::Tensor { ty: TensorElementType::Float32, .. } => {
                return Some(classifier_scores(ScoreLayout::Sequence(outlet.name().to_owned()), None));
            }
            _ => {}
        }
    }
    let floats: Vec<&&Outlet> = outputs.iter().filter(|outlet| is_float(outlet)).collect();
    let are_columns = floats.len() > 1 && floats.iter().all(|outlet| matches!(tensor_shape(outlet)[..], [_] | [_, 1]));
    if constraints.output_name.is_none() && are_columns {
        let names = floats.iter().map(|outlet| outlet.name().to_owned()).collect();
        return Some(classifier_scores(ScoreLayout::Columns(names), Some(floats.len())));
    }
    None
}

fn classifier_scores(layout: ScoreLayout, width: Option<usize>) -> ScoreOutput {
    ScoreOutput { layout, rank: 2, per_token: false, width }
}
