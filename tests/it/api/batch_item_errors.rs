//! A text that cannot be answered has an error in its place, and the others of its batch are answered.

use predictd::api::predictions::{BatchAnswer, BatchItem};
use serde_json::json;

use crate::support::answers::{field_errors, item_answer, item_error, label};
use crate::support::raw_client::{RawClient, request};
use crate::support::test_server::{CHEAP_MODEL, QUESTION, TestServer, cheap_models, shipped_models};

/// Texts that no model is asked, with what is said of them.
const UNANSWERABLE_TEXTS: [(&str, &str); 6] = [
    ("", "a text must not be empty or blank"),
    (" \t\u{3000}", "a text must not be empty or blank"),
    ("a\0b", "a text must not contain the control character U+0000"),
    ("\u{1b}[31m", "a text must not contain the control character U+001B"),
    ("<script>x</script>", "a text must not contain a script element"),
    ("<a href='javascript:x'>y</a>", "a text must not contain markup with a javascript: URL"),
];

fn assert_item_error(item: &BatchItem, pointer: &str, detail: &str) {
    let error = item_error(item);
    assert_eq!((error.kind.as_str(), error.status), ("/docs#invalid-request", 422), "{item:?}");
    assert_eq!(field_errors(error), [(pointer, detail)], "{item:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn batch_unanswerable_text_gets_error_at_its_index() {
    let server = TestServer::start(shipped_models(), &["--cache-bytes", "4194304"]).await;
    for model in [CHEAP_MODEL, "banking77-minilm"] {
        for (fault, detail) in UNANSWERABLE_TEXTS {
            // The second time the good texts come from the cache. Many texts are tokenised elsewhere.
            for good in [1, 1, 100] {
                let mut texts = vec![QUESTION; good];
                texts.insert(good / 2, fault);
                let reply = server.post_json("/batch_predict", json!({ "texts": texts, "model": model })).await;
                assert_eq!(reply.body.matches("\"prediction\":").count(), good, "{fault:?}: {}", reply.body);
                for (index, item) in reply.ok::<BatchAnswer>().results.iter().enumerate() {
                    assert_eq!(item.text_index, index);
                    if index == good / 2 {
                        assert_item_error(item, &format!("/texts/{index}"), detail);
                    } else {
                        assert_eq!(label(item_answer(item)), "card_arrival", "{fault:?}: {item:?}");
                    }
                }
            }
            let alone = server.post_json("/predict", json!({ "text": fault, "model": model })).await;
            assert_eq!((alone.status, alone.problem_kind().as_str()), (422, "invalid-request"), "{fault:?}");
            assert_eq!(field_errors(&alone.problem()), [("/text", detail)]);
        }
    }
}

#[tokio::test]
async fn batch_every_item_error_is_reported() {
    let server = TestServer::start(cheap_models().path(), &[]).await;
    let texts: Vec<&str> = UNANSWERABLE_TEXTS.iter().map(|(fault, _)| *fault).collect();
    // A bare list, and no good text at all.
    let reply = server.post_json("/batch_predict", json!(texts)).await;
    assert!(!reply.body.contains("\"prediction\":"), "{}", reply.body);
    let results = reply.ok::<BatchAnswer>().results;
    assert_eq!(results.len(), UNANSWERABLE_TEXTS.len());
    for (index, (_, detail)) in UNANSWERABLE_TEXTS.iter().enumerate() {
        assert_item_error(&results[index], &format!("/{index}"), detail);
    }
    let metrics = server.get("/metrics").await.body;
    let refused = format!("predictd_item_errors_total{{kind=\"refused\",model=\"{CHEAP_MODEL}\",version=\"1\"}} 4");
    assert!(metrics.contains(&refused), "{metrics}");
    // Shape is the whole request's.
    for wrong in [json!(["a", 7]), json!({ "texts": [] }), json!({ "texts": ["a"], "text_pairs": [] })] {
        assert_eq!(server.post_json("/batch_predict", wrong.clone()).await.status, 422, "{wrong}");
    }
    assert_eq!(server.app.inference.engine.free_permits(), server.app.limits.requests.max_inflight_items);
}

#[tokio::test(flavor = "multi_thread")]
async fn markup_allow_or_strip_is_answered() {
    let server = TestServer::start(shipped_models(), &["--markup", "allow"]).await;
    for (text, _) in &UNANSWERABLE_TEXTS[2..] {
        let body = json!({ "text": format!("{text} where is my card"), "model": "banking77-minilm" });
        let reply = server.post_json("/predict", body).await;
        assert_eq!(reply.status, 200, "{text:?}: {}", reply.body);
        // A string of ONNX Runtime ends at NUL: a model that takes the text itself cannot see what follows.
        let body = json!({ "text": format!("{text} where is my card"), "model": CHEAP_MODEL });
        let reply = server.post_json("/predict", body).await;
        assert_eq!(reply.status, if text.contains('\0') { 422 } else { 200 }, "{text:?}: {}", reply.body);
    }
    let stripped = TestServer::start(cheap_models().path(), &["--markup", "strip"]).await;
    let body = json!({ "text": "where\0 is my <b>card</b>" }).to_string();
    let answer = tokio::task::spawn_blocking(move || {
        RawClient::connect(stripped.address).request(request("POST", "/predict", "", &body))
    });
    assert_eq!(answer.await.unwrap().status, 200, "strip removes control characters");
}
