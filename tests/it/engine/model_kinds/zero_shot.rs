//! Labels in the request, on a model that judges two texts.

use serde_json::{Value, json};

use crate::support::answers::{confidence, label, labels, probabilities};
use crate::support::assertions::{assert_near, softmax};
use crate::support::model_builder::sample_models::entailment_model;
use crate::support::model_server::ModelServer;

fn zero_shot_body(more: &Value) -> Value {
    let mut body = json!({ "labels": ["20", "40", "30"], "hypothesis_template": "{}", "return_probabilities": true });
    body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    body
}

#[tokio::test]
async fn zero_shot_best_request_label_wins() {
    let served = ModelServer::new(&entailment_model()).await;
    let answer = served.predict_with("10", zero_shot_body(&json!({ "top_k": 2 }))).await;
    let expected = softmax(&[3.0, 5.0, 4.0]);
    assert_eq!(label(&answer), "40");
    assert_near(&probabilities(&answer), &expected);
    assert_near(&[confidence(&answer)], &expected[1..2]);
    let top = answer.top.as_ref().unwrap();
    assert_eq!((top[1].label.as_str(), top.len()), ("30", 2));
    // Three rows of five tokens.
    assert_eq!((answer.tokens, answer.truncated), (15, false));
    let raw = served.predict_with("10", zero_shot_body(&json!({ "raw_scores": true }))).await;
    assert_near(&probabilities(&raw), &[3.0, 5.0, 4.0]);
    // Without labels it is the model that it is.
    assert_eq!(label(&served.predict_with("10", json!({ "text_pair": "90" })).await), "entailment");
}

#[tokio::test]
async fn zero_shot_multi_label_scores_independently() {
    let served = ModelServer::new(&entailment_model()).await;
    let answer = served.predict_with("10", zero_shot_body(&json!({ "multi_label": true }))).await;
    let each = |z: f64| softmax(&[5.0, z])[1];
    assert_near(&probabilities(&answer), &[3.0, 5.0, 4.0].map(each));
    assert_eq!(labels(&answer), ["40"]);
    let single = json!({ "labels": ["30"], "hypothesis_template": "{}", "return_probabilities": true });
    assert_near(&probabilities(&served.predict_with("10", single).await), &[each(4.0)]);
}

#[tokio::test]
async fn zero_shot_label_is_never_truncated() {
    let served = ModelServer::new(&entailment_model().manifest_toml("max_tokens = 8")).await;
    let text = "10 10 10 10 10 10";
    let answer = served.predict_with(text, zero_shot_body(&json!({ "raw_scores": true }))).await;
    // Four words of the text have room beside a label of one.
    assert_near(&probabilities(&answer), &[6.0, 8.0, 7.0]);
    assert_eq!((answer.tokens, answer.truncated), (24, true));
    let long = json!({ "text": "10", "labels": ["20", "20 20 20 20 20 20"], "hypothesis_template": "{}" });
    let refused = served.server.post_json("/predict", long).await;
    assert_eq!((refused.status, refused.problem_kind().as_str()), (422, "text-too-long"), "{}", refused.body);
}

#[tokio::test]
async fn zero_shot_invalid_labels_are_named() {
    let served = ModelServer::new(&entailment_model()).await;
    let many: Vec<String> = (0..101).map(|number| number.to_string()).collect();
    for (body, pointer) in [
        (json!({ "labels": [] }), "/labels"),
        (json!({ "labels": many }), "/labels"),
        (json!({ "labels": ["a", " "] }), "/labels/1"),
        (json!({ "labels": ["a", "b", "a"] }), "/labels/2"),
        (json!({ "labels": ["a".repeat(257)] }), "/labels/0"),
        (json!({ "labels": ["a", "<script>b</script>"] }), "/labels/1"),
        (json!({ "labels": ["a"], "hypothesis_template": "about" }), "/hypothesis_template"),
        (json!({ "labels": ["a"], "text_pair": "b" }), "/text_pair"),
        (json!({ "hypothesis_template": "{}" }), "/hypothesis_template"),
        (json!({ "multi_label": true }), "/multi_label"),
    ] {
        let mut body = body;
        body["text"] = json!("10");
        let reply = served.server.post_json("/predict", body.clone()).await;
        assert_eq!((reply.status, reply.problem().errors[0].pointer.as_str()), (422, pointer), "{body} {}", reply.body);
    }
    let other = ModelServer::new(&entailment_model().labels(&["a", "b", "c"])).await;
    let reply = other.server.post_json("/predict", json!({ "text": "10", "labels": ["a", "b"] })).await;
    assert_eq!((reply.status, reply.problem().errors[0].pointer.as_str()), (422, "/labels"), "{}", reply.body);
}

#[tokio::test]
async fn zero_shot_each_label_counts_as_a_text() {
    let served = ModelServer::with_options(&entailment_model(), &["--rate-limit", "3"]).await;
    let reply = served
        .server
        .post_json("/predict", {
            let mut body = zero_shot_body(&json!({}));
            body["text"] = json!("10");
            body
        })
        .await;
    assert_eq!(reply.status, 200, "{}", reply.body);
    assert_eq!(served.server.post_json("/predict", json!({ "text": "10" })).await.status, 429);
}
