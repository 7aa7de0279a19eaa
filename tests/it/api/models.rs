//! `GET /models` and what stands below it.

use std::collections::BTreeSet;

use serde_json::json;

use crate::support::answers::label;
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
        let model = server.model(name).await;
        assert_eq!((model.name.as_str(), model.default), (name, name == CHEAP_MODEL));
        let facts = model.versions[0].facts.as_ref().unwrap();
        assert_eq!(facts.task, "single_label_classification");
        let labels: BTreeSet<&str> = facts.labels.iter().map(String::as_str).collect();
        assert_eq!(labels.len(), 77, "every label once");
        assert!(labels.contains("card_arrival"));
        assert_eq!((facts.device.as_str(), facts.limits.max_text_chars), ("cpu", 32_768));
        assert_eq!(facts.limits.max_client_batch_size, 1_024);
        assert_eq!(facts.limits.max_tokens.is_some(), name != CHEAP_MODEL, "only a model with a tokenizer");
        let answer = server.predict_with(json!({ "text": QUESTION, "model": name })).await;
        assert_eq!((label(&answer), answer.model.name.as_str()), ("card_arrival", name));
    }
    assert_eq!(server.predict(QUESTION).await.model.name, CHEAP_MODEL, "--default-model answers");
}
