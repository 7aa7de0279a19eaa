//! What a transformer's graph is fed: ids, mask, segments, positions, padding.

use serde_json::{Value, json};

use crate::fixture::onnx::{Dim, Element};
use crate::fixture::served::{Served, assert_near, refusal};
use crate::fixture::{Model, SPECIAL, Transformer};

/// One number per text: the sum of one feature.
fn sum_of(feature: &'static str, inputs: &[&'static str]) -> Model {
    Transformer::new(inputs).logit(&[(feature, 1.0)]).model()
}

const ALL: [&str; 4] = ["input_ids", "attention_mask", "token_type_ids", "position_ids"];

/// The text's own tokens get segment 1, as the second text of a pair would.
fn second_segment(tokenizer: &mut Value) {
    tokenizer["post_processor"]["single"][1]["Sequence"]["type_id"] = json!(1);
}

#[tokio::test]
async fn every_input_gets_what_it_asks_for() {
    for (feature, expected) in [
        ("input_ids", 10.0 + 20.0 + 30.0 + f64::from(SPECIAL)),
        ("attention_mask", 5.0),
        ("token_type_ids", 3.0),
        ("position_ids", 0.0 + 1.0 + 2.0 + 3.0 + 4.0),
    ] {
        let served = Served::new(&sum_of(feature, &ALL).tokenizer(second_segment)).await;
        assert_near(&[served.score("10 20 30").await], &[expected]);
    }
}

#[tokio::test]
async fn inputs_that_are_not_asked_for_are_not_given() {
    let served = Served::new(&sum_of("input_ids", &["input_ids"])).await;
    assert_near(&[served.score("10 20").await], &[35.0]);
    // In another order than usual, and with other words for the same.
    let served = Served::new(&sum_of("token_type_ids", &["token_type_ids", "input_ids"])).await;
    assert_near(&[served.score("10 20").await], &[0.0]);
}

#[tokio::test]
async fn ids_of_32_bits_are_served() {
    let model = Transformer::new(&ALL).element(Element::Int32).logit(&[("input_ids", 1.0), ("position_ids", 100.0)]);
    let served = Served::new(&model.model()).await;
    assert_near(&[served.score("10 20").await], &[35.0 + 100.0 * 6.0]);
}

#[tokio::test]
async fn the_tokenizer_of_the_directory_is_used_in_full() {
    let served = Served::new(&sum_of("input_ids", &["input_ids", "attention_mask"])).await;
    // Lower-casing makes it the word 100; what the vocabulary lacks is [UNK], which is 1.
    assert_near(&[served.score("HELLO").await, served.score("nonsense").await], &[105.0, 6.0]);
    assert_eq!(served.predict("10 20 30").await["tokens"], 5);
}

#[tokio::test]
async fn padding_that_the_tokenizer_file_fixes_is_left_out() {
    let padding = json!({ "strategy": { "Fixed": 32 }, "direction": "Right", "pad_to_multiple_of": null,
                          "pad_id": 0, "pad_type_id": 0, "pad_token": "[PAD]" });
    let model = sum_of("position_ids", &["input_ids", "position_ids"]).tokenizer(|file| file["padding"] = padding);
    let answer = Served::new(&model).await.predict("10 20").await;
    assert_eq!(answer["tokens"], 4);
    // Without a mask, 28 padded places would add their positions.
    assert_eq!(answer["score"], 6.0);
}

/// One number per text, from windows of four tokens in rows of exactly six: the last of them is shorter, and padded.
fn windowed(feature: &'static str, inputs: &[&'static str]) -> Model {
    let sum = Transformer::new(inputs).logit(&[(feature, 1.0)]).dims([Dim::Open("batch"), Dim::Fixed(6)]);
    sum.model().options("on_overflow = 'window'")
}

/// Eight words make windows 10 11 12 13, 13 14 15 16 and 16 17: the last has two places of padding.
const EIGHT: &str = "10 11 12 13 14 15 16 17";

/// The mean over those windows, weighted by their tokens, of three numbers.
fn mean(scores: [f64; 3]) -> f64 {
    (scores[0] * 6.0 + scores[1] * 6.0 + scores[2] * 4.0) / 16.0
}

