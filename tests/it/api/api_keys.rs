//! API keys: every route against every kind of caller, and a key file that changes.

use reqwest::Method;
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::daemon::{predictd, run_to_exit};
use crate::support::key_file::KeyFile;
use crate::support::test_server::{QUESTION, Response, TestServer, cheap_models, question_body, send_request};

/// Sends a request with these headers.
async fn send(url: String, method: &Method, headers: &[(&str, &str)], body: &str) -> Response {
    let client = crate::support::test_server::client().build().unwrap();
    let mut map = HeaderMap::new();
    for (name, value) in headers {
        map.append(name.parse::<HeaderName>().unwrap(), HeaderValue::from_bytes(value.as_bytes()).unwrap());
    }
    send_request(client.request(method.clone(), url).headers(map).body(body.to_owned())).await
}

fn bearer_header(key: &str) -> String {
    format!("Bearer {key}")
}

async fn get_models(server: &TestServer, authorization: &str) -> Response {
    let headers = [("authorization", authorization), ("content-type", "application/json")];
    send(format!("{}/predict", server.url), &Method::POST, &headers, &question_body()).await
}

#[tokio::test]
#[expect(clippy::too_many_lines, reason = "one scenario, whose steps need each other")]
async fn api_key_every_route_requires_its_scope() {
    let ring = KeyFile::new();
    let models = cheap_models();
    let keys: Vec<(&str, String)> = ["predict", "feedback", "admin", "metrics"]
        .into_iter()
        .map(|scope| (scope, bearer_header(&ring.create_key(scope, scope, &[]))))
        .collect();
    let revoked = bearer_header(&ring.create_key("old", "predict,feedback,admin,metrics", &[]));
    assert_eq!(ring.run_keys_command(&["revoke", "old"]).0, 0);
    let server = ring.start_server(models.path(), &[]).await;
    // The routes come from the server, so that none is forgotten; `None` is a route that needs no key.
    let api = server.get("/openapi.json").await.json::<Value>();
    let mut routes: Vec<(String, Method, String, Option<String>)> = Vec::new();
    for (path, methods) in api["paths"].as_object().unwrap() {
        for (method, operation) in methods.as_object().unwrap() {
            let scope = operation["security"].as_array().map(|list| list[1]["api_key"][0].as_str().unwrap().to_owned());
            let path = path.replace("{name}", "banking77-tfidf");
            routes.push((server.url.clone(), method.to_uppercase().parse().unwrap(), path, scope));
        }
    }
    let public: Vec<&str> = routes.iter().filter(|route| route.3.is_none()).map(|route| route.2.as_str()).collect();
    assert_eq!(public, ["/health", "/livez", "/readyz"]);
    for path in ["/docs", "/openapi.json"] {
        routes.push((server.url.clone(), Method::GET, path.to_owned(), None));
    }
    let admin = format!("http://{}", server.admin);
    for (path, scope) in [
        ("/health", None),
        ("/livez", None),
        ("/readyz", None),
        ("/metrics", Some("metrics")),
        ("/admin/feedback", Some("admin")),
        ("/admin/experiments", Some("admin")),
        ("/admin/drift", Some("metrics")),
    ] {
        routes.push((admin.clone(), Method::GET, path.to_owned(), scope.map(str::to_owned)));
    }
    let one = keys[0].1.clone();
    let strangers = [
        None,
        Some(String::new()),
        Some("Bearer".to_owned()),
        Some("Bearer ".to_owned()),
        Some(bearer_header("pd_")),
        Some(bearer_header(&"x".repeat(10_000))),
        Some(one.replace("Bearer", "Basic")),
        Some(one.replace("Bearer ", "")),
        Some(format!("{one}x")),
        Some(one[..one.len() - 1].to_owned()),
        Some(one.to_uppercase()),
        Some(bearer_header("\u{e9}")),
        Some(revoked),
    ];
    let body = question_body();
    let mut bodies = std::collections::BTreeSet::new();
    for (url, method, path, scope) in &routes {
        let body = match path.as_str() {
            "/batch_predict" => "[\"a b\"]",
            // Of a list each thing has its own outcome.
            "/feedback" => "[{\"prediction_id\":\"x\",\"actual\":\"a\"}]",
            _ => &body,
        };
        let at = async |authorization: Option<&str>| {
            let mut headers = vec![("content-type", "application/json")];
            headers.extend(authorization.map(|value| ("authorization", value)));
            send(format!("{url}{path}"), method, &headers, if *method == Method::POST { body } else { "" }).await
        };
        for (own, key) in &keys {
            let expected = if scope.as_deref().is_none_or(|scope| scope == *own) { 200 } else { 403 };
            let reply = at(Some(key)).await;
            assert_eq!(reply.status, expected, "{method} {path} with the scope {own}: {}", reply.body);
            if expected == 403 {
                assert_eq!(reply.problem_kind(), "forbidden");
            }
        }
        for stranger in &strangers {
            let reply = at(stranger.as_deref()).await;
            if scope.is_none() {
                assert_eq!(reply.status, 200, "{method} {path}");
                continue;
            }
            // So many wrong keys in a second are too many; the right ones went on working all the time.
            if reply.status == 429 {
                assert!(stranger.is_some() && reply.problem_kind() == "rate-limited");
                continue;
            }
            assert_eq!(
                (reply.status, reply.problem_kind().as_str()),
                (401, "unauthenticated"),
                "{method} {path} {stranger:?}"
            );
            assert_eq!(reply.headers["www-authenticate"], "Bearer realm=\"predictd\"");
            let mut problem = reply.json::<Value>();
            problem.as_object_mut().unwrap().remove("instance");
            bodies.insert(problem.to_string());
        }
    }
    assert_eq!(bodies.len(), 1, "nobody learns why: {bodies:?}");
}

