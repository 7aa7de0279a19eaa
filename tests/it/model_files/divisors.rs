//! Divisions of the smallest integer by -1, which would end the process.

use crate::fixture::onnx::{Attribute, Dim, Element, Graph};
use crate::fixture::served::{Served, refusal};
use crate::fixture::{Model, Transformer};

/// The logits, and beside them integers divided by what `divisor` makes.
fn divides(op: &'static str, divisor: fn(&mut Graph) -> String) -> Model {
    let mut graph = Graph::default();
    graph.input("input_ids", Element::Int64, &[Dim::Open("batch"), Dim::Open("sequence")]);
    let divisor = divisor(&mut graph);
    let divided = graph.node(op, &["input_ids", &divisor], &[]);
    let divided = graph.node("Cast", &[&divided], &[("to", Attribute::Int(1))]);
    let axis = graph.integers(&[1], &[1]);
    let sum = graph.node("ReduceSum", &[&divided, &axis], &[]);
    graph.rename(&sum, "logits");
    graph.output("logits", Element::Float, &[Dim::Open("batch"), Dim::Fixed(1)]);
    Model::of_graph(&graph).tokenizer(|_| ())
}

#[tokio::test]
async fn constant_divisors_that_end_the_process_are_refused() {
    let minus_one: fn(&mut Graph) -> String = |graph| graph.integers(&[1], &[-1]);
    let divisors: [fn(&mut Graph) -> String; 7] = [
        minus_one,
        |graph| graph.node("Constant", &[], &[("value_int", Attribute::Int(-1))]),
        |graph| {
            let one = graph.integers(&[1], &[1]);
            graph.node("Neg", &[&one], &[])
        },
        |graph| {
            let (two, minus) = (graph.integers(&[1], &[2]), graph.integers(&[1], &[-1]));
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
        let reason = refusal(&divides("Div", divisor)).await;
        assert!(reason.starts_with("model.onnx: a node Div divides integers by a constant -1"), "{reason}");
    }
    // The runtime catches these: a remainder, and a constant zero.
    assert_eq!(Served::new(&divides("Mod", minus_one)).await.facts().await["state"], "ready");
    let reason = refusal(&divides("Div", |graph| graph.integers(&[1], &[0]))).await;
    assert!(reason.contains("division by zero"), "{reason}");
}

#[tokio::test]
async fn divisions_of_an_inner_graph_are_found() {
    let mut inner = Graph::default();
    let quotient = inner.node("Div", &["input_ids", "minus"], &[]);
    inner.output(&quotient, Element::Int64, &[]);
    let mut graph = Graph::default();
    graph.input("input_ids", Element::Int64, &[Dim::Open("batch"), Dim::Open("sequence")]);
    let minus = graph.integers(&[1], &[-1]);
    graph.rename(&minus, "minus");
    let yes = graph.node("Constant", &[], &[("value_int", Attribute::Int(1))]);
    let yes = graph.node("Cast", &[&yes], &[("to", Attribute::Int(9))]);
    let branches = [("then_branch", Attribute::Body(&inner)), ("else_branch", Attribute::Body(&inner))];
    let quotient = graph.node("If", &[&yes], &branches);
    let scores = graph.node("Cast", &[&quotient], &[("to", Attribute::Int(1))]);
    graph.rename(&scores, "logits");
    graph.output("logits", Element::Float, &[Dim::Open("batch"), Dim::Open("sequence")]);
    let reason = refusal(&Model::of_graph(&graph).tokenizer(|_| ())).await;
    assert!(reason.contains("a node Div divides integers"), "{reason}");
}

#[tokio::test]
async fn divisions_of_floats_and_by_other_numbers_serve() {
    let served = Served::new(&divides("Div", |graph| graph.integers(&[1], &[2]))).await;
    // 2 / 2 + 10 / 2 + 3 / 2, each cut off to an integer.
    assert!((served.score("10").await - 1.0 / (1.0 + (-7_f64).exp())).abs() < 1e-6);
    let halves = Transformer::new(&["input_ids"]).logit(&[("input_ids", 1.0)]).then(|graph, logits| {
        let minus = graph.floats(&[1], &[-1.0]);
        graph.node("Div", &[logits, &minus], &[])
    });
    assert!((Served::new(&halves.model()).await.score("10").await + 15.0).abs() < 1e-6);
}
