//! The class that a scikit-learn graph chooses itself, and scores that are no probabilities.

use serde_json::json;

use crate::fixture::Model;
use crate::fixture::onnx::{Attribute, Dim, Element, Graph};
use crate::fixture::served::{Served, assert_near, numbers, refusal};

const OPEN: Dim = Dim::Open("batch");

/// Scores -2 and 2 for "good", passed through `transform`; the label is `ham`, whatever the scores say.
fn always_ham(transform: &str) -> Model {
    let mut graph = Graph::default();
    graph.input("text", Element::Text, &[OPEN]);
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
    graph.rename(&label, "label");
    graph.output("label", Element::Text, &[OPEN]);
    graph.rename(&outputs[1], "probabilities");
    graph.output("probabilities", Element::Float, &[OPEN, Dim::Fixed(2)]);
    Model::of_graph(&graph)
}

#[tokio::test]
async fn the_class_that_the_graph_chooses_is_the_answer() {
    let served = Served::new(&always_ham("SOFTMAX")).await;
    let answer = served.predict_with("good", json!({ "return_probabilities": true })).await;
    let low = 1.0 / (1.0 + 4_f64.exp());
    assert_near(&numbers(&answer["probabilities"]), &[low, 1.0 - low]);
    assert_eq!(answer["prediction"], "ham", "the largest probability is that of spam");
    assert_near(&[answer["confidence"].as_f64().unwrap()], &[low]);
}

#[tokio::test]
async fn decision_values_are_not_served_as_probabilities() {
    let golden = json!({ "examples": [{ "text": "good", "label": "ham" }] }).to_string();
    let reason = refusal(&always_ham("NONE").file("golden.json", golden)).await;
    assert!(reason.contains("outside 0 to 1"), "{reason}");
}
