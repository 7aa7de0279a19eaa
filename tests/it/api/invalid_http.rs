//! Requests that are wrong as HTTP: sizes, methods, media types, broken bodies, and whole
//! families of damaged bodies.

use predictd::api::predictions::BatchAnswer;
use reqwest::Method;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::answers::{field_errors, item_error};
use crate::support::problems::{CANARY, assert_alive, assert_safe_problem};
use crate::support::test_server::{Response, TestServer, question_body, send_request};

/// Sends bytes over a connection of their own; the answer as it came.
async fn send_raw(server: &TestServer, head: &str, body: &[u8]) -> String {
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    let head = format!("{head}Host: x\r\nConnection: close\r\n\r\n");
    stream.write_all(&[head.as_bytes(), body].concat()).await.unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.unwrap();
    String::from_utf8(answer).unwrap()
}

const POST_PREDICT_HEAD: &str = "POST /predict HTTP/1.1\r\nContent-Type: application/json\r\n";

fn chunked_body(body: &str) -> Vec<u8> {
    let (a, b) = body.split_at(body.len() / 2);
    format!("{:x}\r\n{a}\r\n{:x}\r\n{b}\r\n0\r\n\r\n", a.len(), b.len()).into()
}

#[tokio::test]
async fn text_limit_counts_characters() {
    let server = TestServer::start_cheap(&["--max-text-chars", "64"]).await;
    for letter in ["a", "é", "猫", "😀"] {
        let longest = letter.repeat(64);
        let longer = letter.repeat(65);
        for (path, good, bad, pointer) in [
            ("/predict", json!({ "text": longest }), json!({ "text": longer }), "/text"),
            ("/batch_predict", json!([longest]), json!([longest, longer]), "/1"),
            ("/batch_predict", json!({ "texts": [longest] }), json!({ "texts": [longer] }), "/texts/0"),
        ] {
            assert_eq!(server.post_json(path, good).await.status, 200, "{letter}");
            let reply = server.post_json(path, bad).await;
            let errors = [(pointer, "a text must have at most 64 characters")];
            if path == "/predict" {
                assert_eq!((reply.status, assert_safe_problem(&reply, letter).as_str()), (422, "invalid-request"));
                assert_eq!(field_errors(&reply.problem()), errors);
            } else {
                let batch = reply.ok::<BatchAnswer>().results;
                let last = item_error(batch.last().unwrap());
                assert_eq!((last.status, field_errors(last).as_slice()), (422, errors.as_slice()));
            }
        }
    }
    assert_alive(&server).await;
}

#[tokio::test]
async fn body_limit_counts_bytes() {
    let server = TestServer::start_cheap(&["--max-body", "1024"]).await;
    let good = question_body();
    for (size, status) in [(1_023, 200), (1_024, 200), (1_025, 413), (60_000, 413)] {
        let body = format!("{good:<size$}");
        let sized = server.post("/predict", body.clone()).await;
        assert_eq!(sized.status, status, "{size}");
        if status == 413 {
            assert_eq!(assert_safe_problem(&sized, "large"), "body-too-large");
        }
        if size < 2_000 {
            let head = format!("{POST_PREDICT_HEAD}Transfer-Encoding: chunked\r\n");
            let streamed = send_raw(&server, &head, &chunked_body(&body)).await;
            assert!(streamed.starts_with(&format!("HTTP/1.1 {status} ")), "{size}: {streamed}");
            assert_eq!(streamed.contains("/docs#body-too-large"), status == 413, "{streamed}");
        }
        assert_alive(&server).await;
    }
    // The head is enough to refuse it: not a byte of this body is sent.
    for length in ["1025", "99999999999999"] {
        let announced = send_raw(&server, &format!("{POST_PREDICT_HEAD}Content-Length: {length}\r\n"), b"").await;
        assert!(announced.starts_with("HTTP/1.1 413 "), "{announced}");
    }
    assert_alive(&server).await;
}

#[tokio::test]
async fn batch_limit_counts_texts() {
    let server = TestServer::start_cheap(&["--max-client-batch-size", "3"]).await;
    for (count, status) in [(0, 422), (1, 200), (3, 200), (4, 422), (1_000, 422)] {
        let texts = vec![CANARY; count];
        for (body, pointer) in [(json!(texts), ""), (json!({ "texts": texts }), "/texts")] {
            let reply = server.post_json("/batch_predict", body).await;
            assert_eq!(reply.status, status, "{count}: {}", reply.body);
            if status == 422 {
                assert_eq!(assert_safe_problem(&reply, "batch"), "invalid-request");
                let detail = format!("there are {count} texts, where 1 to 3 are possible");
                assert_eq!(field_errors(&reply.problem()), [(pointer, detail.as_str())]);
            } else {
                assert_eq!(reply.json::<BatchAnswer>().results.len(), count);
            }
        }
        assert_alive(&server).await;
    }
}

