//! Models that tests of several features use.

use serde_json::json;

use super::onnx_graph::{Attribute, Dim, ElementType, OnnxGraph};
use super::{ModelBuilder, SPECIAL_TOKENS_SUM, TransformerBuilder};

/// `a` for texts whose ids have a sum of 50 or more, else `b`.
pub(crate) fn threshold_model() -> TransformerBuilder {
    TransformerBuilder::new(&["input_ids", "attention_mask"])
        .logit(&[("input_ids", 0.1), ("bias", -5.45)])
        .logit(&[("bias", 0.0)])
}

/// One number: the sum of the ids, and 1,000 for each token of the second segment.
pub(crate) fn summing_pair_model() -> ModelBuilder {
    TransformerBuilder::new(&["input_ids", "attention_mask", "token_type_ids"])
        .logit(&[("input_ids", 1.0), ("token_type_ids", 1_000.0)])
        .model()
        .config("problem_type", json!("regression"))
}

/// `O` for ids up to 30, `B-N` up to 50, `I-N` from there on, whatever stands beside them.
pub(crate) fn token_labelling_model() -> ModelBuilder {
    let mut graph = OnnxGraph::default();
    graph.input("input_ids", ElementType::Int64, &[Dim::Open("batch"), Dim::Open("sequence")]);
    graph.input("attention_mask", ElementType::Int64, &[Dim::Open("batch"), Dim::Open("sequence")]);
    let ids = graph.node("Cast", &["input_ids"], &[("to", Attribute::Int(1))]);
    let last = graph.integers(&[1], &[2]);
    let column = graph.node("Unsqueeze", &[&ids, &last], &[]);
    let weights = graph.floats(&[1, 3], &[0.0, 0.1, 0.2]);
    let product = graph.node("MatMul", &[&column, &weights], &[]);
    let bias = graph.floats(&[3], &[0.0, -3.05, -8.1]);
    let logits = graph.node("Add", &[&product, &bias], &[]);
    graph.rename_value(&logits, "logits");
    graph.output("logits", ElementType::Float, &[Dim::Open("batch"), Dim::Open("sequence"), Dim::Fixed(3)]);
    ModelBuilder::from_graph(&graph).tokenizer(|_| ()).labels(&["O", "B-N", "I-N"])
}

/// Entailment is a tenth of the sum of the words' ids, contradiction 5.
pub(crate) fn entailment_model() -> ModelBuilder {
    // Special tokens around two texts: one `[SEP]` more.
    let special = -0.1 * (SPECIAL_TOKENS_SUM + 3.0);
    TransformerBuilder::new(&["input_ids", "attention_mask", "token_type_ids"])
        .logit(&[("bias", 5.0)])
        .logit(&[("bias", -5.0)])
        .logit(&[("input_ids", 0.1), ("bias", special)])
        .model()
        .labels(&["contradiction", "neutral", "entailment"])
}
