//! An answer is that of its text alone, whatever runs beside it; and what the graph does wrong with several texts, or
//! with one, stays with that text.

use serde_json::json;

use crate::support::answers::{item_answer, item_error, label, probabilities, score};
use crate::support::assertions::assert_near;
use crate::support::model_builder::TransformerBuilder;
use crate::support::model_builder::onnx_graph::{Attribute, Dim, OnnxGraph};
use crate::support::model_server::ModelServer;
use crate::support::test_server::{TestServer, shipped_models};

fn sum_transformer(nodes: fn(&mut OnnxGraph, &str) -> String) -> TransformerBuilder {
    let logits = TransformerBuilder::new(&["input_ids", "attention_mask"]).logit(&[("input_ids", 1.0)]);
    logits.output("logits", &[Dim::Open("rows"), Dim::Fixed(1)]).append_nodes(nodes)
}

async fn assert_sums(served: &ModelServer) {
    let texts: Vec<String> = (10..90).map(|word| word.to_string()).collect();
    let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
    let batch = served.batch_predict(&texts).await;
    for (item, word) in batch.iter().zip((10_u8..).map(f32::from)) {
        assert_eq!(item_answer(item).score, Some(word + 5.0), "{item:?}");
    }
    assert!(!served.model_info().await.shares_runs);
}

#[tokio::test]
async fn batch_invariance_reordered_rows_are_found_at_load() {
    let reversed = sum_transformer(|graph, logits| {
        let first = graph.integers(&[1], &[-1]);
        let last = graph.integers(&[1], &[i64::MIN + 1]);
        let axis = graph.integers(&[1], &[0]);
        let back = graph.integers(&[1], &[-1]);
        graph.node("Slice", &[logits, &first, &last, &axis, &back], &[])
    });
    assert_sums(&ModelServer::new(&reversed.model()).await).await;
}

