//! Many of the longest texts at once, and short ones beside them.

use std::sync::Arc;

use predictd::api::predictions::Prediction;
use serde_json::json;
use tokio::task::JoinSet;

use crate::support::answers::label;
use crate::support::test_server::{QUESTION, TestServer, cheap_models};

/// Enough for a busy machine: nothing here is late.
const LONG_TIMEOUT_OPTIONS: [&str; 6] = ["--timeout", "10m", "--max-timeout", "10m", "--max-queue-wait", "10m"];

#[tokio::test(flavor = "multi_thread")]
async fn longest_texts_and_short_ones_are_all_answered() {
    let server = Arc::new(TestServer::start(cheap_models().path(), &LONG_TIMEOUT_OPTIONS).await);
    let words = "card lost payment transfer top-up exchange rate and fee ";
    let longest: String = words.chars().cycle().take(32_768).collect();
    let mut long = JoinSet::new();
    let mut short = JoinSet::new();
    for _ in 0..200 {
        for (requests, text) in [(&mut long, longest.as_str()), (&mut short, QUESTION)] {
            let server = Arc::clone(&server);
            let body = json!({ "text": text });
            requests.spawn(async move { server.post_json("/predict", body).await });
        }
    }
    // As long as anything is being answered, the server says how it is.
    while !(long.is_empty() && short.is_empty()) {
        for path in ["/health", "/livez", "/readyz", "/metrics"] {
            assert_eq!(server.get(path).await.status, 200);
        }
        while let Some(reply) = long.try_join_next() {
            let reply = reply.unwrap();
            assert_eq!((reply.status, reply.json::<Prediction>().tokens > 4_000), (200, true), "{}", reply.body);
        }
        while let Some(reply) = short.try_join_next() {
            assert_eq!(label(&reply.unwrap().json()), "card_arrival");
        }
    }
    assert_eq!(server.app.inference.engine.free_permits(), 4_096);
}
