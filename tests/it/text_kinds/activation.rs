//! Graphs that apply a softmax or a sigmoid themselves: it is not applied again.

use serde_json::json;

use crate::fixture::onnx::{Attribute, Dim, Graph};
use crate::fixture::served::{Served, assert_near, numbers};
use crate::fixture::{Model, Transformer};

/// Logits (w - 5) / 100 and their negative for the sum w of a text's ids, and `last` after them.
fn two_labels(last: fn(&mut Graph, &str) -> String) -> Model {
    let logits = Transformer::new(&["input_ids"])
        .logit(&[("input_ids", 0.01), ("bias", -0.05)])
        .logit(&[("input_ids", -0.01), ("bias", 0.05)]);
    logits.output("answer", &[]).then(last).model().labels(&["a", "b"])
}

fn softmax(graph: &mut Graph, logits: &str) -> String {
    graph.node("Softmax", &[logits], &[("axis", Attribute::Int(1))])
}

fn sigmoid(graph: &mut Graph, logits: &str) -> String {
    graph.node("Sigmoid", &[logits], &[])
}

/// A softmax that no node names.
fn softmax_by_hand(graph: &mut Graph, logits: &str) -> String {
    let axis = graph.integers(&[1], &[1]);
    let powers = graph.node("Exp", &[logits], &[]);
    let sum = graph.node("ReduceSum", &[&powers, &axis], &[]);
    graph.node("Div", &[&powers, &sum], &[])
}

fn logistic(z: f64) -> f64 {
    1.0 / (1.0 + (-z).exp())
}

async fn probabilities(served: &Served, text: &str) -> Vec<f64> {
    numbers(&served.predict_with(text, json!({ "return_probabilities": true })).await["probabilities"])
}

#[tokio::test]
async fn softmax_in_the_graph_is_not_applied_again() {
    for last in [softmax, softmax_by_hand] {
        let served = Served::new(&two_labels(last)).await;
        assert_near(&probabilities(&served, "10").await, &[logistic(0.2), logistic(-0.2)]);
        let facts = served.facts().await;
        assert_eq!((&facts["activation"], &facts["graph_activation"]), (&json!("none"), &json!("softmax")), "{facts}");
        assert_eq!(facts["output"], "answer");
    }
}

#[tokio::test]
async fn logits_get_the_usual_activation() {
    let served = Served::new(&two_labels(|_, logits| logits.to_owned())).await;
    assert_near(&probabilities(&served, "10").await, &[logistic(0.2), logistic(-0.2)]);
    let facts = served.facts().await;
    assert_eq!((&facts["activation"], &facts["graph_activation"]), (&json!("softmax"), &json!(null)), "{facts}");
}

#[tokio::test]
async fn sigmoid_in_the_graph_is_not_applied_again() {
    let many = two_labels(sigmoid).config("problem_type", json!("multi_label_classification"));
    let served = Served::new(&many).await;
    assert_near(&probabilities(&served, "10").await, &[logistic(0.1), logistic(-0.1)]);
    assert_eq!(served.predict("10").await["prediction"], json!(["a"]));
    // One logit of a reranker.
    let one = Transformer::new(&["input_ids"]).logit(&[("input_ids", 0.01), ("bias", -0.05)]).then(sigmoid);
    let served = Served::new(&one.model().config("problem_type", json!(null))).await;
    assert_near(&[served.score("10").await], &[logistic(0.1)]);
    assert_eq!(served.facts().await["graph_activation"], "sigmoid");
    // One logit for two labels.
    let binary = Transformer::new(&["input_ids"]).logit(&[("input_ids", 0.01), ("bias", -0.05)]).then(sigmoid).model();
    let served = Served::new(&binary.labels(&["no", "yes"])).await;
    assert_near(&probabilities(&served, "10").await, &[logistic(-0.1), logistic(0.1)]);
}

#[tokio::test]
async fn softmax_over_the_rows_is_none_over_the_labels() {
    // Alone every score is 1: these are no probabilities of labels, and what a text gets depends on the batch.
    let over_rows = two_labels(|graph, logits| graph.node("Softmax", &[logits], &[("axis", Attribute::Int(0))]));
    let facts = Served::new(&over_rows).await.facts().await;
    assert_eq!((&facts["graph_activation"], &facts["shares_runs"]), (&json!(null), &json!(false)), "{facts}");
}

