//! Web pages of other origins: none may use the server unless `--cors-origins` names them.

use reqwest::Method;

use crate::support::problems::CANARY;
use crate::support::test_server::{QUESTION, Response, TestServer, cheap_models, send_request};

const PAGE_ORIGIN: &str = "https://app.example";

async fn preflight(server: &TestServer, path: &str, origin: &str) -> Response {
    let request = server.client.request(Method::OPTIONS, format!("{}{path}", server.url)).header("origin", origin);
    let request = request.header("access-control-request-method", "POST");
    send_request(request.header("access-control-request-headers", "content-type,authorization,x-user-id")).await
}

async fn predict_from_origin(url: &str, server: &TestServer, origin: &str, text: &str) -> Response {
    let request = server.client.post(url).header("origin", origin).header("content-type", "application/json");
    send_request(request.body(serde_json::json!({ "text": text }).to_string())).await
}

fn allowed_origin(reply: &Response) -> Option<&str> {
    reply.headers.get("access-control-allow-origin").map(|value| value.to_str().unwrap())
}

#[tokio::test]
async fn cors_without_origins_is_off() {
    let server = TestServer::start(cheap_models().path(), &[]).await;
    let refused = preflight(&server, "/predict", PAGE_ORIGIN).await;
    assert_eq!((refused.status, allowed_origin(&refused)), (405, None));
    let answered = predict_from_origin(&format!("{}/predict", server.url), &server, PAGE_ORIGIN, QUESTION).await;
    assert_eq!((answered.status, allowed_origin(&answered)), (200, None));
    assert!(!answered.headers.contains_key("vary"));
}

#[tokio::test]
async fn cors_named_origin_is_allowed() {
    let options = ["--cors-origins", "https://App.example:443,http://localhost:3000"];
    let server = TestServer::start(cheap_models().path(), &options).await;
    for path in ["/predict", "/batch_predict", "/feedback"] {
        for origin in [PAGE_ORIGIN, "http://localhost:3000"] {
            let asked = preflight(&server, path, origin).await;
            assert_eq!((asked.status, allowed_origin(&asked)), (200, Some(origin)), "{path}");
            let methods = asked.headers["access-control-allow-methods"].to_str().unwrap();
            let headers = asked.headers["access-control-allow-headers"].to_str().unwrap();
            assert!(methods.contains("POST") && headers.contains("content-type"), "{methods} {headers}");
            assert!(headers.contains("authorization") && headers.contains("x-user-id"), "{headers}");
            assert_eq!(asked.headers["access-control-max-age"], "3600");
            assert!(!asked.headers.contains_key("access-control-allow-credentials"));
        }
    }
    let url = format!("{}/predict", server.url);
    // A page can read why it was refused, too.
    for (text, status) in [(QUESTION, 200), ("", 422)] {
        let answered = predict_from_origin(&url, &server, PAGE_ORIGIN, text).await;
        assert_eq!((answered.status, allowed_origin(&answered)), (status, Some(PAGE_ORIGIN)));
        let shown = answered.headers["access-control-expose-headers"].to_str().unwrap();
        assert!(shown.contains("x-request-id") && shown.contains("retry-after"), "{shown}");
        assert!(answered.headers["vary"].to_str().unwrap().contains("origin"));
    }
    for stranger in ["https://evil.example", "https://app.example.evil.example", "http://app.example", "null", CANARY] {
        assert_eq!(allowed_origin(&preflight(&server, "/predict", stranger).await), None, "{stranger}");
        let answered = predict_from_origin(&url, &server, stranger, QUESTION).await;
        assert_eq!((answered.status, allowed_origin(&answered)), (200, None), "a browser keeps it from the page");
        assert!(answered.headers["vary"].to_str().unwrap().contains("origin"));
    }
}

#[tokio::test]
async fn cors_wildcard_applies_to_data_listener_only() {
    let server = TestServer::start(cheap_models().path(), &["--cors-origins", "*"]).await;
    let asked = preflight(&server, "/predict", "https://any.example").await;
    assert_eq!((asked.status, allowed_origin(&asked)), (200, Some("*")));
    let admin = format!("http://{}", server.admin);
    for path in ["/admin/log", "/metrics", "/health"] {
        let request = server.client.request(Method::OPTIONS, format!("{admin}{path}")).header("origin", PAGE_ORIGIN);
        let refused = send_request(request.header("access-control-request-method", "PUT")).await;
        assert_eq!((refused.status, allowed_origin(&refused)), (405, None), "{path}");
        assert_eq!(
            allowed_origin(
                &send_request(server.client.get(format!("{admin}{path}")).header("origin", PAGE_ORIGIN)).await
            ),
            None
        );
    }
}
