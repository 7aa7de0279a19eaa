//! Texts of which nothing is left, and texts that get very long: refused with a sentence, whatever the model.

use serde_json::json;

use crate::support::answers::{item_answer, item_error, label};
use crate::support::model_builder::ModelBuilder;
use crate::support::model_server::{ModelServer, load_error};

/// Knows `a` and `b`, drops everything else, and puts nothing around a text.
fn dropping_tokenizer_model() -> ModelBuilder {
    ModelBuilder::plain().tokenizer(|file| {
        file["added_tokens"] = json!([]);
        file["post_processor"] = json!(null);
        file["model"] = json!({ "type": "BPE", "vocab": { "a": 10, "b": 20 }, "merges": [] });
    })
}

#[tokio::test]
async fn empty_tokenization_is_refused_alone_and_in_batch() {
    let served = ModelServer::new(&dropping_tokenizer_model()).await;
    let answer = served.predict("a b").await;
    assert_eq!((answer.tokens, label(&answer)), (2, "a"));
    let reply = served.predict_error("zzz").await;
    assert_eq!((reply.status, reply.problem_kind().as_str()), (422, "unusable-text"));
    assert_eq!(
        reply.problem().detail,
        "The text has no tokens for this model: its vocabulary has nothing of what stands there."
    );
    let batch = served.batch_predict(&["a", "zzz", "b"]).await;
    assert_eq!(item_error(&batch[1]).kind, "/docs#unusable-text");
    assert_eq!((label(item_answer(&batch[0])), label(item_answer(&batch[2]))), ("a", "a"));
    // Half of a pair may have none.
    let pair = served.predict_with("zzz", json!({ "text_pair": "a" })).await;
    assert_eq!(pair.tokens, 1);
    let reply = served.server.post_json("/predict", json!({ "text": "zzz", "text_pair": "yyy" })).await;
    assert_eq!((reply.status, reply.problem_kind().as_str()), (422, "unusable-text"));
}

#[tokio::test]
async fn empty_tokenization_of_warm_up_text_still_serves() {
    let served = ModelServer::new(&dropping_tokenizer_model().tokenizer(|file| {
        file["added_tokens"] = json!([]);
        file["post_processor"] = json!(null);
        file["model"] = json!({ "type": "BPE", "vocab": { "猫": 10, "犬": 20 }, "merges": [] });
    }))
    .await;
    assert_eq!(served.predict("猫犬").await.tokens, 2);
    assert_eq!(served.predict_error("one short text").await.status, 422);
}

#[tokio::test]
async fn normalizer_expansion_is_bounded() {
    let double = json!({ "type": "Replace", "pattern": { "String": "q" }, "content": "qq" });
    let model = ModelBuilder::plain().tokenizer(|file| {
        file["normalizer"] = json!({ "type": "Sequence", "normalizers": vec![double; 30] });
    });
    let served = ModelServer::new(&model).await;
    let reply = served.predict_error("q").await;
    assert_eq!((reply.status, reply.problem_kind().as_str()), (422, "unusable-text"));
    assert_eq!(
        reply.problem().detail,
        "The model's tokenizer makes this text longer than 1048576 bytes: send a shorter one."
    );
    assert_eq!(served.predict("10 20").await.tokens, 4);
    // Without `q` a long text is as long as it was.
    assert!(served.predict(&"10 ".repeat(8_000)).await.truncated);
    // Its own warm-up may hold such a character: then it does not load.
    let warm_up = json!({ "type": "Replace", "pattern": { "String": "o" }, "content": "oo" });
    let model = ModelBuilder::plain().tokenizer(|file| {
        file["normalizer"] = json!({ "type": "Sequence", "normalizers": vec![warm_up; 30] });
    });
    assert_eq!(
        load_error(&model).await,
        "model.onnx: the warm-up failed: the tokenizer of this model makes the text longer than 1048576 bytes"
    );
    let batch = served.batch_predict(&["10", "q", "hello"]).await;
    assert_eq!(item_error(&batch[1]).kind, "/docs#unusable-text");
    assert_eq!((label(item_answer(&batch[0])), label(item_answer(&batch[2]))), ("a", "a"));
}
