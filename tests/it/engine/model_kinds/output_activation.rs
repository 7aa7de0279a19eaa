//! Graphs that apply a softmax or a sigmoid themselves: it is not applied again.

use serde_json::json;

use crate::support::answers::{label, labels, probabilities};
use crate::support::assertions::assert_near;
use crate::support::model_builder::onnx_graph::{Attribute, Dim, OnnxGraph};
use crate::support::model_builder::{ModelBuilder, TransformerBuilder};
use crate::support::model_server::ModelServer;

/// Logits (w - 5) / 100 and their negative for the sum w of a text's ids, and `last` after them.
fn two_label_model(last: fn(&mut OnnxGraph, &str) -> String) -> ModelBuilder {
    let logits = TransformerBuilder::new(&["input_ids"])
        .logit(&[("input_ids", 0.01), ("bias", -0.05)])
        .logit(&[("input_ids", -0.01), ("bias", 0.05)]);
    logits.output("answer", &[]).append_nodes(last).model().labels(&["a", "b"])
}

fn add_softmax(graph: &mut OnnxGraph, logits: &str) -> String {
    graph.node("Softmax", &[logits], &[("axis", Attribute::Int(1))])
}

fn add_sigmoid(graph: &mut OnnxGraph, logits: &str) -> String {
    graph.node("Sigmoid", &[logits], &[])
}

/// A softmax that no node names.
fn add_decomposed_softmax(graph: &mut OnnxGraph, logits: &str) -> String {
    let axis = graph.integers(&[1], &[1]);
    let powers = graph.node("Exp", &[logits], &[]);
    let sum = graph.node("ReduceSum", &[&powers, &axis], &[]);
    graph.node("Div", &[&powers, &sum], &[])
}

fn logistic(z: f64) -> f64 {
    1.0 / (1.0 + (-z).exp())
}

async fn predict_probabilities(served: &ModelServer, text: &str) -> Vec<f64> {
    probabilities(&served.predict_with(text, json!({ "return_probabilities": true })).await)
}

#[tokio::test]
async fn activation_softmax_in_graph_is_not_repeated() {
    for last in [add_softmax, add_decomposed_softmax] {
        let served = ModelServer::new(&two_label_model(last)).await;
        assert_near(&predict_probabilities(&served, "10").await, &[logistic(0.2), logistic(-0.2)]);
        let facts = served.model_info().await;
        assert_eq!((facts.activation.as_deref(), facts.graph_activation.as_deref()), (Some("none"), Some("softmax")));
        assert_eq!(facts.output, "answer");
    }
}

#[tokio::test]
async fn activation_default_is_applied_to_logits() {
    let served = ModelServer::new(&two_label_model(|_, logits| logits.to_owned())).await;
    assert_near(&predict_probabilities(&served, "10").await, &[logistic(0.2), logistic(-0.2)]);
    let facts = served.model_info().await;
    assert_eq!((facts.activation.as_deref(), facts.graph_activation.as_deref()), (Some("softmax"), None));
}

#[tokio::test]
async fn activation_sigmoid_in_graph_is_not_repeated() {
    let many = two_label_model(add_sigmoid).config("problem_type", json!("multi_label_classification"));
    let served = ModelServer::new(&many).await;
    assert_near(&predict_probabilities(&served, "10").await, &[logistic(0.1), logistic(-0.1)]);
    assert_eq!(labels(&served.predict("10").await), ["a"]);
    // One logit of a reranker.
    let one = TransformerBuilder::new(&["input_ids"])
        .logit(&[("input_ids", 0.01), ("bias", -0.05)])
        .append_nodes(add_sigmoid);
    let served = ModelServer::new(&one.model().config("problem_type", json!(null))).await;
    assert_near(&[served.score("10").await], &[logistic(0.1)]);
    assert_eq!(served.model_info().await.graph_activation.as_deref(), Some("sigmoid"));
    // One logit for two labels.
    let binary = TransformerBuilder::new(&["input_ids"])
        .logit(&[("input_ids", 0.01), ("bias", -0.05)])
        .append_nodes(add_sigmoid)
        .model();
    let served = ModelServer::new(&binary.labels(&["no", "yes"])).await;
    assert_near(&predict_probabilities(&served, "10").await, &[logistic(-0.1), logistic(0.1)]);
}

