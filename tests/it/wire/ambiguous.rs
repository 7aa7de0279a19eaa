//! Messages that two programs could read differently: where one ends and the next begins.
//!
//! Every message has a request behind it, and many have one inside: that one must never be run.

use serde_json::json;
use tokio::io::AsyncWriteExt;

use super::{Answer, Connection, counts, server, until_open};
use crate::server::{QUESTION, TestServer};

/// Stands inside messages. Nobody sends this as a request.
pub(super) const HIDDEN: &str = "GET /health HTTP/1.1\r\nHost: x\r\n\r\n";
/// Stands behind messages.
const NEXT: &str = "GET /livez HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";

/// What becomes of a message.
#[derive(Debug, Clone, Copy)]
pub(super) enum Fate {
    /// It reaches a route and is answered so, and then the request behind it is answered.
    Answered(u16),
    /// It reaches a route and is answered so, and the connection ends.
    Last(u16),
    /// It reaches no route: hyper answers so, without a body, and the connection ends.
    Refused(u16),
}
use Fate::{Answered, Last, Refused};

/// Asserts what becomes of a message, in one piece and in many.
pub(super) async fn assert_fate(server: &TestServer, fate: Fate, message: &[u8]) {
    let shown = String::from_utf8_lossy(message);
    let whole = [message, NEXT.as_bytes()].concat();
    for piece in [whole.len(), 5] {
        let before = counts(server, "predictd_http_requests_total", "route");
        let mut connection = Connection::to(server).await;
        connection.stream.set_nodelay(true).unwrap();
        for bytes in whole.chunks(piece) {
            // The connection may end before everything is sent.
            if connection.stream.write_all(bytes).await.is_err() {
                break;
            }
        }
        let mut received = connection.end().await;
        let mut answers = Vec::new();
        while let Some((answer, length)) = Answer::first(&received) {
            received.drain(..length);
            answers.push(answer);
        }
        assert!(received.is_empty(), "{shown:.200}: {received:?}");
        let statuses: Vec<u16> = answers.iter().map(|answer| answer.status).collect();
        let (expected, reached) = match fate {
            Answered(status) => (vec![status, 200], 2),
            Last(status) => (vec![status], 1),
            Refused(status) => (vec![status], 0),
        };
        assert_eq!(statuses, expected, "{shown:.200}");
        assert!(answers.last().is_none_or(Answer::closes), "{shown:.200}: {answers:?}");
        if let Refused(_) = fate {
            assert_eq!(answers[0].body, "", "{shown:.200}");
        }
        let after = counts(server, "predictd_http_requests_total", "route");
        assert_eq!(after.values().sum::<u64>() - before.values().sum::<u64>(), reached, "{shown:.200}");
        assert_eq!(after["/health"], before["/health"], "{shown:.200}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn two_lengths_are_never_believed_both() {
    let server = server(&[], &[]).await;
    let text = json!({ "text": QUESTION }).to_string();
    let n = text.len();
    let chunked = format!("{n:x}\r\n{text}\r\n0\r\n\r\n");
    let both = n + HIDDEN.len();
    let te = "Transfer-Encoding: chunked";
    for (fate, headers, body) in [
        // hyper does as RFC 9112, 6.3 allows: the chunks count, and the connection ends.
        (Last(200), format!("Content-Length: {}\r\n{te}", chunked.len()), chunked.clone()),
        (Last(200), format!("{te}\r\nContent-Length: {}", chunked.len()), chunked.clone()),
        (Last(200), format!("Content-Length: {}\r\n{te}", chunked.len() + HIDDEN.len()), chunked.clone() + HIDDEN),
        (Last(200), format!("{te}\r\nContent-Length: 0"), chunked.clone() + HIDDEN),
        (Last(200), format!("{te}\r\nContent-Length: x"), chunked.clone() + HIDDEN),
        (Last(400), format!("Content-Length: 4\r\n{te}"), format!("{:x}\r\n{HIDDEN}\r\n0\r\n\r\n", HIDDEN.len())),
        (Last(400), format!("Content-Length: {both}\r\n{te}"), format!("0\r\n\r\n{HIDDEN}")),
        (Refused(400), format!("Content-Length: {n}\r\nContent-Length: {both}"), text.clone() + HIDDEN),
        (Refused(400), format!("Content-Length: {both}\r\nContent-Length: {n}"), text.clone() + HIDDEN),
        (Refused(400), format!("Content-Length: 0\r\nContent-Length: {n}"), text.clone() + HIDDEN),
        (Refused(400), format!("Content-Length: {n}, {both}"), text.clone() + HIDDEN),
        (Refused(400), format!("Content-Length: {n}, {n}"), text.clone() + HIDDEN),
        (Refused(400), format!("Content-Length: {n},{n}"), text.clone() + HIDDEN),
        (Answered(200), format!("Content-Length: {n}\r\nContent-Length: {n}"), text.clone()),
    ] {
        assert_fate(&server, fate, post(&headers, &body).as_bytes()).await;
    }
    until_open(&server, 0).await;
}

/// The head of a prediction with these headers, and what follows it.
fn post(headers: &str, body: &str) -> String {
    format!("{}{headers}\r\n\r\n{body}", super::POST)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_length_is_a_number_and_nothing_else() {
    let server = server(&[], &[]).await;
    let text = json!({ "text": QUESTION }).to_string();
    let n = text.len();
    for (fate, length) in [
        (Answered(200), format!("{n}")),
        (Answered(200), format!(" \t {n} \t")),
        (Answered(200), format!("000{n}")),
        (Refused(400), String::new()),
        (Refused(400), format!("+{n}")),
        (Refused(400), format!("-{n}")),
        (Refused(400), format!("0x{n:x}")),
        (Refused(400), format!("{n}.0")),
        (Refused(400), format!("{n} {n}")),
        (Refused(400), format!("{n};a")),
        (Refused(400), format!("\"{n}\"")),
        (Refused(400), "١٢".to_owned()),
        (Refused(400), "18446744073709551616".to_owned()),
        // As good as endless. hyper's word for it.
        (Refused(431), "18446744073709551615".to_owned()),
    ] {
        assert_fate(&server, fate, post(&format!("Content-Length: {length}"), &text).as_bytes()).await;
    }
    // Not the header that frames a message, whatever it looks like to a gateway that folds names.
    let lookalike = post(&format!("Transfer_Encoding: chunked\r\nContent-Length: {n}"), &text);
    assert_fate(&server, Answered(200), lookalike.as_bytes()).await;
    until_open(&server, 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn only_what_ends_in_chunked_is_chunked() {
    let server = server(&[], &[]).await;
    let text = json!({ "text": QUESTION }).to_string();
    let n = text.len();
    let chunked = format!("{n:x}\r\n{text}\r\n0\r\n\r\n");
    for (fate, encoding) in [
        (Answered(200), "Transfer-Encoding: chunked"),
        (Answered(200), "TRANSFER-ENCODING:\tCHUNKED\t"),
        // hyper looks at the last coding only; any before it is left to the reader of the body, who finds no JSON.
        (Answered(200), "Transfer-Encoding: identity, chunked"),
        (Answered(200), "Transfer-Encoding: identity\r\nTransfer-Encoding: chunked"),
        (Answered(200), "Transfer-Encoding: chunked, chunked"),
        (Answered(200), "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked"),
        (Refused(400), "Transfer-Encoding:"),
        (Refused(400), "Transfer-Encoding: identity"),
        (Refused(400), "Transfer-Encoding: gzip"),
        (Refused(400), "Transfer-Encoding: xchunked"),
        (Refused(400), "Transfer-Encoding: chunkedx"),
        (Refused(400), "Transfer-Encoding: chunked;a=b"),
        (Refused(400), "Transfer-Encoding: \"chunked\""),
        (Refused(400), "Transfer-Encoding: \u{b}chunked"),
        (Refused(400), "Transfer-Encoding: \u{a0}chunked"),
        (Refused(400), "Transfer-Encoding: chunked, identity"),
        (Refused(400), "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity"),
        (Refused(400), "Content-Length: 5\r\nTransfer-Encoding: identity"),
        (Refused(400), "Transfer-Encoding : chunked"),
        (Refused(400), "Transfer-Encoding\t: chunked"),
        (Refused(400), " Transfer-Encoding: chunked"),
        (Refused(400), "Transfer-Encoding:\r\n chunked"),
        (Refused(400), "X: a\r\n Transfer-Encoding: chunked"),
    ] {
        assert_fate(&server, fate, post(encoding, &chunked).as_bytes()).await;
    }
    // An older protocol has lengths only.
    let old = |headers: &str, body: &str| post(headers, body).replace("HTTP/1.1", "HTTP/1.0");
    for (fate, message) in [
        (Last(200), old(&format!("Content-Length: {n}"), &text)),
        (Answered(200), old(&format!("Connection: keep-alive\r\nContent-Length: {n}"), &text)),
        (Refused(400), old("Transfer-Encoding: chunked", &chunked)),
        (Refused(400), old(&format!("Content-Length: {n}\r\nTransfer-Encoding: chunked"), &text)),
    ] {
        assert_fate(&server, fate, message.as_bytes()).await;
    }
    until_open(&server, 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn chunks_end_where_they_say() {
    let server = server(&[], &[]).await;
    let text = json!({ "text": QUESTION }).to_string();
    let n = text.len();
    let whole = format!("{n:x}\r\n{text}\r\n0\r\n");
    for (fate, body) in [
        (Answered(200), format!("{whole}\r\n")),
        (Answered(200), format!("{whole}Content-Length: 5\r\nTransfer-Encoding: x\r\n\r\n")),
        (Answered(200), format!("{n:x};a=\"b\";c\r\n{text}\r\n000;d\r\n\r\n")),
        (Answered(200), format!("{n:X} \r\n{text}\r\n0\r\n\r\n")),
        (Last(400), format!("{whole}{HIDDEN}")),
        (Last(400), format!("{whole}\r\n").replace('\r', "")),
        (Last(400), format!("{n:x};a\n{text}\r\n0\r\n\r\n")),
        (Last(400), format!("{n:x};a\rb\r\n{text}\r\n0\r\n\r\n")),
        (Last(400), format!("{n:x};{HIDDEN}{text}\r\n0\r\n\r\n")),
        (Last(400), format!("1{n:016x}\r\n{text}\r\n0\r\n\r\n")),
        (Last(400), format!("-{n:x}\r\n{text}\r\n0\r\n\r\n")),
        (Last(400), format!("{:x}\r\n{text}\r\n0\r\n\r\n", n - 1)),
        (Last(400), format!("{:x}\r\n{text}\r\n0\r\n\r\n", n + 1)),
    ] {
        assert_fate(&server, fate, post("Transfer-Encoding: chunked", &body).as_bytes()).await;
    }
    until_open(&server, 0).await;
}
