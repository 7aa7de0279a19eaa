//! Good requests and the form of their answers.

use std::collections::BTreeSet;
use std::time::SystemTime;

use predictd::experiments::receipts::ReceiptKeyring;
use serde_json::{Value, json};

use crate::support::assertions::to_f64s;
use crate::support::test_server::{CHEAP_MODEL, QUESTION, TestServer, cheap_models};

async fn start_server() -> TestServer {
    TestServer::start(cheap_models().path(), &[]).await
}

fn object_keys(value: &Value) -> Vec<&str> {
    value.as_object().unwrap().keys().map(String::as_str).collect()
}

async fn model_labels(server: &TestServer) -> Vec<String> {
    let model = server.get(&format!("/models/{CHEAP_MODEL}")).await.json::<Value>();
    serde_json::from_value(model["versions"][0]["labels"].clone()).unwrap()
}

/// Checks everything that a single-label answer says against itself.
fn assert_consistent_prediction(answer: &Value, labels: &[String]) {
    let probabilities = to_f64s(&answer["probabilities"]);
    assert_eq!(probabilities.len(), labels.len());
    assert!(probabilities.iter().all(|p| (0.0..=1.0).contains(p)), "{probabilities:?}");
    assert!((probabilities.iter().sum::<f64>() - 1.0).abs() <= 1e-3, "{probabilities:?}");
    let index = labels.iter().position(|label| answer["prediction"] == **label).unwrap();
    assert_eq!(answer["confidence"], answer["probabilities"][index], "the label's own probability");
    assert!(probabilities.iter().all(|&p| p <= probabilities[index]), "the best label is the answer");
}

#[tokio::test]
async fn predict_response_has_requested_fields_only() {
    let server = start_server().await;
    let labels = model_labels(&server).await;
    let plain = server.post_json("/predict", json!({ "text": QUESTION })).await;
    assert_eq!((plain.status, plain.headers["content-type"].to_str().unwrap()), (200, "application/json"));
    let plain = plain.json::<Value>();
    assert_eq!(object_keys(&plain), ["confidence", "model", "prediction", "prediction_id", "tokens", "truncated"]);
    assert_eq!(plain["prediction"], "card_arrival");
    assert_eq!(plain["model"], json!({ "name": CHEAP_MODEL, "version": "1" }));
    assert_eq!((&plain["truncated"], &plain["tokens"]), (&json!(false), &json!(10)));

    let options = json!({ "text": QUESTION, "top_k": 3, "return_probabilities": true, "model": CHEAP_MODEL,
        "version": "1", "user_id": "somebody" });
    let full = server.post_json("/predict", options).await.json::<Value>();
    assert_consistent_prediction(&full, &labels);
    let top = full["top"].as_array().unwrap();
    assert_eq!((top.len(), &top[0]["label"], &top[0]["score"]), (3, &full["prediction"], &full["confidence"]));
    let mut best = to_f64s(&full["probabilities"]);
    best.sort_by(|a, b| b.total_cmp(a));
    for (place, entry) in top.iter().enumerate() {
        let index = labels.iter().position(|label| entry["label"] == **label).unwrap();
        assert_eq!(entry["score"], full["probabilities"][index]);
        assert_eq!(entry["score"], json!(best[place]), "best first");
    }
    assert_eq!(full["confidence"], plain["confidence"], "options do not change the answer");
}

#[tokio::test]
async fn batch_predict_bare_list_keeps_order() {
    let server = start_server().await;
    let labels = model_labels(&server).await;
    let texts =
        [QUESTION, "I was charged twice", "hello", QUESTION, "猫 😀 é", "Which rate do you use for dollars, and when?"];
    let answer = server.post_json("/batch_predict", json!(texts)).await.json::<Value>();
    assert_eq!(object_keys(&answer), ["results"]);
    let results = answer["results"].as_array().unwrap();
    assert_eq!(results.len(), texts.len());
    for (index, (result, text)) in results.iter().zip(texts).enumerate() {
        assert_eq!(result["text_index"], index);
        assert_consistent_prediction(result, &labels);
        let alone =
            server.post_json("/predict", json!({ "text": text, "return_probabilities": true })).await.json::<Value>();
        assert!(max_difference(result, &alone) < 1e-5, "{text}: {result} {alone}");
    }
    assert!(max_difference(&results[0], &results[3]) < 1e-5);
    assert!(max_difference(&results[0], &results[1]) > 0.1);
}

/// Largest difference between the probabilities of two answers.
fn max_difference(one: &Value, other: &Value) -> f64 {
    let scores = |answer: &Value| -> Vec<f64> {
        answer["probabilities"].as_array().unwrap().iter().map(|p| p.as_f64().unwrap()).collect()
    };
    scores(one).into_iter().zip(scores(other)).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max)
}

#[tokio::test]
async fn batch_predict_object_body_accepts_options() {
    let server = start_server().await;
    let plain = server.post_json("/batch_predict", json!({ "texts": [QUESTION] })).await.json::<Value>();
    let fields = ["confidence", "model", "prediction", "prediction_id", "text_index", "tokens", "truncated"];
    assert_eq!(object_keys(&plain["results"][0]), fields);
    let options = json!({ "texts": [QUESTION, "x"], "top_k": 2, "return_probabilities": true, "model": CHEAP_MODEL,
        "version": "1", "user_id": "u", "raw_scores": false });
    let results = server.post_json("/batch_predict", options).await.json::<Value>()["results"].clone();
    let labels = model_labels(&server).await;
    for result in results.as_array().unwrap() {
        assert_consistent_prediction(result, &labels);
        assert_eq!(result["top"].as_array().unwrap().len(), 2);
    }
    assert_eq!(results[0]["prediction"], "card_arrival");
}

#[tokio::test]
async fn prediction_id_is_a_receipt_of_this_server() {
    let server = start_server().await;
    let receipts = ReceiptKeyring::open(&server.data.path().join("receipt.keys")).unwrap();
    let batch =
        server.post_json("/batch_predict", json!([QUESTION, QUESTION, "I was charged twice"])).await.json::<Value>();
    let mut answers = batch["results"].as_array().unwrap().clone();
    answers.push(server.post_json("/predict", json!({ "text": QUESTION })).await.json::<Value>());
    let mut ids = BTreeSet::new();
    for answer in answers {
        let sealed = answer["prediction_id"].as_str().unwrap();
        let receipt = receipts.verify(sealed, SystemTime::now()).unwrap();
        assert_eq!(
            (receipt.model.as_str(), receipt.version.as_str(), receipt.arm_path.as_str()),
            (CHEAP_MODEL, "1", "")
        );
        assert_eq!(json!(receipt.labels), json!([answer["prediction"]]));
        assert_eq!(receipt.confidence.to_string(), answer["confidence"].to_string());
        ids.insert((sealed.to_owned(), receipt.id));
    }
    assert_eq!(ids.len(), 4, "the same question twice has two ids");
}
