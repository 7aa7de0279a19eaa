//! Graphs within a graph: the branches of an `If`. Each has constants of its own, whatever their names.

use crate::support::answers::{item_answer, label};
use crate::support::assertions::assert_near;
use crate::support::model_builder::ModelBuilder;
use crate::support::model_builder::onnx_graph::{Attribute, Dim, ElementType, OnnxGraph};
use crate::support::model_server::ModelServer;

/// `x` times a constant, as the graph's only node.
fn scaling_branch(factors: [f32; 2]) -> OnnxGraph {
    let mut graph = OnnxGraph::default();
    let factors = graph.floats(&[1, 2], &factors);
    let scores = graph.node("MatMul", &["x", &factors], &[]);
    graph.output(&scores, ElementType::Float, &[]);
    graph
}

/// The sum of a text's ids as the first score, or as the second if it has a word above 50. Both branches, and the main
/// graph if `outer`, hold a constant of the same name and shape.
fn model_with_branches(outer: bool) -> ModelBuilder {
    let mut graph = OnnxGraph::default();
    if outer {
        let unused = graph.floats(&[1, 2], &[7.0, 7.0]);
        assert_eq!(unused, "constant_1");
    }
    graph.input("input_ids", ElementType::Int64, &[Dim::Open("batch"), Dim::Open("sequence")]);
    let ids = graph.node("Cast", &["input_ids"], &[("to", Attribute::Int(1))]);
    let axis = graph.integers(&[1], &[1]);
    let sum = graph.node("ReduceSum", &[&ids, &axis], &[]);
    if outer {
        // The main graph reads its own constant, too.
        let sevens = graph.node("MatMul", &[&sum, "constant_1"], &[]);
        let nothing = graph.floats(&[2, 1], &[0.0, 0.0]);
        let nothing = graph.node("MatMul", &[&sevens, &nothing], &[]);
        let sum = graph.node("Add", &[&sum, &nothing], &[]);
        graph.rename_value(&sum, "x");
    } else {
        graph.rename_value(&sum, "x");
    }
    let largest = graph.node("ReduceMax", &["input_ids"], &[("keepdims", Attribute::Int(0))]);
    let fifty = graph.integers(&[], &[50]);
    let above = graph.node("Greater", &[&largest, &fifty], &[]);
    let then = scaling_branch([0.0, 1.0]);
    let otherwise = scaling_branch([1.0, 0.0]);
    let branches = [("then_branch", Attribute::Body(&then)), ("else_branch", Attribute::Body(&otherwise))];
    let scores = graph.node("If", &[&above], &branches);
    graph.rename_value(&scores, "logits");
    graph.output("logits", ElementType::Float, &[Dim::Open("batch"), Dim::Fixed(2)]);
    ModelBuilder::from_graph(&graph).tokenizer(|_| ()).labels(&["a", "b"])
}

/// The sum of a text's ids, and three times as much, by a loop whose body holds a constant of the same name and shape as
/// one of the main graph.
fn model_with_loop() -> ModelBuilder {
    let mut body = OnnxGraph::default();
    let factors = body.floats(&[2, 2], &[1.0, 0.0, 0.0, 3.0]);
    body.input("turn", ElementType::Int64, &[]);
    body.input("going", ElementType::Bool, &[]);
    body.input("before", ElementType::Float, &[Dim::Open("batch"), Dim::Fixed(2)]);
    let after = body.node("MatMul", &["before", &factors], &[]);
    body.rename_value("going", "goes_on");
    body.rename_value(&after, "after");
    body.output("goes_on", ElementType::Bool, &[]);
    body.output("after", ElementType::Float, &[Dim::Open("batch"), Dim::Fixed(2)]);
    let mut graph = OnnxGraph::default();
    let twice = graph.floats(&[2, 2], &[1.0, 0.0, 0.0, 1.0]);
    graph.input("input_ids", ElementType::Int64, &[Dim::Open("batch"), Dim::Open("sequence")]);
    let ids = graph.node("Cast", &["input_ids"], &[("to", Attribute::Int(1))]);
    let axis = graph.integers(&[1], &[1]);
    let sum = graph.node("ReduceSum", &[&ids, &axis], &[]);
    let pair = graph.node("Concat", &[&sum, &sum], &[("axis", Attribute::Int(1))]);
    let pair = graph.node("MatMul", &[&pair, &twice], &[]);
    let turns = graph.integers(&[], &[1]);
    let scores = graph.node("Loop", &[&turns, "", &pair], &[("body", Attribute::Body(&body))]);
    graph.rename_value(&scores, "logits");
    graph.output("logits", ElementType::Float, &[Dim::Open("batch"), Dim::Fixed(2)]);
    ModelBuilder::from_graph(&graph).tokenizer(|_| ()).labels(&["a", "b"])
}

#[tokio::test]
async fn subgraph_loop_constants_stay_in_body() {
    let served = ModelServer::new(&model_with_loop()).await;
    assert_near(&served.raw_scores("10 20").await.0, &[35.0, 105.0]);
}

#[tokio::test]
async fn subgraph_branch_constants_stay_in_branch() {
    for outer in [false, true] {
        let served = ModelServer::new(&model_with_branches(outer)).await;
        for (text, expected) in [("10", [15.0, 0.0]), ("60", [0.0, 65.0]), ("10 20", [35.0, 0.0])] {
            assert_near(&served.raw_scores(text).await.0, &expected);
        }
        // The branch is that of the whole batch: the probe finds it, and each text runs alone.
        let batch = served.batch_predict(&["10", "60", "20"]).await;
        let labels: Vec<&str> = batch.iter().map(|item| label(item_answer(item))).collect();
        assert_eq!(labels, ["a", "b", "a"]);
        assert!(!served.model_info().await.shares_runs);
    }
}
