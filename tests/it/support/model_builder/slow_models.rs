//! Graphs that take their time: a loop around the logits, which changes nothing but how long a run takes.

use super::onnx_graph::{Attribute, Dim, ElementType, OnnxGraph};
use super::{ModelBuilder, TransformerBuilder};

/// A model that answers every text at once, but never one with the word `hello`.
pub(crate) fn never_answers_hello() -> ModelBuilder {
    looping_model(|graph, logits| {
        let most = max_token_id(graph);
        let limit = graph.integers(&[], &[100]);
        let is_hello = graph.node("Div", &[&most, &limit], &[]);
        let for_ever = graph.integers(&[], &[i64::MAX]);
        let turns = graph.node("Mul", &[&is_hello, &for_ever], &[]);
        add_loop(graph, logits, &turns)
    })
}

/// The same for a model whose other texts take so long that they wait in a queue for a worker.
pub(crate) fn never_answers_hello_queued() -> ModelBuilder {
    looping_model(|graph, logits| {
        let most = max_token_id(graph);
        let limit = graph.integers(&[], &[100]);
        let is_hello = graph.node("Div", &[&most, &limit], &[]);
        let for_ever = graph.integers(&[], &[i64::MAX / 2]);
        let some = graph.integers(&[], &[2_000]);
        let turns = graph.node("Mul", &[&is_hello, &for_ever], &[]);
        let turns = graph.node("Add", &[&turns, &some], &[]);
        add_loop(graph, logits, &turns)
    })
}

/// A model that never answers.
pub(crate) fn never_answers() -> ModelBuilder {
    looping_model(|graph, logits| {
        let turns = graph.integers(&[], &[i64::MAX]);
        add_loop(graph, logits, &turns)
    })
}

/// A model that takes the longer the greater the number in its text: 20,000 turns for each one.
pub(crate) fn slow_by_number() -> ModelBuilder {
    looping_model(|graph, logits| {
        let most = max_token_id(graph);
        let each = graph.integers(&[], &[20_000]);
        let turns = graph.node("Mul", &[&most, &each], &[]);
        add_loop(graph, logits, &turns)
    })
}

/// A model that takes the longer the more tokens it sees: 4,000 turns for each one.
pub(crate) fn slow_by_length() -> ModelBuilder {
    looping_model(|graph, logits| {
        let all = graph.node("ReduceSum", &["attention_mask"], &[("keepdims", Attribute::Int(0))]);
        let each = graph.integers(&[], &[4_000]);
        let turns = graph.node("Mul", &[&all, &each], &[]);
        add_loop(graph, logits, &turns)
    })
}

fn looping_model(last: fn(&mut OnnxGraph, &str) -> String) -> ModelBuilder {
    let inputs = TransformerBuilder::new(&["input_ids", "attention_mask"]);
    inputs.logit(&[("input_ids", 1.0)]).logit(&[("input_ids", 0.1)]).append_nodes(last).model().labels(&["a", "b"])
}

fn max_token_id(graph: &mut OnnxGraph) -> String {
    graph.node("ReduceMax", &["input_ids"], &[("keepdims", Attribute::Int(0))])
}

/// The logits after so many turns that leave them as they are.
fn add_loop(graph: &mut OnnxGraph, logits: &str, turns: &str) -> String {
    let mut body = OnnxGraph::default();
    let size = [Dim::Open("batch"), Dim::Fixed(2)];
    body.input("turn", ElementType::Int64, &[]);
    body.input("going", ElementType::Bool, &[]);
    body.input("before", ElementType::Float, &size);
    body.rename_value("going", "goes_on");
    body.rename_value("before", "after");
    body.output("goes_on", ElementType::Bool, &[]);
    body.output("after", ElementType::Float, &size);
    graph.node("Loop", &[turns, "", logits], &[("body", Attribute::Body(&body))])
}
