//! Tokens and lengths that a graph cannot take: an error at load, and never a failed run.

use serde_json::json;

use crate::support::answers::{item_answer, item_error};
use crate::support::assertions::assert_near;
use crate::support::model_builder::ModelBuilder;
use crate::support::model_builder::onnx_graph::{Attribute, Dim, ElementType, OnnxGraph};
use crate::support::model_server::{ModelServer, load_error};

/// The sum of a text's embeddings: each of the `rows` ids is its own number. `positions` adds a table of so many
/// positions, each 0.
fn embedding_model(rows: u16, positions: Option<u64>) -> ModelBuilder {
    let mut graph = OnnxGraph::default();
    for name in ["input_ids", "position_ids"] {
        graph.input(name, ElementType::Int64, &[Dim::Open("batch"), Dim::Open("sequence")]);
    }
    let numbers: Vec<f32> = (0..rows).map(f32::from).collect();
    let table = graph.floats(&[u64::from(rows), 1], &numbers);
    let mut embedded = graph.node("Gather", &[&table, "input_ids"], &[]);
    let places = positions.unwrap_or(600);
    let zeros = graph.floats(&[places, 1], &vec![0.0; usize::try_from(places).unwrap()]);
    let zero = graph.node("Gather", &[&zeros, "position_ids"], &[]);
    embedded = graph.node("Add", &[&embedded, &zero], &[]);
    let axis = graph.integers(&[1], &[1]);
    let sum = graph.node("ReduceSum", &[&embedded, &axis], &[("keepdims", Attribute::Int(0))]);
    graph.rename_value(&sum, "logits");
    graph.output("logits", ElementType::Float, &[Dim::Open("batch"), Dim::Fixed(1)]);
    ModelBuilder::from_graph(&graph).tokenizer(|_| ()).config("problem_type", json!("regression"))
}

#[tokio::test]
async fn vocabulary_id_beyond_embedding_becomes_unknown() {
    let served = ModelServer::new(&embedding_model(90, None)).await;
    assert_near(&[served.score("89").await, served.score("10 95").await], &[94.0, 16.0]);
    let batch = served.batch_predict(&["10", "90", "20"]).await;
    assert_eq!(item_answer(&batch[1]).score, Some(6.0));
}

#[tokio::test]
async fn vocabulary_id_beyond_embedding_without_unk_is_refused() {
    let without = embedding_model(90, None).tokenizer(|file| {
        let vocabulary = file["model"]["vocab"].clone();
        file["model"] = json!({ "type": "BPE", "vocab": vocabulary, "merges": [] });
        file["added_tokens"].as_array_mut().unwrap().push(json!({
            "id": 101, "content": "<image>", "single_word": false, "lstrip": false, "rstrip": false,
            "normalized": false, "special": false
        }));
    });
    let served = ModelServer::new(&without).await;
    let reply = served.predict_error("<image>").await;
    assert_eq!((reply.status, reply.problem_kind().as_str()), (422, "unusable-text"));
    assert!(reply.body.contains("a token (id 101) that this model cannot take"), "{}", reply.body);
    let batch = served.batch_predict(&["4", "<image>"]).await;
    assert_eq!(item_error(&batch[1]).kind, "/docs#unusable-text");
}

#[tokio::test]
async fn vocabulary_padding_beyond_embedding_serves() {
    let model = embedding_model(101, None).config("pad_token_id", json!(500));
    let batch = ModelServer::new(&model).await.batch_predict(&["10", "20 30 40"]).await;
    assert_eq!((item_answer(&batch[0]).score, item_answer(&batch[1]).score), (Some(15.0), Some(95.0)));
}

/// The same with a table that no constant of the file is: its rows are found by runs.
fn computed_embedding_model(rows: u16) -> ModelBuilder {
    let mut graph = OnnxGraph::default();
    graph.input("input_ids", ElementType::Int64, &[Dim::Open("batch"), Dim::Open("sequence")]);
    let numbers: Vec<f32> = (0..rows).map(f32::from).collect();
    let table = graph.floats(&[1, u64::from(rows)], &numbers);
    let table = graph.node("Transpose", &[&table], &[]);
    let embedded = graph.node("Gather", &[&table, "input_ids"], &[]);
    let axis = graph.integers(&[1], &[1]);
    let sum = graph.node("ReduceSum", &[&embedded, &axis], &[("keepdims", Attribute::Int(0))]);
    graph.rename_value(&sum, "logits");
    graph.output("logits", ElementType::Float, &[Dim::Open("batch"), Dim::Fixed(1)]);
    ModelBuilder::from_graph(&graph).tokenizer(|_| ()).config("problem_type", json!("regression"))
}

#[tokio::test]
async fn vocabulary_computed_table_size_is_probed() {
    let served = ModelServer::new(&computed_embedding_model(96)).await;
    assert_near(
        &[served.score("95").await, served.score("96").await, served.score("10 99").await],
        &[100.0, 6.0, 16.0],
    );
}

#[tokio::test]
async fn vocabulary_special_token_beyond_embedding_is_refused() {
    let model = embedding_model(90, None).tokenizer(|file| {
        file["post_processor"]["special_tokens"]["[SEP]"]["ids"] = json!([95]);
    });
    let reason = load_error(&model).await;
    assert!(reason.starts_with("tokenizer.json: a special token around every text has the id 95"), "{reason}");
}

#[tokio::test]
async fn vocabulary_token_limit_above_positions_is_refused() {
    let reason = load_error(&embedding_model(101, Some(40))).await;
    assert!(reason.starts_with("model.onnx: a text of 512 tokens, as long as its files allow, fails"), "{reason}");
    assert!(reason.ends_with("texts of up to 40 tokens work: write max_tokens = 40 into model.toml"), "{reason}");
    let served = ModelServer::new(&embedding_model(101, Some(40)).manifest_toml("max_tokens = 40")).await;
    let text = "10 ".repeat(100);
    assert_near(&[served.score(&text).await], &[385.0]);
}

#[tokio::test]
async fn vocabulary_pair_segment_beyond_table_is_refused() {
    // Segments 0 only.
    let mut graph = OnnxGraph::default();
    for name in ["input_ids", "token_type_ids"] {
        graph.input(name, ElementType::Int64, &[Dim::Open("batch"), Dim::Open("sequence")]);
    }
    let table = graph.floats(&[1, 1], &[1.0]);
    let ones = graph.node("Gather", &[&table, "token_type_ids"], &[]);
    let axis = graph.integers(&[1], &[1]);
    let sum = graph.node("ReduceSum", &[&ones, &axis], &[("keepdims", Attribute::Int(0))]);
    graph.rename_value(&sum, "logits");
    graph.output("logits", ElementType::Float, &[Dim::Open("batch"), Dim::Fixed(1)]);
    let model = ModelBuilder::from_graph(&graph).tokenizer(|_| ()).config("problem_type", json!("regression"));
    let served = ModelServer::new(&model).await;
    assert!(!served.model_info().await.takes_pairs);
    let reply = served.server.post_json("/predict", json!({ "text": "10", "text_pair": "20" })).await;
    assert_eq!(reply.status, 422, "{}", reply.body);
    assert_near(&[served.score("10 20").await], &[4.0]);
}
