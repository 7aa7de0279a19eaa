//! Tokens and lengths that a graph cannot take: told at load, and never a failed run.

use serde_json::json;

use crate::fixture::Model;
use crate::fixture::onnx::{Attribute, Dim, Element, Graph};
use crate::fixture::served::{Served, assert_near, refusal};

/// The sum of a text's embeddings: each of the `rows` ids is its own number. `positions` adds a table of so many
/// positions, each 0.
fn embeds(rows: u16, positions: Option<u64>) -> Model {
    let mut graph = Graph::default();
    for name in ["input_ids", "position_ids"] {
        graph.input(name, Element::Int64, &[Dim::Open("batch"), Dim::Open("sequence")]);
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
    graph.rename(&sum, "logits");
    graph.output("logits", Element::Float, &[Dim::Open("batch"), Dim::Fixed(1)]);
    Model::of_graph(&graph).tokenizer(|_| ()).config("problem_type", json!("regression"))
}

#[tokio::test]
async fn token_without_an_embedding_is_the_unknown_token() {
    let served = Served::new(&embeds(90, None)).await;
    assert_near(&[served.score("89").await, served.score("10 95").await], &[94.0, 16.0]);
    let batch = served.batch(&["10", "90", "20"]).await;
    assert_eq!(batch[1]["score"], json!(6.0));
}

#[tokio::test]
async fn token_without_an_embedding_is_refused_where_nothing_is_unknown() {
    let without = embeds(90, None).tokenizer(|file| {
        let vocabulary = file["model"]["vocab"].clone();
        file["model"] = json!({ "type": "BPE", "vocab": vocabulary, "merges": [] });
        file["added_tokens"].as_array_mut().unwrap().push(json!({
            "id": 101, "content": "<image>", "single_word": false, "lstrip": false, "rstrip": false,
            "normalized": false, "special": false
        }));
    });
    let served = Served::new(&without).await;
    let reply = served.refused("<image>").await;
    assert_eq!((reply.status, reply.problem().as_str()), (422, "unusable-text"));
    assert!(reply.body.contains("a token (id 101) that this model cannot take"), "{}", reply.body);
    let batch = served.server.ask("/batch_predict", json!({ "texts": ["4", "<image>"] })).await.json();
    assert_eq!(batch["results"][1]["error"]["type"], "/docs#unusable-text");
}

#[tokio::test]
async fn padding_without_an_embedding_serves() {
    let model = embeds(101, None).config("pad_token_id", json!(500));
    let batch = Served::new(&model).await.batch(&["10", "20 30 40"]).await;
    assert_eq!((&batch[0]["score"], &batch[1]["score"]), (&json!(15.0), &json!(95.0)));
}

/// The same with a table that no constant of the file is: its rows are found by runs.
fn embeds_from_a_column(rows: u16) -> Model {
    let mut graph = Graph::default();
    graph.input("input_ids", Element::Int64, &[Dim::Open("batch"), Dim::Open("sequence")]);
    let numbers: Vec<f32> = (0..rows).map(f32::from).collect();
    let table = graph.floats(&[1, u64::from(rows)], &numbers);
    let table = graph.node("Transpose", &[&table], &[]);
    let embedded = graph.node("Gather", &[&table, "input_ids"], &[]);
    let axis = graph.integers(&[1], &[1]);
    let sum = graph.node("ReduceSum", &[&embedded, &axis], &[("keepdims", Attribute::Int(0))]);
    graph.rename(&sum, "logits");
    graph.output("logits", Element::Float, &[Dim::Open("batch"), Dim::Fixed(1)]);
    Model::of_graph(&graph).tokenizer(|_| ()).config("problem_type", json!("regression"))
}

#[tokio::test]
async fn rows_of_a_table_that_no_constant_shows_are_found_by_runs() {
    let served = Served::new(&embeds_from_a_column(96)).await;
    assert_near(
        &[served.score("95").await, served.score("96").await, served.score("10 99").await],
        &[100.0, 6.0, 16.0],
    );
}

#[tokio::test]
async fn special_tokens_without_an_embedding_are_refused_by_name() {
    let model = embeds(90, None).tokenizer(|file| {
        file["post_processor"]["special_tokens"]["[SEP]"]["ids"] = json!([95]);
    });
    let reason = refusal(&model).await;
    assert!(reason.starts_with("tokenizer.json: a special token around every text has the id 95"), "{reason}");
}

#[tokio::test]
async fn texts_longer_than_the_positions_of_the_graph_are_refused_at_load() {
    let reason = refusal(&embeds(101, Some(40))).await;
    assert!(reason.starts_with("model.onnx: a text of 512 tokens, as long as its files allow, fails"), "{reason}");
    assert!(reason.ends_with("texts of up to 40 tokens work: write max_tokens = 40 into model.toml"), "{reason}");
    let served = Served::new(&embeds(101, Some(40)).options("max_tokens = 40")).await;
    let text = "10 ".repeat(100);
    assert_near(&[served.score(&text).await], &[385.0]);
}

#[tokio::test]
async fn pairs_that_the_graph_fails_on_are_not_taken() {
    // Segments 0 only.
    let mut graph = Graph::default();
    for name in ["input_ids", "token_type_ids"] {
        graph.input(name, Element::Int64, &[Dim::Open("batch"), Dim::Open("sequence")]);
    }
    let table = graph.floats(&[1, 1], &[1.0]);
    let ones = graph.node("Gather", &[&table, "token_type_ids"], &[]);
    let axis = graph.integers(&[1], &[1]);
    let sum = graph.node("ReduceSum", &[&ones, &axis], &[("keepdims", Attribute::Int(0))]);
    graph.rename(&sum, "logits");
    graph.output("logits", Element::Float, &[Dim::Open("batch"), Dim::Fixed(1)]);
    let model = Model::of_graph(&graph).tokenizer(|_| ()).config("problem_type", json!("regression"));
    let served = Served::new(&model).await;
    assert_eq!(served.facts().await["takes_pairs"], false);
    let reply = served.server.ask("/predict", json!({ "text": "10", "text_pair": "20" })).await;
    assert_eq!(reply.status, 422, "{}", reply.body);
    assert_near(&[served.score("10 20").await], &[4.0]);
}