#[tokio::test]
async fn batch_invariance_lost_rows_are_found_at_load() {
    let first_only = sum_transformer(|graph, logits| {
        let start = graph.integers(&[1], &[0]);
        let end = graph.integers(&[1], &[1]);
        let axis = graph.integers(&[1], &[0]);
        graph.node("Slice", &[logits, &start, &end, &axis], &[])
    });
    assert_sums(&ModelServer::new(&first_only.model()).await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn batch_invariance_rare_lost_rows_shift_no_answer() {
    // A run of five tokens with the word 99 three times gives its first row only: alone that is right, beside others it is not.
    let now_and_then = sum_transformer(|graph, logits| {
        let limit = graph.integers(&[1], &[99]);
        let three = graph.integers(&[1], &[3]);
        let many = graph.integers(&[1], &[1 << 20]);
        // None of 2^20 rows are cut off below three times 99, and all but one from there on.
        let each = graph.node("Div", &["input_ids", &limit], &[]);
        let count = graph.node("ReduceSum", &[&each], &[("keepdims", Attribute::Int(0))]);
        let is_there = graph.node("Div", &[&count, &three], &[]);
        // In a row of five tokens only: longer texts of the vocabulary may hold the word as often.
        let shape = graph.node("Shape", &["input_ids"], &[]);
        let second = graph.integers(&[1], &[1]);
        let end = graph.integers(&[1], &[2]);
        let five = graph.integers(&[1], &[5]);
        let length = graph.node("Slice", &[&shape, &second, &end], &[]);
        let is_short = graph.node("Div", &[&five, &length], &[]);
        let is_there = graph.node("Mul", &[&is_there, &is_short], &[]);
        let one = graph.integers(&[1], &[1]);
        let start = graph.integers(&[1], &[0]);
        let axis = graph.integers(&[1], &[0]);
        let absent = graph.node("Sub", &[&one, &is_there], &[]);
        let rest = graph.node("Mul", &[&absent, &many], &[]);
        let end = graph.node("Add", &[&rest, &one], &[]);
        graph.node("Slice", &[logits, &start, &end, &axis], &[])
    });
    let served = ModelServer::with_options(&now_and_then.model(), &["--workers", "1"]).await;
    assert!(served.model_info().await.shares_runs);
    for _ in 0..5 {
        let texts: Vec<String> = (60..100).map(|word| format!("{word} {word} {word}")).collect();
        let batch = served.batch_predict(&texts.iter().map(String::as_str).collect::<Vec<_>>()).await;
        for (item, word) in batch.iter().zip((60_u8..).map(f32::from)) {
            assert_eq!(item_answer(item).score, Some(3.0 * word + 5.0), "{item:?}");
        }
    }
    // After the first time every text runs by itself.
    assert!(!served.model_info().await.shares_runs);
}

#[tokio::test(flavor = "multi_thread")]
async fn batch_out_of_memory_fails_its_text_only() {
    // As many zeros as the greatest word to the power of eight: 10^16 for 99, more than any machine holds.
    let bomb = sum_transformer(|graph, logits| {
        let most = graph.node("ReduceMax", &["input_ids"], &[("keepdims", Attribute::Int(0))]);
        let limit = graph.integers(&[1], &[99]);
        let one = graph.integers(&[1], &[1]);
        let is_there = graph.node("Div", &[&most, &limit], &[]);
        let huge = graph.integers(&[1], &[10_i64.pow(16)]);
        let size = graph.node("Mul", &[&is_there, &huge], &[]);
        let size = graph.node("Add", &[&size, &one], &[]);
        let zeros = graph.node("ConstantOfShape", &[&size], &[]);
        let zero = graph.node("ReduceMax", &[&zeros], &[("keepdims", Attribute::Int(1))]);
        graph.node("Add", &[logits, &zero], &[])
    });
    let served = ModelServer::with_options(&bomb.model(), &["--workers", "1"]).await;
    for _ in 0..3 {
        let reply = served.predict_error("99").await;
        assert_eq!((reply.status, reply.problem_kind().as_str()), (500, "inference-failed"));
        assert!(!reply.body.contains("alloc"), "{}", reply.body);
        let batch = served.batch_predict(&["10", "99", "20"]).await;
        assert_eq!((item_answer(&batch[0]).score, item_answer(&batch[2]).score), (Some(15.0), Some(25.0)));
        assert_eq!(item_error(&batch[1]).kind, "/docs#inference-failed");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn batch_invariance_shipped_models_keep_scores() {
    let server = TestServer::start(shipped_models(), &[]).await;
    // From one word to more than a model reads.
    let words = ["my", "card", "has", "not", "come", "yet", "top", "up", "exchange", "rate", "?"];
    let text = |number: usize| {
        let length = [1, 2, 3, 5, 8, 13, 21, 34, 200, 600][number % 10];
        let word = |place: usize| words[(number * 7 + place * (number % 5 + 1)) % words.len()];
        (0..length).map(word).collect::<Vec<_>>().join(" ")
    };
    let texts: Vec<String> = (0..60).map(text).collect();
    for model in ["banking77-minilm", "banking77-tfidf"] {
        let body = json!({ "texts": texts, "model": model, "return_probabilities": true });
        let together = server.batch_predict(body).await;
        for (text, beside) in texts.iter().zip(together.iter().map(item_answer)) {
            let body = json!({ "text": text, "model": model, "return_probabilities": true });
            let alone = server.predict_with(body).await;
            assert_eq!(label(&alone), label(beside));
            assert_near(&probabilities(beside), &probabilities(&alone));
        }
    }
}

/// Adds a hundredth of the row's length, padding included, to a score.
fn add_row_length(graph: &mut OnnxGraph, logits: &str) -> String {
    let shape = graph.node("Shape", &["input_ids"], &[]);
    let one = graph.integers(&[1], &[1]);
    let two = graph.integers(&[1], &[2]);
    let length = graph.node("Slice", &[&shape, &one, &two], &[]);
    let length = graph.node("Cast", &[&length], &[("to", Attribute::Int(1))]);
    let hundredth = graph.floats(&[1], &[0.01]);
    let added = graph.node("Mul", &[&length, &hundredth], &[]);
    graph.node("Add", &[logits, &added], &[])
}

/// Adds a hundredth of the row's length for a text with a word above 80 only.
fn add_row_length_to_some(graph: &mut OnnxGraph, logits: &str) -> String {
    let axis = [("axes", Attribute::Ints(&[1])), ("keepdims", Attribute::Int(1))];
    let largest = graph.node("ReduceMax", &["input_ids"], &axis);
    let limit = graph.integers(&[1], &[80]);
    let above = graph.node("Greater", &[&largest, &limit], &[]);
    let longer = add_row_length(graph, logits);
    graph.node("Where", &[&above, &longer, logits], &[])
}

#[tokio::test]
async fn batch_invariance_padding_sensitivity_is_found_at_load() {
    for nodes in [add_row_length, add_row_length_to_some] {
        let served = ModelServer::new(&sum_transformer(nodes).model()).await;
        assert!(!served.model_info().await.shares_runs);
        let batch = served.batch_predict(&["90", "10 20 30 40 50 60 70 80 90"]).await;
        let alone = served.score("90").await;
        assert_eq!(score(item_answer(&batch[0])).to_bits(), alone.to_bits());
    }
}

/// Adds ten where the rows of a batch are longer than 100 tokens.
fn add_ten_to_long_rows(graph: &mut OnnxGraph, logits: &str) -> String {
    let shape = graph.node("Shape", &["input_ids"], &[]);
    let one = graph.integers(&[1], &[1]);
    let two = graph.integers(&[1], &[2]);
    let limit = graph.integers(&[1], &[100]);
    let length = graph.node("Slice", &[&shape, &one, &two], &[]);
    let is_long = graph.node("Greater", &[&length, &limit], &[]);
    let added = graph.node("Cast", &[&is_long], &[("to", Attribute::Int(1))]);
    let ten = graph.floats(&[1], &[10.0]);
    let added = graph.node("Mul", &[&added, &ten], &[]);
    graph.node("Add", &[logits, &added], &[])
}

#[tokio::test]
async fn batch_invariance_long_padding_is_found_at_load() {
    assert!(!ModelServer::new(&sum_transformer(add_ten_to_long_rows).model()).await.model_info().await.shares_runs);
}

#[tokio::test]
async fn batch_failing_graph_runs_texts_alone() {
    // The batch is made one row again, and cannot be added to what comes in several.
    let fails = sum_transformer(|graph, logits| {
        let shape = graph.integers(&[2], &[1, 1]);
        let zero = graph.floats(&[1], &[0.0]);
        let one = graph.node("Reshape", &[logits, &shape], &[]);
        let nothing = graph.node("Mul", &[&one, &zero], &[]);
        graph.node("Add", &[logits, &nothing], &[])
    });
    let served = ModelServer::new(&fails.model().manifest_toml("allow_batch_influence = true")).await;
    assert!(!served.model_info().await.shares_runs);
    assert_sums(&served).await;
}

#[tokio::test]
async fn batch_manifest_batching_off_runs_texts_alone() {
    let model = sum_transformer(|_, logits| logits.to_owned()).model();
    assert!(ModelServer::new(&model).await.model_info().await.shares_runs);
    let alone = ModelServer::new(&model.manifest_toml("batching = false")).await;
    assert!(!alone.model_info().await.shares_runs);
    assert_sums(&alone).await;
}
