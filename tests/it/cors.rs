//! Web pages of other origins: none may use the server unless `--cors-origins` names them.

use reqwest::Method;

use crate::bad_input::CANARY;
use crate::server::{QUESTION, Reply, TestServer, cheap_models, reply};

const PAGE: &str = "https://app.example";

async fn preflight(server: &TestServer, path: &str, origin: &str) -> Reply {
    let request = server.client.request(Method::OPTIONS, format!("{}{path}", server.url)).header("origin", origin);
    let request = request.header("access-control-request-method", "POST");
    reply(request.header("access-control-request-headers", "content-type,authorization,x-user-id")).await
}

async fn ask(url: &str, server: &TestServer, origin: &str, text: &str) -> Reply {
    let request = server.client.post(url).header("origin", origin).header("content-type", "application/json");
    reply(request.body(serde_json::json!({ "text": text }).to_string())).await
}

fn allowed(reply: &Reply) -> Option<&str> {
    reply.headers.get("access-control-allow-origin").map(|value| value.to_str().unwrap())
}

#[tokio::test]
async fn cors_is_off_unless_origins_are_named() {
    let server = TestServer::start(cheap_models().path(), &[]).await;
    let refused = preflight(&server, "/predict", PAGE).await;
    assert_eq!((refused.status, allowed(&refused)), (405, None));
    let answered = ask(&format!("{}/predict", server.url), &server, PAGE, QUESTION).await;
    assert_eq!((answered.status, allowed(&answered)), (200, None));
    assert!(!answered.headers.contains_key("vary"));
}

#[tokio::test]
async fn cors_lets_the_named_origins_in() {
    let options = ["--cors-origins", "https://App.example:443,http://localhost:3000"];
    let server = TestServer::start(cheap_models().path(), &options).await;
    for path in ["/predict", "/batch_predict", "/feedback"] {
        for origin in [PAGE, "http://localhost:3000"] {
            let asked = preflight(&server, path, origin).await;
            assert_eq!((asked.status, allowed(&asked)), (200, Some(origin)), "{path}");
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
        let answered = ask(&url, &server, PAGE, text).await;
        assert_eq!((answered.status, allowed(&answered)), (status, Some(PAGE)));
        let shown = answered.headers["access-control-expose-headers"].to_str().unwrap();
        assert!(shown.contains("x-request-id") && shown.contains("retry-after"), "{shown}");
        assert!(answered.headers["vary"].to_str().unwrap().contains("origin"));
    }
    for stranger in ["https://evil.example", "https://app.example.evil.example", "http://app.example", "null", CANARY] {
        assert_eq!(allowed(&preflight(&server, "/predict", stranger).await), None, "{stranger}");
        let answered = ask(&url, &server, stranger, QUESTION).await;
        assert_eq!((answered.status, allowed(&answered)), (200, None), "a browser keeps it from the page");
        assert!(answered.headers["vary"].to_str().unwrap().contains("origin"));
    }
}

#[tokio::test]
async fn cors_for_all_is_for_the_data_listener_only() {
    let server = TestServer::start(cheap_models().path(), &["--cors-origins", "*"]).await;
    let asked = preflight(&server, "/predict", "https://any.example").await;
    assert_eq!((asked.status, allowed(&asked)), (200, Some("*")));
    let admin = format!("http://{}", server.admin);
    for path in ["/admin/log", "/metrics", "/health"] {
        let request = server.client.request(Method::OPTIONS, format!("{admin}{path}")).header("origin", PAGE);
        let refused = reply(request.header("access-control-request-method", "PUT")).await;
        assert_eq!((refused.status, allowed(&refused)), (405, None), "{path}");
        assert_eq!(allowed(&reply(server.client.get(format!("{admin}{path}")).header("origin", PAGE)).await), None);
    }
}