#[tokio::test]
async fn activation_softmax_over_batch_axis_is_ignored() {
    // Alone every score is 1: these are no probabilities of labels, and what a text gets depends on the batch.
    let over_rows = two_label_model(|graph, logits| graph.node("Softmax", &[logits], &[("axis", Attribute::Int(0))]));
    let facts = ModelServer::new(&over_rows).await.model_info().await;
    assert_eq!((facts.graph_activation.as_deref(), facts.shares_runs), (None, false));
}

#[tokio::test]
async fn activation_manifest_setting_wins() {
    let logits = |options: &str| two_label_model(|_, logits| logits.to_owned()).manifest_toml(options);
    let served = ModelServer::new(&logits("activation = \"sigmoid\"")).await;
    assert_near(&predict_probabilities(&served, "10").await, &[logistic(0.1), logistic(-0.1)]);
    // Against what the graph seems to do.
    let served = ModelServer::new(&two_label_model(add_softmax).manifest_toml("activation = \"softmax\"")).await;
    let twice = logistic(logistic(0.2) - logistic(-0.2));
    assert_near(&predict_probabilities(&served, "10").await, &[twice, 1.0 - twice]);
    assert_eq!(served.model_info().await.activation.as_deref(), Some("softmax"));
    // Logits are no probabilities: the warm-up finds that.
    let reason = crate::support::model_server::load_error(&logits("activation = \"none\"")).await;
    assert!(reason.contains("scores outside 0 to 1"), "{reason}");
    let reason = crate::support::model_server::load_error(&logits("activation = \"tanh\"")).await;
    assert!(reason.starts_with("model.toml: unknown variant `tanh`"), "{reason}");
}

#[tokio::test]
async fn activation_zero_shot_requires_logits() {
    let model = two_label_model(add_softmax).labels(&["entailment", "contradiction"]);
    let served = ModelServer::new(&model).await;
    let reply = served.server.post_json("/predict", json!({ "text": "10", "labels": ["20", "30"] })).await;
    assert_eq!(reply.status, 422, "{}", reply.body);
    assert!(reply.body.contains("labels of a request need a model that gives logits"), "{}", reply.body);
}

/// The second column of a softmax, as `softmax(-1)[:, 1]` is exported.
fn add_second_softmax_column(graph: &mut OnnxGraph, logits: &str) -> String {
    let probabilities = add_softmax(graph, logits);
    let second = graph.integers(&[1], &[1]);
    graph.node("Gather", &[&probabilities, &second], &[("axis", Attribute::Int(1))])
}

#[tokio::test]
async fn activation_softmax_column_is_second_label_probability() {
    let dims = [Dim::Open("batch"), Dim::Fixed(1)];
    let logits = TransformerBuilder::new(&["input_ids"])
        .logit(&[("input_ids", 0.01), ("bias", -0.05)])
        .logit(&[("input_ids", -0.01), ("bias", 0.05)]);
    let model = logits.output("answer", &dims).append_nodes(add_second_softmax_column).model().labels(&["a", "b"]);
    let served = ModelServer::new(&model).await;
    assert_near(&predict_probabilities(&served, "10").await, &[logistic(0.2), logistic(-0.2)]);
    assert_eq!(label(&served.predict("10").await), "a");
}

#[tokio::test]
async fn activation_clipped_or_rounded_is_not_repeated() {
    let clipped = two_label_model(|graph, logits| {
        let probabilities = add_sigmoid(graph, logits);
        let low = graph.floats(&[], &[1e-7]);
        let high = graph.floats(&[], &[0.999_999_9]);
        graph.node("Clip", &[&probabilities, &low, &high], &[])
    });
    let many = clipped.config("problem_type", json!("multi_label_classification"));
    let served = ModelServer::new(&many).await;
    assert_eq!(labels(&served.predict("10").await), ["a"]);
    let rounded = two_label_model(|graph, logits| {
        let probabilities = add_softmax(graph, logits);
        let scale = graph.floats(&[], &[1.0 / 64.0]);
        let zero = graph.node("Constant", &[], &[("value_int", Attribute::Int(0))]);
        let zero = graph.node("Cast", &[&zero], &[("to", Attribute::Int(2))]);
        let quantised = graph.node("QuantizeLinear", &[&probabilities, &scale, &zero], &[]);
        graph.node("DequantizeLinear", &[&quantised, &scale, &zero], &[])
    });
    let served = ModelServer::new(&rounded).await;
    assert_eq!(served.model_info().await.graph_activation.as_deref(), Some("softmax"));
    // To within a step of the quantisation.
    let found = predict_probabilities(&served, "10").await;
    assert!((found[0] - logistic(0.2)).abs() <= 1.0 / 64.0, "{found:?}");
}
