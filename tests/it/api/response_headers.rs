//! Headers that answers of every route have, or that a request asks for.

use std::collections::{BTreeMap, BTreeSet};

use reqwest::Method;
use serde_json::{Value, json};

use crate::support::test_server::{QUESTION, Response, TestServer, cheap_models, send_request};

#[tokio::test]
async fn request_id_valid_is_echoed_invalid_is_replaced() {
    let server = TestServer::start(cheap_models().path(), &[]).await;
    let ask = async |method: Method, path: &str, id: Option<&str>| -> Response {
        let request = server.client.request(method, format!("{}{path}", server.url));
        send_request(if let Some(id) = id { request.header("x-request-id", id.as_bytes()) } else { request }).await
    };
    let longest = "a".repeat(64);
    for path in ["/livez", "/nothing", "/models/unknown", "/docs"] {
        for id in ["a", "A-b_c.9", longest.as_str(), "..", "01890000-0000-7000-8000-000000000000"] {
            let reply = ask(Method::GET, path, Some(id)).await;
            assert_eq!(reply.headers["x-request-id"], id, "{path}");
        }
        let mut made = BTreeSet::new();
        let too_long = "a".repeat(65);
        let bad =
            [None, Some(""), Some("a b"), Some(too_long.as_str()), Some("é"), Some("a\tb"), Some("a\"b"), Some("<x>")];
        for id in bad {
            let reply = ask(Method::GET, path, id).await;
            let new = reply.headers["x-request-id"].to_str().unwrap().to_owned();
            assert_eq!(uuid::Uuid::parse_str(&new).unwrap().get_version_num(), 7, "{id:?}");
            made.insert(new);
        }
        assert_eq!(made.len(), bad.len(), "each is new");
    }
}

#[tokio::test]
async fn security_headers_are_on_every_response() {
    let server = TestServer::start(cheap_models().path(), &[]).await;
    let good = server.post_json("/predict", json!({ "text": QUESTION })).await;
    let bad = server.post_json("/predict", json!({})).await;
    let mut replies = vec![good, bad];
    for path in ["/health", "/livez", "/metrics", "/models", "/docs", "/openapi.json", "/nothing", "/predict"] {
        replies.push(server.get(path).await);
    }
    for reply in replies {
        assert_eq!(reply.headers["x-content-type-options"], "nosniff", "{}", reply.body);
        assert_eq!(reply.headers["cache-control"], "no-store", "{}", reply.body);
        assert!(reply.headers.contains_key("x-request-id"));
        assert!(!reply.headers.contains_key("server") && !reply.headers.contains_key("x-powered-by"));
    }
}

#[tokio::test]
async fn server_timing_header_is_sent_on_request() {
    let timing = async |options: &[&str], asked: bool, path: &str, body: Value| {
        let server = TestServer::start(cheap_models().path(), options).await;
        let mut request = server.client.post(format!("{}{path}", server.url)).json(&body);
        if asked {
            request = request.header("server-timing", "");
        }
        let reply = request.send().await.unwrap();
        assert_eq!(reply.status(), 200);
        reply.headers().get("server-timing").map(|value| value.to_str().unwrap().to_owned())
    };
    let text = json!({ "text": QUESTION });
    assert_eq!(timing(&[], false, "/predict", text.clone()).await, None);
    assert_eq!(timing(&["--server-timing", "off"], true, "/predict", text.clone()).await, None);
    assert!(timing(&["--server-timing", "always"], false, "/predict", text.clone()).await.is_some());
    for (path, body, cached) in [("/predict", text, "0 of 1"), ("/batch_predict", json!([QUESTION, "a b c"]), "0 of 2")]
    {
        let timing = timing(&[], true, path, body).await.unwrap();
        let parts: BTreeMap<&str, &str> = timing.split(", ").map(|part| part.split_once(';').unwrap()).collect();
        let ms = |part: &str| parts[part].strip_prefix("dur=").unwrap().parse::<f64>().unwrap();
        assert!(ms("inference") > 0.0 && ms("tokenize") >= 0.0 && ms("queue") >= 0.0, "{timing}");
        assert!(ms("total") >= ms("tokenize") + ms("queue") + ms("inference"), "{timing}");
        assert_eq!(parts["cached"], format!("desc=\"{cached}\""));
    }
}