#[tokio::test]
async fn api_key_path_and_method_tricks_do_not_bypass_auth() {
    let ring = KeyFile::new();
    let models = cheap_models();
    ring.create_key("a", "predict", &[]);
    let server = ring.start_server(models.path(), &[]).await;
    let body = question_body();
    for target in [
        "//predict",
        "/PREDICT",
        "/%70redict",
        "/predict/",
        "/./predict",
        "/x/../predict",
        "/predict;x",
        "/predict?x",
        "/predict#x",
        "http://x/predict",
        "http://127.0.0.1/predict",
        "/predict%00",
        "/predict%2f",
        "\\predict",
        "/metrics",
        "//metrics",
        "/%6detrics",
        "/models/..%2fmetrics",
        "/health/../metrics",
        "/admin",
        "*",
    ] {
        for version in ["1.0", "1.1"] {
            for method in ["GET", "POST", "HEAD", "PUT", "get"] {
                let headers = "Host: 127.0.0.1:8001\r\nX-Original-URL: /health\r\nX-Rewrite-URL: /health\r\nX-HTTP-Method-Override: GET\r\nX-Forwarded-For: 127.0.0.1";
                let head = format!(
                    "{method} {target} HTTP/{version}\r\n{headers}\r\nContent-Type: application/json\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{body}",
                    body.len()
                );
                let mut stream = TcpStream::connect(server.address).await.unwrap();
                stream.write_all(head.as_bytes()).await.unwrap();
                let mut answer = Vec::new();
                stream.read_to_end(&mut answer).await.unwrap();
                let answer = String::from_utf8_lossy(&answer);
                assert!(
                    !answer.starts_with("HTTP/1.1 2") && !answer.starts_with("HTTP/1.0 2"),
                    "{method} {target}: {answer}"
                );
                assert!(!answer.contains("card_arrival") && !answer.contains("predictd_"), "{answer}");
            }
        }
    }
    assert_eq!(server.app.inference.engine.free_permits(), server.app.limits.requests.max_inflight_items);
}

#[tokio::test]
async fn api_key_duplicate_authorization_headers_are_401() {
    let ring = KeyFile::new();
    let models = cheap_models();
    let key = bearer_header(&ring.create_key("a", "predict", &[]));
    let server = ring.start_server(models.path(), &[]).await;
    let url = format!("{}/models", server.url);
    for headers in
        [vec![("authorization", key.as_str()); 2], vec![("authorization", "Bearer x"), ("authorization", &key)]]
    {
        assert_eq!(send(url.clone(), &Method::GET, &headers, "").await.status, 401);
    }
    for good in [key.clone(), key.replace("Bearer ", "bearer "), key.replace("Bearer ", "BEARER   ")] {
        assert_eq!(send(url.clone(), &Method::GET, &[("authorization", &good)], "").await.status, 200, "{good}");
    }
}

