//! Good requests and the form of their answers.

use std::collections::BTreeSet;
use std::time::SystemTime;

use predictd::api::predictions::{BatchAnswer, OneOrMany, Prediction};
use predictd::experiments::receipts::ReceiptKeyring;
use serde_json::{Value, json};

use crate::support::answers::{confidence, item_answer, label, probabilities};
use crate::support::test_server::{CHEAP_MODEL, QUESTION, TestServer, cheap_models};

async fn start_server() -> TestServer {
    TestServer::start(cheap_models().path(), &[]).await
}

fn object_keys(value: &Value) -> Vec<&str> {
    value.as_object().unwrap().keys().map(String::as_str).collect()
}

async fn model_labels(server: &TestServer) -> Vec<String> {
    server.model(CHEAP_MODEL).await.versions.swap_remove(0).facts.unwrap().labels
}

/// Checks everything that a single-label answer says against itself.
fn assert_consistent_prediction(answer: &Prediction, labels: &[String]) {
    let probabilities = probabilities(answer);
    assert_eq!(probabilities.len(), labels.len());
    assert!(probabilities.iter().all(|p| (0.0..=1.0).contains(p)), "{probabilities:?}");
    assert!((probabilities.iter().sum::<f64>() - 1.0).abs() <= 1e-3, "{probabilities:?}");
    let index = labels.iter().position(|known| known == label(answer)).unwrap();
    assert_eq!(Some(&confidence(answer)), probabilities.get(index), "the label's own probability");
    assert!(probabilities.iter().all(|&p| p <= probabilities[index]), "the best label is the answer");
}

#[tokio::test]
async fn predict_response_has_requested_fields_only() {
    let server = start_server().await;
    let labels = model_labels(&server).await;
    let plain = server.post_json("/predict", json!({ "text": QUESTION })).await;
    assert_eq!((plain.status, plain.headers["content-type"].to_str().unwrap()), (200, "application/json"));
    assert_eq!(
        object_keys(&plain.json()),
        ["confidence", "model", "prediction", "prediction_id", "tokens", "truncated"]
    );
    assert_eq!(object_keys(&plain.json::<Value>()["model"]), ["name", "version"]);
    let plain: Prediction = plain.json();
    assert_eq!(label(&plain), "card_arrival");
    assert_eq!((plain.model.name.as_str(), plain.model.version.as_str()), (CHEAP_MODEL, "1"));
    assert_eq!((plain.truncated, plain.tokens), (false, 10));

    let options = json!({ "text": QUESTION, "top_k": 3, "return_probabilities": true, "model": CHEAP_MODEL,
        "version": "1", "user_id": "somebody" });
    let full = server.predict_with(options).await;
    assert_consistent_prediction(&full, &labels);
    let top = full.top.as_ref().unwrap();
    assert_eq!((top.len(), top[0].label.as_str(), f64::from(top[0].score)), (3, label(&full), confidence(&full)));
    let mut best = probabilities(&full);
    best.sort_by(|a, b| b.total_cmp(a));
    for (place, entry) in top.iter().enumerate() {
        let index = labels.iter().position(|label| entry.label == *label).unwrap();
        let score = f64::from(entry.score);
        assert_eq!((score, score), (probabilities(&full)[index], best[place]), "best first");
    }
    assert_eq!(full.confidence, plain.confidence, "options do not change the answer");
}

#[tokio::test]
async fn batch_predict_bare_list_keeps_order() {
    let server = start_server().await;
    let labels = model_labels(&server).await;
    let texts =
        [QUESTION, "I was charged twice", "hello", QUESTION, "猫 😀 é", "Which rate do you use for dollars, and when?"];
    let reply = server.post_json("/batch_predict", json!(texts)).await;
    assert_eq!(object_keys(&reply.json()), ["results"]);
    let results = reply.ok::<BatchAnswer>().results;
    assert_eq!(results.len(), texts.len());
    for (index, (item, text)) in results.iter().zip(texts).enumerate() {
        assert_eq!(item.text_index, index);
        let result = item_answer(item);
        assert_consistent_prediction(result, &labels);
        let alone = server.predict_with(json!({ "text": text, "return_probabilities": true })).await;
        assert!(max_difference(result, &alone) < 1e-5, "{text}: {result:?} {alone:?}");
    }
    assert!(max_difference(item_answer(&results[0]), item_answer(&results[3])) < 1e-5);
    assert!(max_difference(item_answer(&results[0]), item_answer(&results[1])) > 0.1);
}

/// Largest difference between the probabilities of two answers.
fn max_difference(one: &Prediction, other: &Prediction) -> f64 {
    probabilities(one).into_iter().zip(probabilities(other)).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max)
}

#[tokio::test]
async fn batch_predict_object_body_accepts_options() {
    let server = start_server().await;
    let plain = server.post_json("/batch_predict", json!({ "texts": [QUESTION] })).await.json::<Value>();
    let fields = ["confidence", "model", "prediction", "prediction_id", "text_index", "tokens", "truncated"];
    assert_eq!(object_keys(&plain["results"][0]), fields);
    let options = json!({ "texts": [QUESTION, "x"], "top_k": 2, "return_probabilities": true, "model": CHEAP_MODEL,
        "version": "1", "user_id": "u", "raw_scores": false });
    let results = server.batch_predict(options).await;
    let labels = model_labels(&server).await;
    for result in results.iter().map(item_answer) {
        assert_consistent_prediction(result, &labels);
        assert_eq!(result.top.as_ref().unwrap().len(), 2);
    }
    assert_eq!(label(item_answer(&results[0])), "card_arrival");
}

#[tokio::test]
async fn prediction_id_is_a_receipt_of_this_server() {
    let server = start_server().await;
    let receipts = ReceiptKeyring::open(&server.data.path().join("receipt.keys")).unwrap();
    let batch = server.batch_predict(json!([QUESTION, QUESTION, "I was charged twice"])).await;
    let alone = server.predict(QUESTION).await;
    let mut ids = BTreeSet::new();
    for answer in batch.iter().map(item_answer).chain([&alone]) {
        let sealed = &answer.prediction_id;
        let receipt = receipts.verify(sealed, SystemTime::now()).unwrap();
        assert_eq!(
            (receipt.model.as_str(), receipt.version.as_str(), receipt.arm_path.as_str()),
            (CHEAP_MODEL, "1", "")
        );
        assert_eq!(receipt.labels, [label(answer)]);
        assert_eq!(Some(OneOrMany::One(receipt.confidence)), answer.confidence);
        ids.insert((sealed.clone(), receipt.id));
    }
    assert_eq!(ids.len(), 4, "the same question twice has two ids");
}
