//! Another model's tokenizer, and tokenizers made to break their reader.

use serde_json::{Value, json};

use super::load_error_of;
use crate::support::answers::{item_answer, item_error, label};
use crate::support::model_builder::ModelBuilder;
use crate::support::model_server::{MODEL, ModelServer, load_error};

/// Two labels, of which `low` wins up to a sum of ids of 50.
fn model_with_golden() -> ModelBuilder {
    let low = crate::support::model_builder::TransformerBuilder::new(&["input_ids", "attention_mask"])
        .logit(&[("bias", 50.0)])
        .logit(&[("input_ids", 1.0)])
        .model()
        .labels(&["low", "high"]);
    let examples = json!({ "examples": [
        { "text": "10 20", "label": "low" },
        { "text": "hello", "label": "high", "scores": { "high": 1.0 } },
    ]});
    low.file("golden.json", examples.to_string())
}

#[tokio::test]
async fn tokenizer_of_another_model_fails_golden_examples() {
    assert_eq!(label(&ModelServer::new(&model_with_golden()).await.predict("10 20").await), "low");
    // The same words with other ids: everything fits, and every answer is wrong.
    let other = model_with_golden().tokenizer(|file| {
        file["model"]["vocab"]["hello"] = json!(4);
        file["model"]["vocab"]["4"] = json!(100);
    });
    assert_eq!(load_error_of(&other).await, "golden.json: example 2: expected high, got low");
    let moved = model_with_golden().tokenizer(|file| {
        file["model"]["vocab"]["10"] = json!(98);
        file["model"]["vocab"]["98"] = json!(10);
    });
    assert_eq!(load_error_of(&moved).await, "golden.json: example 1: expected low, got high");
}

#[tokio::test]
async fn tokenizer_panicking_at_load_is_refused() {
    let crafted = ModelBuilder::plain()
        .tokenizer(|file| file["normalizer"] = json!({ "type": "Precompiled", "precompiled_charsmap": "not base64!" }));
    assert_eq!(load_error_of(&crafted).await, "tokenizer.json: the tokenizer panicked while loading");
}

#[tokio::test]
async fn tokenizer_panicking_on_every_text_is_refused() {
    // Pieces of no length.
    let pieces =
        ModelBuilder::plain().tokenizer(|file| file["pre_tokenizer"] = json!({ "type": "FixedLength", "length": 0 }));
    let expected = "model.onnx: the warm-up failed: the tokenizer of this model panicked on this text";
    assert_eq!(load_error_of(&pieces).await, expected);
    // A second text where there is only one, and a special token that is not explained.
    for (place, value) in [(1, json!("B")), (0, json!("[GONE]"))] {
        let crafted = ModelBuilder::plain().tokenizer(|file| {
            let part = file["post_processor"]["single"][place].as_object_mut().unwrap();
            part.values_mut().for_each(|part| part["id"] = value.clone());
        });
        let reason = load_error(&crafted).await;
        assert!(reason.starts_with("tokenizer.json: "), "{reason}");
    }
}

/// Splits at a pattern that backtracks: a row of x without a y after it takes twice the steps for each x.
fn use_backtracking_pattern(file: &mut Value) {
    file["pre_tokenizer"] = json!({ "type": "Sequence", "pretokenizers": [
        { "type": "Whitespace" },
        { "type": "Split", "pattern": { "Regex": "(x+x+)+y" }, "behavior": "Isolated", "invert": false },
    ]});
}

#[tokio::test(flavor = "multi_thread")]
async fn tokenizer_panicking_on_one_text_fails_that_text() {
    let served = ModelServer::new(&ModelBuilder::plain().tokenizer(use_backtracking_pattern)).await;
    let crafted = "x".repeat(40);
    let metrics = served.server.get("/metrics").await.body;
    assert!(metrics.contains("predictd_panics_total{place=\"tokenizer\"} 0"), "{metrics}");
    let reply = served.predict_error(&crafted).await;
    assert_eq!((reply.status, reply.problem_kind().as_str()), (422, "unusable-text"));
    let metrics = served.server.get("/metrics").await.body;
    assert!(metrics.contains("predictd_panics_total{place=\"tokenizer\"} 1"), "{metrics}");
    let batch = served.batch_predict(&["10", &crafted, "hello"]).await;
    assert_eq!(item_error(&batch[1]).kind, "/docs#unusable-text");
    assert_eq!((label(item_answer(&batch[0])), label(item_answer(&batch[2]))), ("a", "a"));
    // The same off the async threads, where long requests are tokenised.
    let filler = "10 ".repeat(600);
    let batch = served.batch_predict(&[&filler, &crafted, "10"]).await;
    assert_eq!(item_error(&batch[1]).kind, "/docs#unusable-text");
    assert_eq!(label(item_answer(&batch[2])), "a");
    let metrics = served.server.get("/metrics").await.body;
    assert!(metrics.contains("predictd_panics_total{place=\"tokenizer\"} 3"), "{metrics}");
    assert_eq!(served.predict_with("10 20", json!({ "model": MODEL })).await.tokens, 4);
    assert_eq!(served.server.app.inference.engine.free_permits(), 4_096);
    served.server.stop().await.unwrap();
}
