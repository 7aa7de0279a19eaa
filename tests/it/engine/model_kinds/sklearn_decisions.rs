//! The class that a scikit-learn graph chooses itself, and scores that are no probabilities.

use serde_json::json;

use crate::support::answers::{confidence, label, probabilities};
use crate::support::assertions::assert_near;
use crate::support::model_builder::ModelBuilder;
use crate::support::model_builder::onnx_graph::{Attribute, Dim, ElementType, OnnxGraph};
use crate::support::model_server::{ModelServer, load_error};

const BATCH_DIM: Dim = Dim::Open("batch");

/// Scores -2 and 2 for "good", passed through `transform`; the label is `ham`, whatever the scores say.
fn constant_label_model(transform: &str) -> ModelBuilder {
    let mut graph = OnnxGraph::default();
    graph.input("text", ElementType::Text, &[BATCH_DIM]);
    let word = |values: (&'static str, Attribute<'static>)| [("keys_strings", Attribute::Texts(&["good"])), values];
    let score = graph.node("ai.onnx.ml.LabelEncoder", &["text"], &word(("values_floats", Attribute::Floats(&[2.0]))));
    let axis = graph.integers(&[1], &[1]);
    let column = graph.node("Unsqueeze", &[&score, &axis], &[]);
    let linear = [
        ("coefficients", Attribute::Floats(&[-1.0, 1.0])),
        ("intercepts", Attribute::Floats(&[0.0, 0.0])),
        ("post_transform", Attribute::Text(transform)),
        ("classlabels_strings", Attribute::Texts(&["ham", "spam"])),
    ];
    let outputs = graph.node_with("ai.onnx.ml.LinearClassifier", &[&column], &linear, 2);
    let ham = word(("values_strings", Attribute::Texts(&["ham"])));
    let label = graph.node("ai.onnx.ml.LabelEncoder", &["text"], &ham);
    graph.rename_value(&label, "label");
    graph.output("label", ElementType::Text, &[BATCH_DIM]);
    graph.rename_value(&outputs[1], "probabilities");
    graph.output("probabilities", ElementType::Float, &[BATCH_DIM, Dim::Fixed(2)]);
    ModelBuilder::from_graph(&graph)
}

#[tokio::test]
async fn sklearn_label_chosen_by_graph_is_the_answer() {
    let served = ModelServer::new(&constant_label_model("SOFTMAX")).await;
    let answer = served.predict_with("good", json!({ "return_probabilities": true })).await;
    let low = 1.0 / (1.0 + 4_f64.exp());
    assert_near(&probabilities(&answer), &[low, 1.0 - low]);
    assert_eq!(label(&answer), "ham", "the largest probability is that of spam");
    assert_near(&[confidence(&answer)], &[low]);
}

#[tokio::test]
async fn sklearn_decision_values_are_not_probabilities() {
    let golden = json!({ "examples": [{ "text": "good", "label": "ham" }] }).to_string();
    let reason = load_error(&constant_label_model("NONE").file("golden.json", golden)).await;
    assert!(reason.contains("outside 0 to 1"), "{reason}");
}
