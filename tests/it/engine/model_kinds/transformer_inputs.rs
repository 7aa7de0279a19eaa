//! What a transformer's graph is fed: ids, mask, segments, positions, padding.

use serde_json::{Value, json};

use crate::support::assertions::assert_near;
use crate::support::model_builder::onnx_graph::{Attribute, Dim, ElementType, OnnxGraph};
use crate::support::model_builder::{ModelBuilder, SPECIAL_TOKENS_SUM, TransformerBuilder};
use crate::support::model_server::{ModelServer, load_error};

/// One number per text: the sum of one feature.
fn sum_model(feature: &'static str, inputs: &[&'static str]) -> ModelBuilder {
    TransformerBuilder::new(inputs).logit(&[(feature, 1.0)]).model()
}

const ALL_INPUTS: [&str; 4] = ["input_ids", "attention_mask", "token_type_ids", "position_ids"];

/// The text's own tokens get segment 1, as the second text of a pair would.
fn set_second_segment(tokenizer: &mut Value) {
    tokenizer["post_processor"]["single"][1]["Sequence"]["type_id"] = json!(1);
}

#[tokio::test]
async fn input_every_known_tensor_is_filled() {
    for (feature, expected) in [
        ("input_ids", 10.0 + 20.0 + 30.0 + f64::from(SPECIAL_TOKENS_SUM)),
        ("attention_mask", 5.0),
        ("token_type_ids", 3.0),
        ("position_ids", 0.0 + 1.0 + 2.0 + 3.0 + 4.0),
    ] {
        let served = ModelServer::new(&sum_model(feature, &ALL_INPUTS).tokenizer(set_second_segment)).await;
        assert_near(&[served.score("10 20 30").await], &[expected]);
    }
}

#[tokio::test]
async fn input_undeclared_tensors_are_not_passed() {
    let served = ModelServer::new(&sum_model("input_ids", &["input_ids"])).await;
    assert_near(&[served.score("10 20").await], &[35.0]);
    // In another order than usual, and with other words for the same.
    let served = ModelServer::new(&sum_model("token_type_ids", &["token_type_ids", "input_ids"])).await;
    assert_near(&[served.score("10 20").await], &[0.0]);
}

#[tokio::test]
async fn input_int32_ids_are_served() {
    let model = TransformerBuilder::new(&ALL_INPUTS)
        .input_element(ElementType::Int32)
        .logit(&[("input_ids", 1.0), ("position_ids", 100.0)]);
    let served = ModelServer::new(&model.model()).await;
    assert_near(&[served.score("10 20").await], &[35.0 + 100.0 * 6.0]);
}

#[tokio::test]
async fn input_tokenizer_json_is_applied_in_full() {
    let served = ModelServer::new(&sum_model("input_ids", &["input_ids", "attention_mask"])).await;
    // Lower-casing makes it the word 100; what the vocabulary lacks is [UNK], which is 1.
    assert_near(&[served.score("HELLO").await, served.score("nonsense").await], &[105.0, 6.0]);
    assert_eq!(served.predict("10 20 30").await.tokens, 5);
}

#[tokio::test]
async fn input_fixed_tokenizer_padding_is_ignored() {
    let padding = json!({ "strategy": { "Fixed": 32 }, "direction": "Right", "pad_to_multiple_of": null,
                          "pad_id": 0, "pad_type_id": 0, "pad_token": "[PAD]" });
    let model = sum_model("position_ids", &["input_ids", "position_ids"]).tokenizer(|file| file["padding"] = padding);
    let answer = ModelServer::new(&model).await.predict("10 20").await;
    assert_eq!(answer.tokens, 4);
    // Without a mask, 28 padded places would add their positions.
    assert_eq!(answer.score, Some(6.0));
}

/// One number per text, from windows of four tokens in rows of exactly six: the last of them is shorter, and padded.
fn windowed_model(feature: &'static str, inputs: &[&'static str]) -> ModelBuilder {
    let sum = TransformerBuilder::new(inputs).logit(&[(feature, 1.0)]).input_dims([Dim::Open("batch"), Dim::Fixed(6)]);
    sum.model().manifest_toml("on_overflow = 'window'")
}

/// Eight words make windows 10 11 12 13, 13 14 15 16 and 16 17: the last has two places of padding.
const EIGHT_WORDS: &str = "10 11 12 13 14 15 16 17";

/// The mean over those windows, weighted by their tokens, of three numbers.
fn weighted_window_mean(scores: [f64; 3]) -> f64 {
    (scores[0] * 6.0 + scores[1] * 6.0 + scores[2] * 4.0) / 16.0
}

