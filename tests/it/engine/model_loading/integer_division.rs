//! Divisions of the smallest integer by -1, which would end the process.

use crate::support::model_builder::onnx_graph::{Attribute, Dim, ElementType, OnnxGraph};
use crate::support::model_builder::{ModelBuilder, TransformerBuilder};
use crate::support::model_server::{MODEL, ModelServer, load_error};

/// The logits, and beside them integers divided by what `divisor` makes.
fn dividing_model(op: &'static str, divisor: fn(&mut OnnxGraph) -> String) -> ModelBuilder {
    let mut graph = OnnxGraph::default();
    graph.input("input_ids", ElementType::Int64, &[Dim::Open("batch"), Dim::Open("sequence")]);
    let divisor = divisor(&mut graph);
    let divided = graph.node(op, &["input_ids", &divisor], &[]);
    let divided = graph.node("Cast", &[&divided], &[("to", Attribute::Int(1))]);
    let axis = graph.integers(&[1], &[1]);
    let sum = graph.node("ReduceSum", &[&divided, &axis], &[]);
    graph.rename_value(&sum, "logits");
    graph.output("logits", ElementType::Float, &[Dim::Open("batch"), Dim::Fixed(1)]);
    ModelBuilder::from_graph(&graph).tokenizer(|_| ())
}

#[tokio::test]
async fn load_crashing_constant_divisor_is_refused() {
    let minus_one: fn(&mut OnnxGraph) -> String = |graph| graph.integers(&[1], &[-1]);
    let divisors: [fn(&mut OnnxGraph) -> String; 7] = [
        minus_one,
        |graph| graph.node("Constant", &[], &[("value_int", Attribute::Int(-1))]),
        |graph| {
            let one = graph.integers(&[1], &[1]);
            graph.node("Neg", &[&one], &[])
        },
        |graph| {
            let two = graph.integers(&[1], &[2]);
            let minus = graph.integers(&[1], &[-1]);
            graph.node("Concat", &[&two, &minus], &[("axis", Attribute::Int(0))])
        },
        |graph| {
            let one = graph.integers(&[1, 1], &[-1]);
            graph.node("Identity", &[&one], &[])
        },
        |graph| {
            let one = graph.floats(&[1], &[-1.5]);
            graph.node("Cast", &[&one], &[("to", Attribute::Int(7))])
        },
        |graph| {
            let minus = graph.node("Constant", &[], &[("value_float", Attribute::Float(-1.0))]);
            graph.node("Cast", &[&minus], &[("to", Attribute::Int(7))])
        },
    ];
    for divisor in divisors {
        let reason = load_error(&dividing_model("Div", divisor)).await;
        assert!(reason.starts_with("model.onnx: a node Div divides integers by a constant -1"), "{reason}");
    }
    // The runtime catches these: a remainder, and a constant zero.
    let model = ModelServer::new(&dividing_model("Mod", minus_one)).await.server.model(MODEL).await;
    assert_eq!(model.versions[0].state, "ready");
    let reason = load_error(&dividing_model("Div", |graph| graph.integers(&[1], &[0]))).await;
    assert!(reason.contains("division by zero"), "{reason}");
}

#[tokio::test]
async fn load_division_in_subgraph_is_found() {
    let mut inner = OnnxGraph::default();
    let quotient = inner.node("Div", &["input_ids", "minus"], &[]);
    inner.output(&quotient, ElementType::Int64, &[]);
    let mut graph = OnnxGraph::default();
    graph.input("input_ids", ElementType::Int64, &[Dim::Open("batch"), Dim::Open("sequence")]);
    let minus = graph.integers(&[1], &[-1]);
    graph.rename_value(&minus, "minus");
    let yes = graph.node("Constant", &[], &[("value_int", Attribute::Int(1))]);
    let yes = graph.node("Cast", &[&yes], &[("to", Attribute::Int(9))]);
    let branches = [("then_branch", Attribute::Body(&inner)), ("else_branch", Attribute::Body(&inner))];
    let quotient = graph.node("If", &[&yes], &branches);
    let scores = graph.node("Cast", &[&quotient], &[("to", Attribute::Int(1))]);
    graph.rename_value(&scores, "logits");
    graph.output("logits", ElementType::Float, &[Dim::Open("batch"), Dim::Open("sequence")]);
    let reason = load_error(&ModelBuilder::from_graph(&graph).tokenizer(|_| ())).await;
    assert!(reason.contains("a node Div divides integers"), "{reason}");
}

#[tokio::test]
async fn load_float_or_harmless_division_serves() {
    let served = ModelServer::new(&dividing_model("Div", |graph| graph.integers(&[1], &[2]))).await;
    // 2 / 2 + 10 / 2 + 3 / 2, each cut off to an integer.
    assert!((served.score("10").await - 1.0 / (1.0 + (-7_f64).exp())).abs() < 1e-6);
    let halves = TransformerBuilder::new(&["input_ids"]).logit(&[("input_ids", 1.0)]).append_nodes(|graph, logits| {
        let minus = graph.floats(&[1], &[-1.0]);
        graph.node("Div", &[logits, &minus], &[])
    });
    assert!((ModelServer::new(&halves.model()).await.score("10").await + 15.0).abs() < 1e-6);
}
