//! `GET /models` and what stands below it.

use std::collections::BTreeSet;

use serde_json::json;

use crate::support::test_server::{CHEAP_MODEL, QUESTION, TestServer, shipped_models};

#[tokio::test]
async fn models_route_describes_each_model() {
    let server = TestServer::start(shipped_models(), &["--default-model", CHEAP_MODEL]).await;
    let list = server.get("/models").await.json::<serde_json::Value>();
    let entry = |name: &str| {
        let versions = json!([{ "version": "1", "state": "ready" }]);
        json!({ "name": name, "default": name == CHEAP_MODEL, "active_version": "1", "versions": versions })
    };
    assert_eq!(list, json!({ "models": [entry("banking77-minilm"), entry(CHEAP_MODEL)] }));
    for name in ["banking77-minilm", CHEAP_MODEL] {
        let model = server.get(&format!("/models/{name}")).await.json::<serde_json::Value>();
        assert_eq!((&model["name"], &model["default"]), (&json!(name), &json!(name == CHEAP_MODEL)));
        let version = &model["versions"][0];
        assert_eq!(version["task"], "single_label_classification");
        let labels: BTreeSet<&str> =
            version["labels"].as_array().unwrap().iter().map(|label| label.as_str().unwrap()).collect();
        assert_eq!(labels.len(), 77, "every label once");
        assert!(labels.contains("card_arrival"));
        assert_eq!((&version["device"], &version["limits"]["max_text_chars"]), (&json!("cpu"), &json!(32_768)));
        assert_eq!(version["limits"]["max_client_batch_size"], 1_024);
        assert_eq!(version["limits"]["max_tokens"].is_u64(), name != CHEAP_MODEL, "only a model with a tokenizer");
        let answer =
            server.post_json("/predict", json!({ "text": QUESTION, "model": name })).await.json::<serde_json::Value>();
        assert_eq!((&answer["prediction"], &answer["model"]["name"]), (&json!("card_arrival"), &json!(name)));
    }
    let unnamed = server.post_json("/predict", json!({ "text": QUESTION })).await.json::<serde_json::Value>();
    assert_eq!(unnamed["model"]["name"], CHEAP_MODEL, "--default-model answers");
}
