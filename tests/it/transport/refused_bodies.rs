//! Requests that are refused before their body was read: the client gets the answer, whatever it
//! is still sending, and nothing inside the body is taken for a request.

use std::collections::BTreeSet;

use predictd::http::api_keys::{Scope, update_key_file};
use tempfile::TempDir;
use tokio::io::AsyncWriteExt;

use super::{
    Connection, POST_PREDICT_HEAD, WireResponse, assert_cut_off, question_request, responses_by_status,
    timeout_options, wait_for_open_connections,
};
use crate::support::test_server::{TestServer, cheap_models, question_body};

/// A server with keys, and the header of a good one.
struct GuardedServer {
    server: TestServer,
    predict_key_header: String,
    weak_key_header: String,
    _keys: TempDir,
}

impl GuardedServer {
    async fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("keys.toml");
        let key = |name: &str, scope| {
            let key = update_key_file(&path, |keys| keys.add(name, BTreeSet::from([scope]), None)).unwrap();
            format!("Authorization: Bearer {key}\r\n")
        };
        let good = key("good", Scope::Predict);
        let weak = key("weak", Scope::Feedback);
        let mut server =
            TestServer::start(cheap_models().path(), &timeout_options(&[], &["--keys", path.to_str().unwrap()])).await;
        super::close_own_connections(&mut server).await;
        Self { server, predict_key_header: good, weak_key_header: weak, _keys: directory }
    }

    /// Heads of requests whose body is refused, or not looked at: what they are answered with.
    fn refused_heads(&self) -> Vec<(u16, &'static str, String)> {
        let Self { predict_key_header: good, weak_key_header: weak, .. } = self;
        let post = format!("{POST_PREDICT_HEAD}{good}");
        let many = "X: a\r\n".repeat(65);
        vec![
            (401, "unauthenticated", POST_PREDICT_HEAD.to_owned()),
            (401, "unauthenticated", format!("{POST_PREDICT_HEAD}Authorization: Bearer x\r\n")),
            (403, "forbidden", format!("{POST_PREDICT_HEAD}{weak}")),
            (404, "not-found", post.replace("/predict", "/nowhere")),
            (405, "method-not-allowed", post.replace("POST", "PUT")),
            (414, "uri-too-long", post.replace("/predict", &format!("/predict?{}", "a".repeat(9_000)))),
            (415, "unsupported-media-type", post.replace("json", "xml")),
            (415, "unsupported-media-type", format!("{post}Content-Encoding: br\r\n")),
            (431, "headers-too-large", format!("{post}{many}")),
            (400, "invalid-host", format!("{post}Host: y\r\n")),
            (200, "", post.replace("POST /predict", "GET /livez")),
        ]
    }

    /// A good request of a caller who may ask.
    fn allowed_request(&self) -> String {
        question_request().replacen("\r\n", &format!("\r\n{}", self.predict_key_header), 1)
    }

    fn response_count(&self) -> u64 {
        responses_by_status(&self.server).values().sum()
    }
}

