//! Rate limits: counted in texts, for each key and each address.

use serde_json::{Value, json};
use std::path::Path;

use crate::support::key_file::KeyFile;
use crate::support::test_server::{QUESTION, Response, TestServer, cheap_models, send_request};

async fn start_server(models: &Path, options: &[&str]) -> TestServer {
    TestServer::start(models, options).await
}

async fn post(server: &TestServer, path: &str, body: Value, headers: &[(&str, &str)]) -> Response {
    let mut request = server.client.post(format!("{}{path}", server.url)).header("content-type", "application/json");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    send_request(request.body(body.to_string())).await
}

fn batch_body(texts: usize) -> Value {
    json!(vec![QUESTION; texts])
}

/// Asserts that a request is over the limit. Returns the seconds of `Retry-After`.
fn assert_rate_limited(reply: &Response) -> u64 {
    assert_eq!((reply.status, reply.problem_kind().as_str()), (429, "rate-limited"), "{}", reply.body);
    reply.headers["retry-after"].to_str().unwrap().parse().unwrap()
}

#[tokio::test]
async fn rate_limit_counts_texts_not_requests() {
    let models = cheap_models();
    let server = start_server(models.path(), &["--rate-limit", "20"]).await;
    assert_eq!(post(&server, "/batch_predict", batch_body(20), &[]).await.status, 200);
    let wait = assert_rate_limited(&post(&server, "/batch_predict", batch_body(20), &[]).await);
    assert!((1..=2).contains(&wait), "{wait}");
    // More than a second's worth never fits: waiting would not help.
    let never = post(&server, "/batch_predict", batch_body(21), &[]).await;
    if never.status == 422 {
        assert!(never.problem().detail.contains("the 20 that your rate allows at once"), "{}", never.body);
    } else {
        assert_rate_limited(&never);
    }
    // Everything else goes on.
    for path in ["/models", "/health", "/metrics", "/docs"] {
        assert_eq!(server.get(path).await.status, 200, "{path}");
    }
    assert!(server.get("/metrics").await.body.contains("predictd_requests_rejected_total{reason=\"rate\"}"));
    assert_eq!(server.app.inference.engine.free_permits(), server.app.limits.requests.max_inflight_items);
}

#[tokio::test]
async fn rate_limit_batch_above_burst_is_reported() {
    let models = cheap_models();
    let server = start_server(models.path(), &["--rate-limit", "20"]).await;
    let never = post(&server, "/batch_predict", batch_body(21), &[]).await;
    assert_eq!((never.status, never.problem_kind().as_str()), (422, "invalid-request"), "{}", never.body);
}

#[tokio::test]
async fn rate_limit_refuses_before_reading_body() {
    let models = cheap_models();
    let server = start_server(models.path(), &["--rate-limit", "1"]).await;
    assert_eq!(post(&server, "/predict", json!({ "text": QUESTION }), &[]).await.status, 200);
    // The body is no JSON: the server does not read it.
    let request = server.client.post(format!("{}/predict", server.url)).header("content-type", "application/json");
    assert_rate_limited(&send_request(request.body("{")).await);
}

#[tokio::test]
async fn rate_limit_is_per_key() {
    let ring = KeyFile::new();
    let models = cheap_models();
    let keys = [("heavy", &["--rate", "5/s"][..]), ("other", &["--rate", "500/s"]), ("plain", &[])];
    let [heavy, other, plain] =
        keys.map(|(name, options)| format!("Bearer {}", ring.create_key(name, "predict", options)));
    let server = ring.start_server(models.path(), &["--rate-limit", "30"]).await;
    let mut refused = 0;
    for _ in 0..100 {
        let text = || json!({ "text": QUESTION });
        let first = post(&server, "/predict", text(), &[("authorization", &heavy)]).await;
        if first.status != 200 {
            assert_rate_limited(&first);
            refused += 1;
        }
        assert_eq!(post(&server, "/predict", text(), &[("authorization", &other)]).await.status, 200);
    }
    assert!(refused >= 50, "{refused}");
    // A key without a rate of its own has the server's.
    assert_eq!(post(&server, "/batch_predict", batch_body(30), &[("authorization", &plain)]).await.status, 200);
    assert_rate_limited(&post(&server, "/batch_predict", batch_body(30), &[("authorization", &plain)]).await);
}

#[tokio::test]
async fn rate_limit_forwarded_headers_need_trusted_proxy() {
    let models = cheap_models();
    let direct = start_server(models.path(), &["--rate-limit", "1"]).await;
    let text = || json!({ "text": QUESTION });
    assert_eq!(post(&direct, "/predict", text(), &[]).await.status, 200);
    for header in ["x-forwarded-for", "forwarded", "x-real-ip", "true-client-ip", "cf-connecting-ip"] {
        assert_rate_limited(&post(&direct, "/predict", text(), &[(header, "203.0.113.7")]).await);
    }
    // Behind a proxy that is trusted, each of its clients has a rate; what a client adds itself does not count.
    let proxied = start_server(models.path(), &["--rate-limit", "1", "--trusted-proxies", "127.0.0.0/8,::1"]).await;
    for (forwarded, status) in [
        ("203.0.113.7", 200),
        ("203.0.113.7", 429),
        ("198.51.100.9, 203.0.113.7", 429),
        ("203.0.113.7, 198.51.100.9", 200),
        ("2001:db8::1", 200),
        ("2001:db8::2", 429),
        ("2001:db8:0:1::1", 200),
    ] {
        let answer = post(&proxied, "/predict", text(), &[("x-forwarded-for", forwarded)]).await;
        assert_eq!(answer.status, status, "{forwarded}: {}", answer.body);
    }
}
