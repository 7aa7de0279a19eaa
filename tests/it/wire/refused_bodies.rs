//! Requests that are refused before their body was read: the client gets the answer, whatever it
//! is still sending, and nothing inside the body is taken for a request.

use std::collections::BTreeSet;

use predictd::keys::{Scope, change};
use serde_json::json;
use tempfile::TempDir;
use tokio::io::AsyncWriteExt;

use super::{Answer, Connection, POST, answered, assert_cut_off, options, question, until_open};
use crate::server::{QUESTION, TestServer, cheap_models};

/// A server with keys, and the header of a good one.
struct Guarded {
    server: TestServer,
    good: String,
    weak: String,
    _keys: TempDir,
}

impl Guarded {
    async fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("keys.toml");
        let key = |name: &str, scope| {
            let key = change(&path, |keys| keys.add(name, BTreeSet::from([scope]), None)).unwrap();
            format!("Authorization: Bearer {key}\r\n")
        };
        let (good, weak) = (key("good", Scope::Predict), key("weak", Scope::Feedback));
        let mut server =
            TestServer::start(cheap_models().path(), &options(&[], &["--keys", path.to_str().unwrap()])).await;
        super::leave(&mut server).await;
        Self { server, good, weak, _keys: directory }
    }

    /// Heads of requests whose body is refused, or not looked at: what they are answered with.
    fn heads(&self) -> Vec<(u16, &'static str, String)> {
        let Self { good, weak, .. } = self;
        let post = format!("{POST}{good}");
        let many = "X: a\r\n".repeat(65);
        vec![
            (401, "unauthenticated", POST.to_owned()),
            (401, "unauthenticated", format!("{POST}Authorization: Bearer x\r\n")),
            (403, "forbidden", format!("{POST}{weak}")),
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
    fn question(&self) -> String {
        question().replacen("\r\n", &format!("\r\n{}", self.good), 1)
    }

    fn answered(&self) -> u64 {
        answered(&self.server).values().sum()
    }
}

fn assert_only(answers: &[Answer], (status, kind): (u16, &str), closes: bool, head: &str) {
    let [answer] = answers else { panic!("{head:.200}: {answers:?}") };
    assert_eq!((answer.status, answer.kind().as_str(), answer.closes()), (status, kind, closes), "{head:.200}");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_still_sends_a_large_refused_body_gets_the_answer() {
    let guarded = Guarded::new().await;
    let hidden = guarded.question().repeat((4 << 20) / guarded.question().len());
    let length = format!("Content-Length: {}\r\n\r\n", hidden.len());
    let chunked = "Transfer-Encoding: chunked\r\n\r\n";
    let chunks = [b"100000\r\n", &hidden.as_bytes()[..1 << 20], b"\r\n"].concat().repeat(4);
    let too_large = format!("{POST}{}", guarded.good);
    let mut cases = guarded.heads();
    cases.push((413, "body-too-large", too_large));
    // Somebody who also asks for another protocol is not treated worse.
    let upgrades = cases
        .iter()
        .map(|(status, kind, head)| (*status, *kind, format!("{head}Connection: upgrade\r\nUpgrade: h2c\r\n")));
    cases.extend(upgrades.collect::<Vec<_>>());
    for (status, kind, head) in cases {
        for (rest, body) in [(&*length, hidden.as_bytes()), (chunked, &chunks)] {
            let before = guarded.answered();
            let mut eager = Connection::to(&guarded.server).await;
            eager.send([head.as_bytes(), rest.as_bytes(), body].concat()).await;
            assert_only(&eager.answers().await, (status, kind), true, &head);
            // Only once the answer is there.
            let mut patient = Connection::to(&guarded.server).await;
            patient.send(format!("{head}{rest}")).await;
            if kind != "body-too-large" || rest == length {
                assert_only(&[patient.answer().await], (status, kind), true, &head);
                patient.send(body).await;
            } else {
                patient.send(body).await;
                assert_only(&[patient.answer().await], (status, kind), true, &head);
            }
            assert!(patient.answers().await.is_empty());
            assert_eq!(guarded.answered(), before + 2, "{head:.200}");
        }
    }
    until_open(&guarded.server, 0).await;
    assert_cut_off(&guarded.server, &[]);
}

/// A body that came with its head is passed over: what follows is the next request, and nothing inside it is.
#[tokio::test(flavor = "multi_thread")]
async fn small_refused_bodies_are_passed_over() {
    let guarded = Guarded::new().await;
    let good = guarded.question();
    for (status, kind, head) in guarded.heads() {
        let before = guarded.answered();
        let mut connection = Connection::to(&guarded.server).await;
        connection.send(format!("{head}Content-Length: {}\r\n\r\n{good}{good}", good.len())).await;
        let (first, second) = (connection.answer().await, connection.answer().await);
        assert_only(&[first], (status, kind), false, &head);
        assert_eq!(second.status, 200, "{head:.200}");
        connection.stream.shutdown().await.unwrap();
        assert!(connection.answers().await.is_empty());
        assert_eq!(guarded.answered(), before + 2, "{head:.200}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_follows_a_body_that_is_announced_too_large() {
    let server = super::server(&[], &["--max-body", "100000"]).await;
    let before = answered(&server);
    let lengths = ["100001", "10000000000", "18446744073709551613"];
    for (path, length) in ["/predict", "/batch_predict"].iter().flat_map(|path| lengths.map(|length| (path, length))) {
        for expect in ["", "Expect: 100-continue\r\n", "EXPECT: 100-Continue\r\n"] {
            let head = POST.replace("/predict", path) + expect;
            let mut connection = Connection::to(&server).await;
            connection.send(format!("{head}Content-Length: {length}\r\n\r\n")).await;
            // Neither "100 Continue" nor a wait for the body: the server closes.
            assert_only(&connection.answers().await, (413, "body-too-large"), true, &head);
            let mut connection = Connection::to(&server).await;
            connection.send(format!("{head}Content-Length: {length}\r\n\r\n{}", question().repeat(3))).await;
            assert_only(&connection.answers().await, (413, "body-too-large"), true, &head);
        }
    }
    assert_eq!(answered(&server)["413"], 2 * 3 * 3 * 2);
    assert_eq!(answered(&server)["200"], before["200"]);
    until_open(&server, 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_is_only_asked_for_if_it_will_be_read() {
    let server = super::server(&[], &[]).await;
    let body = json!({ "text": QUESTION }).to_string();
    let expecting =
        |head: &str, expect: &str| format!("{head}Expect: {expect}\r\nContent-Length: {}\r\n\r\n", body.len());
    let mut connection = Connection::to(&server).await;
    for expect in ["100-continue", "100-Continue"] {
        assert_eq!(connection.ask(expecting(POST, expect)).await.status, 100);
        assert_eq!(connection.ask(&body).await.status, 200);
        // Some clients do not wait. The server may ask nevertheless.
        connection.send(expecting(POST, expect) + &body).await;
        let mut answer = connection.answer().await;
        if answer.status == 100 {
            answer = connection.answer().await;
        }
        assert_eq!(answer.status, 200);
    }
    // What else a client may expect is unknown to the standard, and hyper passes over it.
    assert_eq!(connection.ask(expecting(POST, "miracles") + &body).await.status, 200);
    for (status, head) in [
        (404, POST.replace("/predict", "/nowhere")),
        (405, POST.replace("POST", "PATCH")),
        (415, POST.replace("json", "xml")),
        (400, format!("{POST}Host: y\r\n")),
        (200, POST.replace("POST /predict", "GET /livez")),
    ] {
        let mut connection = Connection::to(&server).await;
        let answer = connection.ask(expecting(&head, "100-continue")).await;
        assert_eq!(answer.status, status, "{head}");
        assert!(connection.answers().await.is_empty(), "{head}");
    }
    until_open(&server, 1).await;
}

/// The client may not know yet that nothing else is read: it gets the answer nevertheless.
#[tokio::test(flavor = "multi_thread")]
async fn what_follows_the_last_request_is_not_run() {
    let server = super::server(&[], &[]).await;
    let before: u64 = answered(&server).values().sum();
    let lasts = [
        question().replacen("\r\n", "\r\nConnection: close\r\n", 1),
        question().replace("HTTP/1.1", "HTTP/1.0"),
        question().replacen("\r\n", "\r\nConnection: close, upgrade\r\nUpgrade: h2c\r\n", 1),
    ];
    for last in &lasts {
        for rest in [question(), question().repeat(5_000)] {
            let mut connection = Connection::to(&server).await;
            connection.send(last.clone() + &rest).await;
            assert_only(&connection.answers().await, (200, ""), true, last);
        }
    }
    assert_eq!(answered(&server).values().sum::<u64>(), before + 2 * lasts.len() as u64);
    until_open(&server, 0).await;
}