#[tokio::test]
async fn padding_is_masked_and_has_the_id_that_the_files_name() {
    let sums = [46.0 + 5.0, 58.0 + 5.0, 33.0 + 5.0];
    let masked = windowed("input_ids", &["input_ids", "attention_mask"]).config("pad_token_id", json!(9));
    assert_near(&[Served::new(&masked).await.score(EIGHT).await], &[mean(sums)]);
    // Without a mask the graph sees the padding, and so its id: [PAD] by its name, or as a file says.
    let seen = windowed("input_ids", &["input_ids"]);
    let in_file = json!({ "strategy": "BatchLongest", "direction": "Right", "pad_to_multiple_of": null,
                          "pad_id": 7, "pad_type_id": 0, "pad_token": "[PAD]" });
    let cases = [
        (seen.clone(), 0.0),
        (seen.clone().config("pad_token_id", json!(9)), 9.0),
        (seen.config("pad_token_id", json!(9)).tokenizer(|file| file["padding"] = in_file), 7.0),
    ];
    for (model, id) in cases {
        let score = Served::new(&model).await.score(EIGHT).await;
        assert_near(&[score], &[mean([sums[0], sums[1], sums[2] + 2.0 * id])]);
    }
}

#[tokio::test]
async fn padding_goes_to_the_side_that_the_files_name() {
    // The id in the last place: [SEP] unless padding comes after it.
    let last = windowed("last", &["input_ids", "attention_mask"]).config("pad_token_id", json!(9));
    let right = Served::new(&last).await.score(EIGHT).await;
    assert_near(&[right], &[mean([3.0, 3.0, 9.0])]);
    let left = last.clone().tokenizer_config("padding_side", json!("left"));
    assert_near(&[Served::new(&left).await.score(EIGHT).await], &[3.0]);
    // As Hugging Face has it: the tokenizer's own word counts where its configuration says nothing.
    let in_file = json!({ "strategy": "BatchLongest", "direction": "Left", "pad_to_multiple_of": null,
                          "pad_id": 9, "pad_type_id": 0, "pad_token": "[PAD]" });
    let left = last.tokenizer(|file| file["padding"] = in_file);
    assert_near(&[Served::new(&left).await.score(EIGHT).await], &[3.0]);
    let right = left.tokenizer_config("padding_side", json!("right"));
    assert_near(&[Served::new(&right).await.score(EIGHT).await], &[mean([3.0, 3.0, 9.0])]);
}

/// The same graph with another name of the same length.
fn renamed(model: &Model, from: &str, to: &str) -> Model {
    assert_eq!(from.len(), to.len());
    let mut bytes = model.graph().to_vec();
    for start in 0..bytes.len() - from.len() {
        if bytes[start..].starts_with(from.as_bytes()) {
            bytes[start..start + to.len()].copy_from_slice(to.as_bytes());
        }
    }
    model.clone().with_graph(bytes)
}

#[tokio::test]
async fn graphs_that_a_text_cannot_feed_are_refused() {
    let of = |dims| Transformer::new(&["input_ids"]).logit(&[("last", 1.0)]).dims(dims).model();
    let reason = refusal(&of([Dim::Fixed(8), Dim::Open("n")])).await;
    assert_eq!(
        reason,
        "model.onnx: its input input_ids takes exactly 8 rows: export it with a dynamic batch axis, or one of size 1"
    );
    let reason = refusal(&sum_of("input_ids", &["input_ids", "pixel_values"])).await;
    assert!(
        reason.starts_with("model.onnx: it asks for an input \"pixel_values\" that a text cannot give"),
        "{reason}"
    );
    let floats = Transformer::new(&["input_ids"]).element(Element::Float).logit(&[("last", 1.0)]).model();
    let reason = refusal(&floats).await;
    assert!(reason.starts_with("model.onnx: its input input_ids holds"), "{reason}");
    let graph = Transformer::new(&["input_ids"]).logit(&[("last", 1.0)]).model();
    let reason = refusal(&renamed(&graph, "input_ids", "token_ids")).await;
    assert!(reason.contains("\"token_ids\""), "{reason}");
}
