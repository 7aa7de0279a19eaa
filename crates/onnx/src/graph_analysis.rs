//! What a graph file says about its scores, its classes and its vocabulary.

use predictd_text::activation::{Activation, AppliedActivation};

use super::graph::{Constant, MainGraph, utf8_strings};
use super::proto::NodeProto;

/// Most nodes between the scores and the classifier that names their classes.
const MAX_TRACE_STEPS: usize = 64;

/// The activation that the graph applies to a value, softmax over the last axis or sigmoid, with nothing after it but
/// nodes that select, round or reshape.
pub(super) fn last_activation(graph: &MainGraph, output: &str, rank: usize) -> Option<AppliedActivation> {
    let nearest = graph.trace_back(output);
    let source = graph.trace_back_while(output, |node| node.is_passthrough() || node.is_selection());
    let node = graph.producer(source)?;
    let activation = match node.op_type.as_str() {
        "Sigmoid" | "QLinearSigmoid" | "HardSigmoid" => Activation::Sigmoid,
        "Softmax" | "QLinearSoftmax" => Activation::Softmax,
        _ => return None,
    };
    let is_whole = nearest == source && !node.op_type.starts_with("QLinear");
    // Without the attribute it is the last axis, and was the second one up to opset 12.
    let axis = node.integer_attribute("axis");
    let last = i64::try_from(rank).ok()? - 1;
    let over_labels = axis.is_none_or(|axis| axis == -1 || axis == last || !is_whole);
    (activation == Activation::Sigmoid || over_labels).then_some(AppliedActivation { activation, is_exact: is_whole })
}

/// Rows of the table in which the graph looks up token ids: the smallest where there are several.
pub(super) fn embedding_rows(graph: &MainGraph, input_ids: &str) -> Option<usize> {
    let tables = graph.nodes.iter().filter_map(|node| {
        let (table, ids) = match node.op_type.as_str() {
            "Gather" | "GatherBlockQuantized" if gathers_rows(node) => (node.input.first()?, node.input.get(1)?),
            // Of ONNX Runtime's own: ids, segments, words, ...
            "EmbedLayerNormalization" | "QEmbedLayerNormalization" => (node.input.get(2)?, node.input.first()?),
            _ => return None,
        };
        if graph.trace_back(ids) != input_ids {
            return None;
        }
        let table = graph.constant(graph.trace_back(table))?;
        table.tensor.dims.first().and_then(|&rows| usize::try_from(rows).ok())
    });
    tables.min()
}

/// Whether the axis, which need not be said, is the first one.
fn gathers_rows(node: &NodeProto) -> bool {
    ["axis", "gather_axis"].iter().find_map(|name| node.integer_attribute(name)).unwrap_or(0) == 0
}

/// Classes in the order of their scores, by name or by number.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct ClassList {
    /// Names; none where the classes are numbers.
    pub(super) names: Vec<String>,
    /// Numbers; none where the classes have names, or are the columns' own numbers.
    pub(super) numbers: Vec<i64>,
}

impl ClassList {
    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.names.len().max(self.numbers.len())
    }

    fn from_constant(table: &Constant) -> Option<Self> {
        if let Some(names) = table.strings() {
            return Some(Self { names, numbers: Vec::new() });
        }
        table.integers().filter(|numbers| !numbers.is_empty()).map(|numbers| Self { names: Vec::new(), numbers })
    }

    fn from_node(node: &NodeProto) -> Option<Self> {
        let mut classes = Self::default();
        for attribute in node.attributes().filter_map(Result::ok) {
            match attribute.name.as_str() {
                "classlabels_ints" | "classlabels_int64s" => classes.numbers = attribute.ints,
                "classlabels_strings" => classes.names = utf8_strings(&attribute.strings)?,
                _ => {}
            }
        }
        (classes.len() > 0).then_some(classes)
    }
}

/// What could be the classes of a scikit-learn graph, the likeliest first: those of `ZipMap`, those that its choice (the
/// output that names a class for each text) comes from, and those of its classifiers.
pub(super) fn class_candidates(graph: &MainGraph, scores: &str, choice: Option<&str>) -> Vec<ClassList> {
    let zip_map = graph.producer(scores).filter(|node| node.op_type == "ZipMap").and_then(ClassList::from_node);
    let of_choice = choice.and_then(|choice| trace_label_classes(graph, choice));
    zip_map.into_iter().chain(of_choice).chain(unanimous_classes(graph)).collect()
}

/// Follows the choice back to the table of classes that it is taken from.
fn trace_label_classes(graph: &MainGraph, choice: &str) -> Option<ClassList> {
    let mut value = choice;
    for _ in 0..MAX_TRACE_STEPS {
        let node = graph.producer(graph.trace_back(value))?;
        if let Some(classes) = ClassList::from_node(node) {
            return Some(classes);
        }
        match node.op_type.as_str() {
            "ArrayFeatureExtractor" | "Gather" => {
                let table = node.input.first()?;
                return ClassList::from_constant(&graph.constant(graph.trace_back(table))?);
            }
            "LabelEncoder" => {
                if let Some(names) = label_encoder_names(node) {
                    return Some(ClassList { names, numbers: Vec::new() });
                }
                value = node.input.first()?;
            }
            _ => return None,
        }
    }
    None
}

/// The names that a `LabelEncoder` gives to numbers, in the order of the numbers.
fn label_encoder_names(node: &NodeProto) -> Option<Vec<String>> {
    let names = utf8_strings(&node.find_attribute("values_strings")?.strings).filter(|names| !names.is_empty())?;
    let numbers = node.find_attribute("keys_int64s").map(|keys| keys.ints).unwrap_or_default();
    let mut pairs: Vec<_> = names.into_iter().enumerate().map(|(index, name)| (numbers.get(index), name)).collect();
    pairs.sort_by_key(|(number, _)| *number);
    Some(pairs.into_iter().map(|(_, name)| name).collect())
}

/// The classes that all classifiers of the graph agree on.
fn unanimous_classes(graph: &MainGraph) -> Option<ClassList> {
    let mut all = graph.nodes.iter().filter_map(ClassList::from_node);
    let first = all.next()?;
    all.all(|classes| classes == first).then_some(first)
}
