//! Two texts in one row: segments, cutting, refusals.

use predictd::api::predictions::{BatchAnswer, Prediction};
use serde_json::json;

use crate::support::answers::{item_answer, item_error, label, score};
use crate::support::assertions::assert_near;
use crate::support::model_builder::sample_models::summing_pair_model;
use crate::support::model_builder::{ModelBuilder, SPECIAL_TOKENS_SUM};
use crate::support::model_server::ModelServer;
use crate::support::test_server::Response;

/// Special tokens around two texts add this: `[SEP]` stands behind each, the last in the second segment.
const PAIR_SPECIAL_TOKENS_SUM: f64 = SPECIAL_TOKENS_SUM as f64 + 3.0 + 1_000.0;

async fn predict_pair(served: &ModelServer, text: &str, second: &str) -> Prediction {
    served.predict_with(text, json!({ "text_pair": second })).await
}

#[tokio::test]
async fn pair_second_text_gets_segment_1() {
    let served = ModelServer::new(&summing_pair_model()).await;
    let answer = predict_pair(&served, "10 20", "30").await;
    assert_near(&[score(&answer)], &[60.0 + 1_000.0 + PAIR_SPECIAL_TOKENS_SUM]);
    assert_eq!((answer.tokens, answer.truncated), (6, false));
    // The same words as one text are another question, also for the cache.
    assert_near(&[served.score("10 20 30").await], &[60.0 + f64::from(SPECIAL_TOKENS_SUM)]);
    assert_near(&[score(&predict_pair(&served, "10", "20 30").await)], &[60.0 + 2_000.0 + PAIR_SPECIAL_TOKENS_SUM]);
    assert!(served.model_info().await.takes_pairs);
}

#[tokio::test]
async fn pair_batch_has_a_second_text_per_item() {
    let served = ModelServer::new(&summing_pair_model()).await;
    let body = json!({ "texts": ["10", "20 20 20", "30"], "text_pairs": ["1", "2 2", "40 40 40 40"] });
    let batch = served.server.batch_predict(body).await;
    let scores: Vec<f64> = batch.iter().map(|item| score(item_answer(item))).collect();
    // "1" and "2" are not in the vocabulary: id 1.
    assert_near(
        &scores,
        &[
            11.0 + 1_000.0 + PAIR_SPECIAL_TOKENS_SUM,
            62.0 + 2_000.0 + PAIR_SPECIAL_TOKENS_SUM,
            190.0 + 4_000.0 + PAIR_SPECIAL_TOKENS_SUM,
        ],
    );
    let uneven =
        served.server.post_json("/batch_predict", json!({ "texts": ["10", "20"], "text_pairs": ["30"] })).await;
    assert_eq!(uneven.status, 422);
    assert_eq!(uneven.problem().errors[0].pointer, "/text_pairs");
    for wrong in [" ", "<script>x</script>"] {
        let body = json!({ "texts": ["10", "20"], "text_pairs": ["30", wrong] });
        assert_second_pair_error(&served.server.post_json("/batch_predict", body).await);
    }
}

/// The first pair is answered, and the second has an error in its place, which names its second text.
fn assert_second_pair_error(reply: &Response) {
    let batch = reply.ok::<BatchAnswer>().results;
    assert!(item_answer(&batch[0]).score.is_some(), "{batch:?}");
    let error = item_error(&batch[1]);
    assert_eq!((error.status, error.errors[0].pointer.as_str()), (422, "/text_pairs/1"));
    let counts = ["\"score\":", "\"error\":"].map(|field| reply.body.matches(field).count());
    assert_eq!(counts, [1, 1], "no item has both: {}", reply.body);
}

#[tokio::test]
async fn pair_truncation_cuts_longer_text_first() {
    let served = ModelServer::new(&summing_pair_model().manifest_toml("max_tokens = 10")).await;
    // Seven tokens have room.
    for (text, second, kept) in [
        ("10 10 10 10 10 10 10 10 10", "20 20", (5, 2)),
        ("10 10", "20 20 20 20 20 20 20 20", (2, 5)),
        ("10 10 10 10 10 10", "20 20 20 20 20", (4, 3)),
        ("10 10 10 10 10", "20 20 20 20 20", (3, 4)),
        ("10 10 10 10", "20 20 20", (4, 3)),
        // Both are so long that the tokenizer need not read them to their end.
        (&"10 ".repeat(29), &"20 ".repeat(28), (4, 3)),
        (&"10 ".repeat(5_000), &"20 ".repeat(4_999), (4, 3)),
        (&"10 ".repeat(4_999), &"20 ".repeat(5_000), (3, 4)),
    ] {
        let answer = predict_pair(&served, text, second).await;
        let first = f64::from(kept.0);
        let last = f64::from(kept.1);
        assert_near(&[score(&answer)], &[first * 10.0 + last * 1_020.0 + PAIR_SPECIAL_TOKENS_SUM]);
        let words = text.split_whitespace().chain(second.split_whitespace()).count();
        assert_eq!((answer.tokens, answer.truncated), (10, words > 7), "{text} | {second}");
    }
    let refusing =
        ModelServer::new(&summing_pair_model().manifest_toml("max_tokens = 10\non_overflow = 'error'")).await;
    let long = json!({ "text": "10 10 10 10 10", "text_pair": "20 20 20" });
    let refused = refusing.server.post_json("/predict", long).await;
    assert_eq!(refused.status, 422);
    assert!(refused.problem().detail.contains("11 tokens"), "{}", refused.body);
}

#[tokio::test]
async fn pair_on_single_text_model_is_refused() {
    use crate::support::model_builder::onnx_graph::{Attribute, Dim, ElementType, OnnxGraph};
    let mut graph = OnnxGraph::default();
    graph.input("text", ElementType::Text, &[Dim::Open("n"), Dim::Fixed(1)]);
    let keys = Attribute::Texts(&["yes", "no"]);
    let values = Attribute::Floats(&[0.9, 0.2]);
    let attributes = [("keys_strings", keys), ("values_floats", values), ("default_float", Attribute::Float(0.5))];
    let p = graph.node("ai.onnx.ml.LabelEncoder", &["text"], &attributes);
    let one = graph.floats(&[1], &[1.0]);
    let other = graph.node("Sub", &[&one, &p], &[]);
    let both = graph.node("Concat", &[&other, &p], &[("axis", Attribute::Int(1))]);
    graph.rename_value(&both, "probabilities");
    graph.output("probabilities", ElementType::Float, &[Dim::Open("n"), Dim::Fixed(2)]);
    let served = ModelServer::new(&ModelBuilder::from_graph(&graph).labels(&["a", "b"])).await;
    assert_eq!(label(&served.predict("yes").await), "b");
    let refused = served.server.post_json("/predict", json!({ "text": "yes", "text_pair": "no" })).await;
    assert_eq!((refused.status, refused.problem().errors[0].pointer.as_str()), (422, "/text_pair"));
    assert!(!served.model_info().await.takes_pairs);
}