#[tokio::test]
async fn input_padding_is_masked_with_configured_id() {
    let sums = [46.0 + 5.0, 58.0 + 5.0, 33.0 + 5.0];
    let masked = windowed_model("input_ids", &["input_ids", "attention_mask"]).config("pad_token_id", json!(9));
    assert_near(&[ModelServer::new(&masked).await.score(EIGHT_WORDS).await], &[weighted_window_mean(sums)]);
    // Without a mask the graph sees the padding, and so its id: [PAD] by its name, or as a file says.
    let seen = windowed_model("input_ids", &["input_ids"]);
    let in_file = json!({ "strategy": "BatchLongest", "direction": "Right", "pad_to_multiple_of": null,
                          "pad_id": 7, "pad_type_id": 0, "pad_token": "[PAD]" });
    let cases = [
        (seen.clone(), 0.0),
        (seen.clone().config("pad_token_id", json!(9)), 9.0),
        (seen.config("pad_token_id", json!(9)).tokenizer(|file| file["padding"] = in_file), 7.0),
    ];
    for (model, id) in cases {
        let score = ModelServer::new(&model).await.score(EIGHT_WORDS).await;
        assert_near(&[score], &[weighted_window_mean([sums[0], sums[1], sums[2] + 2.0 * id])]);
    }
}

#[tokio::test]
async fn input_padding_side_follows_config() {
    // The id in the last place: [SEP] unless padding comes after it.
    let last = windowed_model("last", &["input_ids", "attention_mask"]).config("pad_token_id", json!(9));
    let right = ModelServer::new(&last).await.score(EIGHT_WORDS).await;
    assert_near(&[right], &[weighted_window_mean([3.0, 3.0, 9.0])]);
    let left = last.clone().tokenizer_config("padding_side", json!("left"));
    assert_near(&[ModelServer::new(&left).await.score(EIGHT_WORDS).await], &[3.0]);
    // As Hugging Face has it: the tokenizer's own word counts where its configuration says nothing.
    let in_file = json!({ "strategy": "BatchLongest", "direction": "Left", "pad_to_multiple_of": null,
                          "pad_id": 9, "pad_type_id": 0, "pad_token": "[PAD]" });
    let left = last.tokenizer(|file| file["padding"] = in_file);
    assert_near(&[ModelServer::new(&left).await.score(EIGHT_WORDS).await], &[3.0]);
    let right = left.tokenizer_config("padding_side", json!("right"));
    assert_near(&[ModelServer::new(&right).await.score(EIGHT_WORDS).await], &[weighted_window_mean([3.0, 3.0, 9.0])]);
}

/// The same graph with another name of the same length.
fn rename_in_graph(model: &ModelBuilder, from: &str, to: &str) -> ModelBuilder {
    assert_eq!(from.len(), to.len());
    let mut bytes = model.graph_bytes().to_vec();
    for start in 0..bytes.len() - from.len() {
        if bytes[start..].starts_with(from.as_bytes()) {
            bytes[start..start + to.len()].copy_from_slice(to.as_bytes());
        }
    }
    model.clone().with_graph(bytes)
}

#[tokio::test]
async fn input_unusable_graph_inputs_are_refused_at_load() {
    let of = |dims| TransformerBuilder::new(&["input_ids"]).logit(&[("last", 1.0)]).input_dims(dims).model();
    let reason = load_error(&of([Dim::Fixed(8), Dim::Open("n")])).await;
    assert_eq!(
        reason,
        "model.onnx: its input input_ids takes exactly 8 rows: export it with a dynamic batch axis, or one of size 1"
    );
    let reason = load_error(&sum_model("input_ids", &["input_ids", "pixel_values"])).await;
    assert!(
        reason.starts_with("model.onnx: it asks for an input \"pixel_values\" that a text cannot give"),
        "{reason}"
    );
    let floats =
        TransformerBuilder::new(&["input_ids"]).input_element(ElementType::Float).logit(&[("last", 1.0)]).model();
    let reason = load_error(&floats).await;
    assert!(reason.starts_with("model.onnx: its input input_ids holds"), "{reason}");
    let graph = TransformerBuilder::new(&["input_ids"]).logit(&[("last", 1.0)]).model();
    let reason = load_error(&rename_in_graph(&graph, "input_ids", "token_ids")).await;
    assert!(reason.contains("\"token_ids\""), "{reason}");
}

#[tokio::test]
async fn input_names_are_mapped_in_manifest() {
    let mut graph = OnnxGraph::default();
    for name in ["tokens", "input_mask_3"] {
        graph.input(name, ElementType::Int64, &[Dim::Open("batch"), Dim::Open("sequence")]);
    }
    let masked = graph.node("Mul", &["tokens", "input_mask_3"], &[]);
    let ids = graph.node("Cast", &[&masked], &[("to", Attribute::Int(1))]);
    let one = graph.integers(&[1], &[1]);
    let sum = graph.node("ReduceSum", &[&ids, &one], &[]);
    graph.rename_value(&sum, "logits");
    graph.output("logits", ElementType::Float, &[Dim::Open("batch"), Dim::Fixed(1)]);
    let model = ModelBuilder::from_graph(&graph).tokenizer(|_| ()).config("problem_type", json!("regression"));
    let reason = load_error(&model).await;
    assert!(reason.contains("[inputs] \"tokens\" = \"input_ids\""), "{reason}");
    let named = model.clone().manifest_toml("[inputs]\ntokens = \"input_ids\"\ninput_mask_3 = \"attention_mask\"");
    assert_near(&[ModelServer::new(&named).await.score("10 20").await], &[35.0]);
    let reason = load_error(&model.manifest_toml("[inputs]\nwords = \"input_ids\"")).await;
    assert!(reason.contains("model.toml: inputs names \"words\""), "{reason}");
}