async fn send(server: &TestServer, method: Method, path: &str, headers: &[(&str, &str)], body: &str) -> Response {
    let mut request = server.client.request(method, format!("{}{path}", server.url)).body(body.to_owned());
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    send_request(request).await
}

#[tokio::test]
async fn wrong_method_is_405_with_allow_header() {
    let server = TestServer::start_cheap(&[]).await;
    // The method is judged before the kind of body.
    let headers = [("content-type", "text/plain")];
    let gets =
        ["/health", "/livez", "/readyz", "/metrics", "/models", "/models/banking77-tfidf", "/openapi.json", "/docs"];
    let posts = ["/predict", "/batch_predict"];
    for (paths, methods, allow) in [
        (&posts[..], &["GET", "HEAD", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "BREW"][..], "POST"),
        (&gets[..], &["POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "BREW"][..], "GET,HEAD"),
    ] {
        for (path, method) in paths.iter().flat_map(|path| methods.iter().map(move |method| (*path, *method))) {
            let body = if method == "TRACE" { "" } else { CANARY };
            let reply = send(&server, method.parse().unwrap(), path, &headers, body).await;
            assert_eq!((reply.status, reply.headers["allow"].to_str().unwrap()), (405, allow), "{method} {path}");
            if method == "HEAD" {
                assert_eq!(reply.body, "", "{path}");
            } else {
                assert_eq!(assert_safe_problem(&reply, method), "method-not-allowed", "{method} {path}");
            }
        }
    }
    for path in gets {
        let get = server.get(path).await;
        let head = send(&server, Method::HEAD, path, &[], "").await;
        assert_eq!((get.status, head.status, head.body.as_str()), (200, 200, ""), "{path}");
        assert_eq!(get.headers["content-type"], head.headers["content-type"], "{path}");
    }
    assert_alive(&server).await;
}

#[tokio::test]
async fn unknown_route_is_404() {
    let server = TestServer::start_cheap(&[]).await;
    // The route is judged before the kind of body.
    let headers = [("content-type", "text/plain")];
    for path in [
        "/",
        "/predict/",
        "//predict",
        "/PREDICT",
        "/predict/x",
        "/models/",
        "/models/a/b",
        "/%2e%2e/x",
        "/CANARY-7f3a",
        "/%00",
        "/%ff",
    ] {
        for method in [Method::GET, Method::POST, Method::OPTIONS, Method::DELETE] {
            let reply = send(&server, method.clone(), path, &headers, CANARY).await;
            assert_eq!(
                (reply.status, assert_safe_problem(&reply, path).as_str()),
                (404, "not-found"),
                "{method} {path}"
            );
        }
    }
    for name in ["CANARY-7f3a", "..%2f..%2fetc%2fpasswd", "%00", "%ff", "UPPER", &"a".repeat(65), &"a".repeat(5_000)] {
        let reply = server.get(&format!("/models/{name}")).await;
        assert_eq!((reply.status, assert_safe_problem(&reply, name).as_str()), (404, "model-not-found"), "{name}");
    }
    assert_alive(&server).await;
}

#[tokio::test]
async fn content_type_other_than_utf8_json_is_415() {
    let server = TestServer::start_cheap(&[]).await;
    let body = json!({ "text": CANARY }).to_string();
    for content_type in [
        "application/json",
        "application/json; charset=utf-8",
        "application/json;charset=UTF-8",
        "APPLICATION/JSON ; Charset=\"utf-8\"",
        "application/json; profile=x",
    ] {
        let reply = send(&server, Method::POST, "/predict", &[("content-type", content_type)], &body).await;
        assert_eq!(reply.status, 200, "{content_type}");
    }
    let json = ("content-type", "application/json");
    for (headers, detail) in [
        (vec![], "The Content-Type must be application/json."),
        (vec![("content-type", "")], "The Content-Type must be application/json."),
        (vec![("content-type", "text/plain")], "The Content-Type must be application/json."),
        (vec![("content-type", "application/x-www-form-urlencoded")], "The Content-Type must be application/json."),
        (vec![("content-type", "application/jsonx")], "The Content-Type must be application/json."),
        (vec![("content-type", "application/json, text/plain")], "The Content-Type must be application/json."),
        (vec![("content-type", "application/json; charset=latin-1")], "The charset must be UTF-8."),
        (vec![("content-type", "application/json; x=y; charset=utf-16")], "The charset must be UTF-8."),
        (vec![("content-type", "application/json; charset")], "The charset must be UTF-8."),
        (
            vec![json, ("content-encoding", "br")],
            "This Content-Encoding is not supported: send the body as it is, or compressed by gzip.",
        ),
    ] {
        for path in ["/predict", "/batch_predict"] {
            let reply = send(&server, Method::POST, path, &headers, &body).await;
            assert_eq!(
                (reply.status, assert_safe_problem(&reply, detail).as_str()),
                (415, "unsupported-media-type"),
                "{headers:?}"
            );
            assert_eq!(reply.headers["accept-post"], "application/json");
            assert_eq!(reply.headers["accept-encoding"], "gzip, identity");
            assert_eq!(reply.problem().detail, detail, "{headers:?}");
        }
        assert_alive(&server).await;
    }
}

#[tokio::test]
async fn timeout_header_not_a_number_is_400() {
    let server = TestServer::start_cheap(&[]).await;
    let body = json!({ "text": CANARY }).to_string();
    let ask = async |value: &str| {
        let headers = [("content-type", "application/json"), ("x-request-timeout-ms", value)];
        send(&server, Method::POST, "/predict", &headers, &body).await
    };
    for value in ["", "0", "-1", "1.5", "10s", "CANARY-7f3a", "99999999999999999999999"] {
        let reply = ask(value).await;
        assert_eq!((reply.status, assert_safe_problem(&reply, value).as_str()), (400, "invalid-header"), "{value:?}");
    }
    assert_eq!(ask("60000").await.status, 200);
    assert_eq!(ask("18446744073709551615").await.status, 200, "more than --max-timeout is --max-timeout");
}

#[tokio::test]
async fn body_truncated_leaves_server_working() {
    let server = TestServer::start_cheap(&[]).await;
    let head = format!("{POST_PREDICT_HEAD}Host: x\r\nContent-Length: 500\r\n\r\n{{\"text\":\"{CANARY}");
    let chunk = format!("{POST_PREDICT_HEAD}Host: x\r\nTransfer-Encoding: chunked\r\n\r\n1f4\r\n{{\"text\":\"{CANARY}");
    for begin in [&head, &chunk] {
        // The client closes its half only and reads what comes.
        let mut half = TcpStream::connect(server.address).await.unwrap();
        half.write_all(begin.as_bytes()).await.unwrap();
        half.shutdown().await.unwrap();
        let mut answer = String::new();
        half.read_to_string(&mut answer).await.unwrap();
        assert!(answer.is_empty() || answer.contains("/docs#incomplete-body"), "{answer}");
        assert!(!answer.contains(CANARY));
        // The client is gone altogether.
        let mut gone = TcpStream::connect(server.address).await.unwrap();
        gone.write_all(begin.as_bytes()).await.unwrap();
        drop(gone);
        assert_alive(&server).await;
    }
    // Nothing is kept of them: the request that asks is the only one in work.
    while !server.get("/metrics").await.body.contains("\npredictd_http_requests_in_flight 1\n") {
        tokio::task::yield_now().await;
    }
    assert_eq!(server.app.inference.engine.free_permits(), server.app.limits.requests.max_inflight_items);
}

#[tokio::test]
async fn body_every_prefix_is_400() {
    let server = TestServer::start_cheap(&[]).await;
    let tail = r#","top_k":3,"return_probabilities":true,"model":null,"user_id":"é\u00e9\ud83d\ude00"}"#;
    let bodies = [
        ("/predict", format!("{{\"text\":\"{CANARY} é\"{tail}")),
        ("/batch_predict", format!("{{\"texts\":[\"{CANARY} é\"]{tail}")),
        ("/batch_predict", format!("[\"{CANARY} é\",\"😀\"]")),
    ];
    for (path, body) in &bodies {
        assert_eq!(server.post(path, body.clone()).await.status, 200, "{path}");
        for end in 0..body.len() {
            let prefix = &body.as_bytes()[..end];
            let own = server.post(path, prefix.to_vec()).await;
            let kind = assert_safe_problem(&own, "a prefix");
            assert_eq!((own.status, kind.as_str()), (400, "malformed-json"), "{path} {end}: {}", own.body);
            // The other route refuses it too, at the latest where its own fields would be.
            let other = if *path == "/predict" { "/batch_predict" } else { "/predict" };
            let reply = server.post(other, prefix.to_vec()).await;
            assert_safe_problem(&reply, "a prefix");
            assert!([400, 422].contains(&reply.status), "{other} {end}: {}", reply.body);
        }
    }
    assert_alive(&server).await;
}

#[tokio::test]
async fn body_any_changed_byte_is_never_5xx() {
    let server = TestServer::start_cheap(&[]).await;
    let mut seen = [0; 3];
    for (path, body) in [("/predict", r#"{"text":"a b"}"#), ("/batch_predict", r#"["a","b"]"#)] {
        for place in 0..body.len() {
            for byte in 0..=u8::MAX {
                let mut changed = body.as_bytes().to_vec();
                changed[place] = byte;
                let reply = server.post(path, changed).await;
                let index = [200, 400, 422].iter().position(|status| *status == reply.status);
                let index = index.unwrap_or_else(|| panic!("{path} byte {place} is {byte}: {}", reply.body));
                seen[index] += 1;
                if index > 0 {
                    assert_safe_problem(&reply, "a changed byte");
                }
            }
        }
    }
    assert!(seen.iter().all(|&count| count > 100), "every outcome happened: {seen:?}");
    assert_alive(&server).await;
}
