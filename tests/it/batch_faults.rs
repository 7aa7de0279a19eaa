//! A text that cannot be answered has an error in its place, and the others of its batch are answered.

use serde_json::{Value, json};

use crate::raw::{Wire, request};
use crate::server::{CHEAP_MODEL, QUESTION, TestServer, cheap_models, shipped_models};

/// Texts that no model is asked, with what is said of them.
const FAULTS: [(&str, &str); 6] = [
    ("", "a text must not be empty or blank"),
    (" \t\u{3000}", "a text must not be empty or blank"),
    ("a\0b", "a text must not contain the control character U+0000"),
    ("\u{1b}[31m", "a text must not contain the control character U+001B"),
    ("<script>x</script>", "a text must not contain a script element"),
    ("<a href='javascript:x'>y</a>", "a text must not contain markup with a javascript: URL"),
];

fn assert_fault(item: &Value, pointer: &str, detail: &str) {
    let error = &item["error"];
    assert_eq!((&error["type"], &error["status"]), (&json!("/docs#invalid-request"), &json!(422)), "{item}");
    assert_eq!(error["errors"], json!([{ "pointer": pointer, "detail": detail }]), "{item}");
    assert!(item["prediction"].is_null(), "{item}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_faulty_text_has_an_error_in_its_place() {
    let server = TestServer::start(shipped_models(), &["--cache-bytes", "4194304"]).await;
    for model in [CHEAP_MODEL, "banking77-minilm"] {
        for (fault, detail) in FAULTS {
            // The second time the good texts come from the cache. Many texts are tokenised elsewhere.
            for good in [1, 1, 100] {
                let mut texts = vec![QUESTION; good];
                texts.insert(good / 2, fault);
                let reply = server.ask("/batch_predict", json!({ "texts": texts, "model": model })).await;
                assert_eq!(reply.status, 200, "{fault:?}: {}", reply.body);
                let results = reply.json()["results"].clone();
                for (index, item) in results.as_array().unwrap().iter().enumerate() {
                    assert_eq!(item["text_index"], index);
                    if index == good / 2 {
                        assert_fault(item, &format!("/texts/{index}"), detail);
                    } else {
                        assert_eq!(item["prediction"], "card_arrival", "{fault:?}: {item}");
                    }
                }
            }
            let alone = server.ask("/predict", json!({ "text": fault, "model": model })).await;
            assert_eq!((alone.status, alone.problem().as_str()), (422, "invalid-request"), "{fault:?}");
            assert_eq!(alone.json()["errors"], json!([{ "pointer": "/text", "detail": detail }]));
        }
    }
}

#[tokio::test]
async fn every_fault_of_a_batch_is_named() {
    let server = TestServer::start(cheap_models().path(), &[]).await;
    let texts: Vec<&str> = FAULTS.iter().map(|(fault, _)| *fault).collect();
    // A bare list, and no good text at all.
    let reply = server.ask("/batch_predict", json!(texts)).await;
    assert_eq!(reply.status, 200, "{}", reply.body);
    let results = reply.json()["results"].clone();
    assert_eq!(results.as_array().unwrap().len(), FAULTS.len());
    for (index, (_, detail)) in FAULTS.iter().enumerate() {
        assert_fault(&results[index], &format!("/{index}"), detail);
    }
    let metrics = server.get("/metrics").await.body;
    let refused = format!("predictd_text_errors_total{{kind=\"refused\",model=\"{CHEAP_MODEL}\",version=\"1\"}} 4");
    assert!(metrics.contains(&refused), "{metrics}");
    // Shape is the whole request's.
    for wrong in [json!(["a", 7]), json!({ "texts": [] }), json!({ "texts": ["a"], "text_pairs": [] })] {
        assert_eq!(server.ask("/batch_predict", wrong.clone()).await.status, 422, "{wrong}");
    }
    assert_eq!(server.app.engine.free_permits(), server.app.limits.max_inflight_texts);
}

#[tokio::test(flavor = "multi_thread")]
async fn markup_that_is_allowed_is_answered() {
    let server = TestServer::start(shipped_models(), &["--markup", "allow"]).await;
    for (text, _) in &FAULTS[2..] {
        let body = json!({ "text": format!("{text} where is my card"), "model": "banking77-minilm" });
        let reply = server.ask("/predict", body).await;
        assert_eq!(reply.status, 200, "{text:?}: {}", reply.body);
        // A string of ONNX Runtime ends at NUL: a model that takes the text itself cannot see what follows.
        let body = json!({ "text": format!("{text} where is my card"), "model": CHEAP_MODEL });
        let reply = server.ask("/predict", body).await;
        assert_eq!(reply.status, if text.contains('\0') { 422 } else { 200 }, "{text:?}: {}", reply.body);
    }
    let stripped = TestServer::start(cheap_models().path(), &["--markup", "strip"]).await;
    let body = json!({ "text": "where\0 is my <b>card</b>" }).to_string();
    let answer =
        tokio::task::spawn_blocking(move || Wire::to(stripped.address).ask(request("POST", "/predict", "", &body)));
    assert_eq!(answer.await.unwrap().status, 200, "strip removes control characters");
}