fn assert_only_response(answers: &[WireResponse], (status, kind): (u16, &str), closes: bool, head: &str) {
    let [answer] = answers else { panic!("{head:.200}: {answers:?}") };
    assert_eq!(
        (answer.status, answer.problem_kind().as_str(), answer.closes_connection()),
        (status, kind, closes),
        "{head:.200}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn refused_large_body_client_still_gets_response() {
    let guarded = GuardedServer::new().await;
    let hidden = guarded.allowed_request().repeat((4 << 20) / guarded.allowed_request().len());
    let length = format!("Content-Length: {}\r\n\r\n", hidden.len());
    let chunked = "Transfer-Encoding: chunked\r\n\r\n";
    let chunks = [b"100000\r\n", &hidden.as_bytes()[..1 << 20], b"\r\n"].concat().repeat(4);
    let too_large = format!("{POST_PREDICT_HEAD}{}", guarded.predict_key_header);
    let mut cases = guarded.refused_heads();
    cases.push((413, "body-too-large", too_large));
    // A request for another protocol gets the same.
    let upgrades = cases
        .iter()
        .map(|(status, kind, head)| (*status, *kind, format!("{head}Connection: upgrade\r\nUpgrade: h2c\r\n")));
    cases.extend(upgrades.collect::<Vec<_>>());
    for (status, kind, head) in cases {
        for (rest, body) in [(&*length, hidden.as_bytes()), (chunked, &chunks)] {
            let before = guarded.response_count();
            let mut eager = Connection::connect(&guarded.server).await;
            eager.send([head.as_bytes(), rest.as_bytes(), body].concat()).await;
            assert_only_response(&eager.read_responses().await, (status, kind), true, &head);
            // Only once the answer is there.
            let mut patient = Connection::connect(&guarded.server).await;
            patient.send(format!("{head}{rest}")).await;
            if kind != "body-too-large" || rest == length {
                assert_only_response(&[patient.read_response().await], (status, kind), true, &head);
                patient.send(body).await;
            } else {
                patient.send(body).await;
                assert_only_response(&[patient.read_response().await], (status, kind), true, &head);
            }
            assert!(patient.read_responses().await.is_empty());
            assert_eq!(guarded.response_count(), before + 2, "{head:.200}");
        }
    }
    wait_for_open_connections(&guarded.server, 0).await;
    assert_cut_off(&guarded.server, &[]);
}

/// A body that came with its head is passed over: what follows is the next request, and nothing inside it is.
#[tokio::test(flavor = "multi_thread")]
async fn refused_small_body_is_skipped() {
    let guarded = GuardedServer::new().await;
    let good = guarded.allowed_request();
    for (status, kind, head) in guarded.refused_heads() {
        let before = guarded.response_count();
        let mut connection = Connection::connect(&guarded.server).await;
        connection.send(format!("{head}Content-Length: {}\r\n\r\n{good}{good}", good.len())).await;
        let first = connection.read_response().await;
        let second = connection.read_response().await;
        assert_only_response(&[first], (status, kind), false, &head);
        assert_eq!(second.status, 200, "{head:.200}");
        connection.stream.shutdown().await.unwrap();
        assert!(connection.read_responses().await.is_empty());
        assert_eq!(guarded.response_count(), before + 2, "{head:.200}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn refused_oversized_content_length_closes_connection() {
    let server = super::start_server(&[], &["--max-body", "100000"]).await;
    let before = responses_by_status(&server);
    let lengths = ["100001", "10000000000", "18446744073709551613"];
    for (path, length) in ["/predict", "/batch_predict"].iter().flat_map(|path| lengths.map(|length| (path, length))) {
        for expect in ["", "Expect: 100-continue\r\n", "EXPECT: 100-Continue\r\n"] {
            let head = POST_PREDICT_HEAD.replace("/predict", path) + expect;
            let mut connection = Connection::connect(&server).await;
            connection.send(format!("{head}Content-Length: {length}\r\n\r\n")).await;
            // Neither "100 Continue" nor a wait for the body: the server closes.
            assert_only_response(&connection.read_responses().await, (413, "body-too-large"), true, &head);
            let mut connection = Connection::connect(&server).await;
            connection.send(format!("{head}Content-Length: {length}\r\n\r\n{}", question_request().repeat(3))).await;
            assert_only_response(&connection.read_responses().await, (413, "body-too-large"), true, &head);
        }
    }
    assert_eq!(responses_by_status(&server)["413"], 2 * 3 * 3 * 2);
    assert_eq!(responses_by_status(&server)["200"], before["200"]);
    wait_for_open_connections(&server, 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn expect_continue_is_sent_only_if_body_is_read() {
    let server = super::start_server(&[], &[]).await;
    let body = question_body();
    let expecting =
        |head: &str, expect: &str| format!("{head}Expect: {expect}\r\nContent-Length: {}\r\n\r\n", body.len());
    let mut connection = Connection::connect(&server).await;
    for expect in ["100-continue", "100-Continue"] {
        assert_eq!(connection.request(expecting(POST_PREDICT_HEAD, expect)).await.status, 100);
        assert_eq!(connection.request(&body).await.status, 200);
        // Some clients do not wait. The server may ask nevertheless.
        connection.send(expecting(POST_PREDICT_HEAD, expect) + &body).await;
        let mut answer = connection.read_response().await;
        if answer.status == 100 {
            answer = connection.read_response().await;
        }
        assert_eq!(answer.status, 200);
    }
    // What else a client may expect is unknown to the standard, and hyper passes over it.
    assert_eq!(connection.request(expecting(POST_PREDICT_HEAD, "miracles") + &body).await.status, 200);
    for (status, head) in [
        (404, POST_PREDICT_HEAD.replace("/predict", "/nowhere")),
        (405, POST_PREDICT_HEAD.replace("POST", "PATCH")),
        (415, POST_PREDICT_HEAD.replace("json", "xml")),
        (400, format!("{POST_PREDICT_HEAD}Host: y\r\n")),
        (200, POST_PREDICT_HEAD.replace("POST /predict", "GET /livez")),
    ] {
        let mut connection = Connection::connect(&server).await;
        let answer = connection.request(expecting(&head, "100-continue")).await;
        assert_eq!(answer.status, status, "{head}");
        assert!(connection.read_responses().await.is_empty(), "{head}");
    }
    wait_for_open_connections(&server, 1).await;
}

/// The client may not know yet that nothing else is read: it gets the answer nevertheless.
#[tokio::test(flavor = "multi_thread")]
async fn connection_close_later_requests_are_not_run() {
    let server = super::start_server(&[], &[]).await;
    let before: u64 = responses_by_status(&server).values().sum();
    let lasts = [
        question_request().replacen("\r\n", "\r\nConnection: close\r\n", 1),
        question_request().replace("HTTP/1.1", "HTTP/1.0"),
        question_request().replacen("\r\n", "\r\nConnection: close, upgrade\r\nUpgrade: h2c\r\n", 1),
    ];
    for last in &lasts {
        for rest in [question_request(), question_request().repeat(5_000)] {
            let mut connection = Connection::connect(&server).await;
            connection.send(last.clone() + &rest).await;
            assert_only_response(&connection.read_responses().await, (200, ""), true, last);
        }
    }
    assert_eq!(responses_by_status(&server).values().sum::<u64>(), before + 2 * lasts.len() as u64);
    wait_for_open_connections(&server, 0).await;
}