/// Waits until a request gets this status: changes of the file are seen within a second or so.
async fn wait_for_status(server: &TestServer, authorization: &str, status: u16) {
    while get_models(server, authorization).await.status != status {
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
}

#[tokio::test]
async fn key_file_changed_on_disk_is_reloaded() {
    let models = cheap_models();
    let server = TestServer::start(models.path(), &[]).await;
    let ring = KeyFile::default_of(&server);
    // Without a file no request needs a key, and the server ignores one.
    assert_eq!(get_models(&server, "Bearer any").await.status, 200);
    let first = bearer_header(&ring.create_key("first", "predict", &[]));
    wait_for_status(&server, "Bearer any", 401).await;
    assert_eq!(get_models(&server, &first).await.status, 200);
    let second = bearer_header(&ring.create_key("second", "predict", &[]));
    wait_for_status(&server, &second, 200).await;
    assert_eq!(ring.run_keys_command(&["revoke", "first"]).0, 0);
    wait_for_status(&server, &first, 401).await;
    assert_eq!(get_models(&server, &second).await.status, 200);
    // A damaged or missing file changes nothing. Without its last key the server refuses every request.
    std::fs::write(ring.path(), "key = 7").unwrap();
    tokio::time::sleep(std::time::Duration::from_millis(1_500)).await;
    assert_eq!([get_models(&server, &first).await.status, get_models(&server, &second).await.status], [401, 200]);
    std::fs::remove_file(ring.path()).unwrap();
    tokio::time::sleep(std::time::Duration::from_millis(1_500)).await;
    assert_eq!([get_models(&server, "").await.status, get_models(&server, &second).await.status], [401, 200]);
    std::fs::write(ring.path(), "").unwrap();
    wait_for_status(&server, &second, 401).await;
}

#[tokio::test]
async fn api_key_allow_anonymous_permits_prediction_only() {
    let ring = KeyFile::new();
    let models = cheap_models();
    let key = bearer_header(&ring.create_key("a", "metrics", &[]));
    let server = ring.start_server(models.path(), &["--allow-anonymous"]).await;
    assert_eq!(server.post_json("/predict", json!({ "text": QUESTION })).await.status, 200);
    assert_eq!(server.get("/metrics").await.status, 401);
    // A request with a key has the rights of the key.
    assert_eq!(get_models(&server, "Bearer wrong").await.status, 401);
    assert_eq!(get_models(&server, &key).await.status, 403);
}

#[tokio::test]
async fn api_key_guessing_is_rate_limited_without_side_effects() {
    let ring = KeyFile::new();
    let models = cheap_models();
    let key = bearer_header(&ring.create_key("a", "predict", &[]));
    let server = ring.start_server(models.path(), &[]).await;
    let mut statuses = std::collections::BTreeMap::new();
    for i in 0..200 {
        let guess = get_models(&server, &format!("Bearer pd_{i}")).await;
        *statuses.entry(guess.status).or_insert(0) += 1;
        if guess.status == 429 {
            assert_eq!(
                (guess.problem_kind().as_str(), guess.headers["retry-after"].to_str().unwrap()),
                ("rate-limited", "1")
            );
        }
        if i % 20 == 0 {
            assert_eq!(get_models(&server, &key).await.status, 200);
        }
    }
    assert_eq!(statuses.keys().copied().collect::<Vec<u16>>(), [401, 429]);
    let metrics =
        send_request(server.client.get(format!("http://{}/metrics", server.admin)).header("authorization", &key)).await;
    assert_eq!(metrics.status, 403, "a key for predictions shows no metrics");
}

#[test]
fn key_file_unusable_exits_64() {
    let ring = KeyFile::new();
    let models = cheap_models();
    let data = tempfile::tempdir().unwrap();
    for content in [None, Some("key = 7"), Some("[[key]]\nname = \"canary\""), Some("\u{0}")] {
        // One that was named and is not there is a mistake, not an open door.
        if let Some(content) = content {
            std::fs::write(ring.path(), content).unwrap();
        }
        let mut command = predictd(&["--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0", "--log", "error"]);
        command.arg("--models").arg(models.path()).arg("--data-dir").arg(data.path()).arg("--keys").arg(ring.path());
        let (code, said) = run_to_exit(&mut command);
        assert_eq!(code, 64, "{said}");
        assert!(said.contains("--keys") && said.contains("keys.toml") && !said.contains("canary"), "{said}");
    }
}

#[tokio::test]
async fn api_key_secret_is_stored_and_shown_as_hash_only() {
    let ring = KeyFile::new();
    let models = cheap_models();
    let key = ring.create_key("a", "predict,metrics", &[]);
    let server = ring.start_server(models.path(), &[]).await;
    assert_eq!(get_models(&server, &bearer_header(&key)).await.status, 200);
    let metrics =
        send_request(server.client.get(format!("{}/metrics", server.url)).header("authorization", bearer_header(&key)))
            .await;
    let shown = format!("{}{:?}", metrics.body, server.app.access.keys);
    let file = std::fs::read_to_string(ring.path()).unwrap();
    let secret = &key[3..];
    assert!(metrics.status == 200 && !shown.contains(secret) && !file.contains(secret));
    let parsed: Value = serde_json::to_value(toml::from_str::<toml::Table>(&file).unwrap()).unwrap();
    assert!(parsed["key"][0]["hash"].as_str().unwrap().starts_with("sha256:"));
}