#[tokio::test]
async fn model_toml_names_the_activation() {
    let logits = |options: &str| two_labels(|_, logits| logits.to_owned()).options(options);
    let served = Served::new(&logits("activation = \"sigmoid\"")).await;
    assert_near(&probabilities(&served, "10").await, &[logistic(0.1), logistic(-0.1)]);
    // Against what the graph seems to do.
    let served = Served::new(&two_labels(softmax).options("activation = \"softmax\"")).await;
    let twice = logistic(logistic(0.2) - logistic(-0.2));
    assert_near(&probabilities(&served, "10").await, &[twice, 1.0 - twice]);
    assert_eq!(served.facts().await["activation"], "softmax");
    // Logits are no probabilities: the warm-up finds that.
    let reason = crate::fixture::served::refusal(&logits("activation = \"none\"")).await;
    assert!(reason.contains("scores outside 0 to 1"), "{reason}");
    let reason = crate::fixture::served::refusal(&logits("activation = \"tanh\"")).await;
    assert!(reason.starts_with("model.toml: unknown variant `tanh`"), "{reason}");
}

#[tokio::test]
async fn labels_of_a_request_need_logits() {
    let model = two_labels(softmax).labels(&["entailment", "contradiction"]);
    let served = Served::new(&model).await;
    let reply = served.server.ask("/predict", json!({ "text": "10", "labels": ["20", "30"] })).await;
    assert_eq!(reply.status, 422, "{}", reply.body);
    assert!(reply.body.contains("labels of a request need a model that gives logits"), "{}", reply.body);
}

/// The second column of a softmax, as `softmax(-1)[:, 1]` is exported.
fn second_of_softmax(graph: &mut Graph, logits: &str) -> String {
    let probabilities = softmax(graph, logits);
    let second = graph.integers(&[1], &[1]);
    graph.node("Gather", &[&probabilities, &second], &[("axis", Attribute::Int(1))])
}

#[tokio::test]
async fn column_of_a_softmax_is_the_probability_of_the_second_label() {
    let dims = [Dim::Open("batch"), Dim::Fixed(1)];
    let logits = Transformer::new(&["input_ids"])
        .logit(&[("input_ids", 0.01), ("bias", -0.05)])
        .logit(&[("input_ids", -0.01), ("bias", 0.05)]);
    let model = logits.output("answer", &dims).then(second_of_softmax).model().labels(&["a", "b"]);
    let served = Served::new(&model).await;
    assert_near(&probabilities(&served, "10").await, &[logistic(0.2), logistic(-0.2)]);
    assert_eq!(served.predict("10").await["prediction"], "a");
}

#[tokio::test]
async fn activations_that_are_cut_off_or_rounded_are_not_applied_again() {
    let clipped = two_labels(|graph, logits| {
        let probabilities = sigmoid(graph, logits);
        let (low, high) = (graph.floats(&[], &[1e-7]), graph.floats(&[], &[0.999_999_9]));
        graph.node("Clip", &[&probabilities, &low, &high], &[])
    });
    let many = clipped.config("problem_type", json!("multi_label_classification"));
    let served = Served::new(&many).await;
    assert_eq!(served.predict("10").await["prediction"], json!(["a"]));
    let rounded = two_labels(|graph, logits| {
        let probabilities = softmax(graph, logits);
        let scale = graph.floats(&[], &[1.0 / 64.0]);
        let zero = graph.node("Constant", &[], &[("value_int", Attribute::Int(0))]);
        let zero = graph.node("Cast", &[&zero], &[("to", Attribute::Int(2))]);
        let quantised = graph.node("QuantizeLinear", &[&probabilities, &scale, &zero], &[]);
        graph.node("DequantizeLinear", &[&quantised, &scale, &zero], &[])
    });
    let served = Served::new(&rounded).await;
    assert_eq!(served.facts().await["graph_activation"], "softmax");
    // To within a step of the quantisation.
    let found = probabilities(&served, "10").await;
    assert!((found[0] - logistic(0.2)).abs() <= 1.0 / 64.0, "{found:?}");
}
