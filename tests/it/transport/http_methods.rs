//! Methods, on both listeners: HEAD is GET without its body, and what a route does not do it refuses.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use super::{Connection, WireResponse, start_server, wait_for_open_connections};

/// Routes of both listeners.
const BOTH_LISTENER_PATHS: [&str; 4] = ["/health", "/livez", "/readyz", "/metrics"];
/// Routes of the data listener alone.
const DATA_LISTENER_PATHS: [&str; 4] = ["/models", "/models/banking77-tfidf", "/openapi.json", "/docs"];

/// Asks on a connection of its own; all that comes.
async fn read_whole_response(address: SocketAddr, method: &str, path: &str) -> String {
    let mut connection = Connection::connect_to(address).await;
    connection.send(format!("{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")).await;
    String::from_utf8(connection.read_to_end().await).unwrap()
}

/// The head of an answer, without what is different each time.
fn comparable_head(answer: &str) -> BTreeMap<&str, &str> {
    let head = answer.split("\r\n\r\n").next().unwrap();
    let lines = head.lines().map(|line| line.split_once(": ").unwrap_or((line, "")));
    lines.filter(|(name, _)| !["date", "x-request-id"].contains(name)).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn head_equals_get_without_body() {
    let server = start_server(&[], &[]).await;
    let data = BOTH_LISTENER_PATHS.iter().chain(&DATA_LISTENER_PATHS).map(|path| (server.address, *path));
    let admin = BOTH_LISTENER_PATHS.iter().map(|path| (server.admin, *path));
    for (address, path) in data.chain(admin) {
        let get = read_whole_response(address, "GET", path).await;
        let head = read_whole_response(address, "HEAD", path).await;
        assert!(get.starts_with("HTTP/1.1 200 OK\r\n"), "{path}: {get}");
        let body = get.split_once("\r\n\r\n").unwrap().1;
        let nothing = head.split_once("\r\n\r\n").unwrap().1;
        assert!(!body.is_empty() && nothing.is_empty(), "{path}: {head}");
        let mut get = comparable_head(&get);
        let mut head = comparable_head(&head);
        assert_eq!(get["content-length"], body.len().to_string(), "{path}");
        if path == "/metrics" {
            // Other counts, of other lengths.
            assert!(get.remove("content-length").is_some() && head.remove("content-length").is_some());
        }
        assert_eq!(get, head, "{path}");
    }
    wait_for_open_connections(&server, 0).await;
}

/// All of them on one connection.
#[tokio::test(flavor = "multi_thread")]
async fn wrong_method_keeps_connection() {
    let server = start_server(&[], &[]).await;
    let everything = BOTH_LISTENER_PATHS.iter().chain(&DATA_LISTENER_PATHS).chain(&["/predict", "/batch_predict"]);
    let data = everything.map(|path| (server.address, *path));
    let admin = BOTH_LISTENER_PATHS.iter().map(|path| (server.admin, *path));
    let mut connections = BTreeMap::new();
    for (address, path) in data.chain(admin) {
        connections.entry(address).or_insert(Connection::connect_to(address).await);
        let connection = connections.get_mut(&address).unwrap();
        let posts = path.ends_with("predict");
        for method in ["GET", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "CONNECT", "FOO", "get", "post"] {
            if method == (if posts { "POST" } else { "GET" }) {
                continue;
            }
            let answer = connection.request(format!("{method} {path} HTTP/1.1\r\nHost: x\r\n\r\n")).await;
            let allow = if posts { "POST" } else { "GET,HEAD" };
            assert_eq!((answer.status, answer.header("allow")), (405, Some(allow)), "{method} {path}");
            assert_eq!(
                (answer.problem_kind().as_str(), answer.closes_connection()),
                ("method-not-allowed", false),
                "{method} {path}"
            );
        }
    }
    for path in DATA_LISTENER_PATHS.iter().chain(&["/predict", "/batch_predict", "/", "/admin"]) {
        for method in ["GET", "POST"] {
            let request = format!("{method} {path} HTTP/1.1\r\nHost: x\r\n\r\n");
            let answer: WireResponse = connections.get_mut(&server.admin).unwrap().request(request).await;
            assert_eq!((answer.status, answer.problem_kind().as_str()), (404, "not-found"), "{method} {path}");
        }
    }
    drop(connections);
    wait_for_open_connections(&server, 0).await;
}
