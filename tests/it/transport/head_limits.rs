//! How much a head may hold, and whom it must name.

use super::{Connection, LIVEZ_REQUEST, WireResponse, start_server, wait_for_open_connections};
use crate::support::test_server::TestServer;

/// Asks with a head, and then with a good one where the connection stays.
async fn send_head(server: &TestServer, head: impl AsRef<[u8]>) -> WireResponse {
    let mut connection = Connection::connect(server).await;
    let answer = connection.request(head).await;
    if answer.closes_connection() {
        assert!(connection.read_responses().await.is_empty());
    } else {
        assert_eq!(connection.request(LIVEZ_REQUEST).await.status, 200);
    }
    answer
}

/// Our own refusals say what is wrong; hyper's, far above our limits, have no body and end the connection.
#[track_caller]
fn assert_refused(answer: &WireResponse, status: u16, kind: Option<&str>) {
    assert_eq!((answer.status, answer.problem_kind().as_str()), (status, kind.unwrap_or_default()), "{answer:?}");
    assert_eq!((answer.closes_connection(), answer.body.is_empty()), (kind.is_none(), kind.is_none()), "{answer:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn header_count_is_bounded() {
    let server = start_server(&[], &[]).await;
    for (more, status, kind) in [
        (63, 200, None),
        (64, 431, Some("headers-too-large")),
        (99, 431, Some("headers-too-large")),
        (100, 431, None),
        (10_000, 431, None),
    ] {
        // The same name many times is many headers too.
        let names: Vec<String> = (0..more).map(|i| format!("X-{i}: a\r\n")).collect();
        for headers in [names.concat(), "X: a\r\n".repeat(more)] {
            let answer = send_head(&server, format!("GET /livez HTTP/1.1\r\nHost: x\r\n{headers}\r\n")).await;
            if status == 200 {
                assert_eq!(answer.status, 200, "{more}");
            } else {
                assert_refused(&answer, status, kind);
            }
        }
    }
    wait_for_open_connections(&server, 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn header_size_is_bounded() {
    let server = start_server(&[], &[]).await;
    // Each header counts with four bytes for what stands around it.
    let most = (32 << 10) - "Host".len() - "x".len() - 4 - "X".len() - 4;
    for (size, status, kind) in [
        (most, 200, None),
        (most + 1, 431, Some("headers-too-large")),
        (60_000, 431, Some("headers-too-large")),
        (200_000, 431, None),
        (1_000_000, 431, None),
    ] {
        let answer =
            send_head(&server, format!("GET /livez HTTP/1.1\r\nHost: x\r\nX: {}\r\n\r\n", "a".repeat(size))).await;
        if status == 200 {
            assert_eq!(answer.status, 200, "{size}");
        } else {
            assert_refused(&answer, status, kind);
        }
        let name =
            send_head(&server, format!("GET /livez HTTP/1.1\r\nHost: x\r\n{}: a\r\n\r\n", "X".repeat(size))).await;
        assert_eq!(name.status, status, "{size}");
    }
    wait_for_open_connections(&server, 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn uri_length_is_bounded() {
    let server = start_server(&[], &[]).await;
    let limit = 8 << 10;
    for path in ["/livez?", "/nowhere/", "/models/"] {
        for (length, status) in [(limit, 0), (limit + 1, 414), (9 << 10, 414), (65_000, 414)] {
            let uri = format!("{path}{}", "a".repeat(length - path.len()));
            let answer = send_head(&server, format!("GET {uri} HTTP/1.1\r\nHost: x\r\n\r\n")).await;
            if status == 414 {
                assert_refused(&answer, 414, Some("uri-too-long"));
            } else {
                assert_eq!(answer.status, if path.starts_with("/livez") { 200 } else { 404 }, "{path}");
            }
        }
        // hyper refuses what is larger than it keeps of a head, and cannot always tell what is too large in it.
        for length in [100_000, 1_000_000] {
            let uri = format!("{path}{}", "a".repeat(length));
            let answer = send_head(&server, format!("GET {uri} HTTP/1.1\r\nHost: x\r\n\r\n")).await;
            assert!(answer.status == 431 || answer.status == 414 && length == 100_000, "{answer:?}");
            assert_refused(&answer, answer.status, None);
        }
    }
    // The name of a host counts too.
    let host = "a".repeat(limit);
    assert_refused(
        &send_head(&server, format!("GET http://{host}/livez HTTP/1.1\r\nHost: x\r\n\r\n")).await,
        414,
        Some("uri-too-long"),
    );
    wait_for_open_connections(&server, 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn host_header_must_be_one_valid_host() {
    let server = start_server(&[], &[]).await;
    // Grammar only: no name is looked up, and no port is counted.
    let good =
        "x X x:80 x: x:65536 :80 127.0.0.1 127.0.0.1:8000 [::1] [::1]:80 a.b-c.example. xn--bcher-kva.example a_b a,b";
    for host in good.split(' ').chain([""]) {
        let answer = send_head(&server, format!("GET /livez HTTP/1.1\r\nHost: {host}\r\n\r\n")).await;
        assert_eq!(answer.status, 200, "{host:?}");
    }
    let bad = "/ @ % %zz a/b a?b a#b a\\b a\"b <x> b\u{fc}cher http://x user@x user:password@x x@x x:1@x:1 \
               x:port x:-1 x:+1 x:80:80 [::1 ::1] [::1]x [::1]:x";
    for host in bad.split_whitespace().chain(["a b", "x:8 0"]) {
        let answer = send_head(&server, format!("GET /livez HTTP/1.1\r\nHost: {host}\r\n\r\n")).await;
        assert_eq!((answer.status, answer.problem_kind().as_str()), (400, "invalid-host"), "{host:?}");
    }
    for head in [
        "GET /livez HTTP/1.1\r\n\r\n",
        "GET /livez HTTP/1.1\r\nHost: x\r\nHost: x\r\n\r\n",
        "GET /livez HTTP/1.1\r\nHost: x\r\nhOST: y\r\n\r\n",
        "GET /livez HTTP/1.1\r\nHost: x\r\nHost:\r\n\r\n",
        "GET http://x/livez HTTP/1.1\r\n\r\n",
        "GET /livez HTTP/1.0\r\nHost: x\r\nHost: x\r\n\r\n",
        "GET /livez HTTP/1.0\r\nHost: a b\r\n\r\n",
    ] {
        let answer = send_head(&server, head).await;
        assert_eq!((answer.status, answer.problem_kind().as_str()), (400, "invalid-host"), "{head}");
    }
    for head in ["GET /livez HTTP/1.0\r\n\r\n", "GET /livez HTTP/1.0\r\nHost: x\r\n\r\n"] {
        let answer = send_head(&server, head).await;
        assert_eq!((answer.status, answer.closes_connection()), (200, true), "{head}");
    }
    wait_for_open_connections(&server, 0).await;
}
