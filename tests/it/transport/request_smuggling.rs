//! Messages that two programs could read differently: where one ends and the next begins.
//!
//! Every message has a request behind it, and many have one inside: that one must never be run.

use super::ExpectedOutcome::{Answered, AnsweredThenClosed, Refused};
use super::{SMUGGLED_REQUEST, assert_outcome, start_server, wait_for_open_connections};
use crate::support::test_server::question_body;

#[tokio::test(flavor = "multi_thread")]
async fn smuggling_two_lengths_are_never_both_used() {
    let server = start_server(&[], &[]).await;
    let text = question_body();
    let n = text.len();
    let chunked = format!("{n:x}\r\n{text}\r\n0\r\n\r\n");
    let both = n + SMUGGLED_REQUEST.len();
    let te = "Transfer-Encoding: chunked";
    for (fate, headers, body) in [
        // hyper does as RFC 9112, 6.3 allows: the chunks count, and the connection ends.
        (AnsweredThenClosed(200), format!("Content-Length: {}\r\n{te}", chunked.len()), chunked.clone()),
        (AnsweredThenClosed(200), format!("{te}\r\nContent-Length: {}", chunked.len()), chunked.clone()),
        (
            AnsweredThenClosed(200),
            format!("Content-Length: {}\r\n{te}", chunked.len() + SMUGGLED_REQUEST.len()),
            chunked.clone() + SMUGGLED_REQUEST,
        ),
        (AnsweredThenClosed(200), format!("{te}\r\nContent-Length: 0"), chunked.clone() + SMUGGLED_REQUEST),
        (AnsweredThenClosed(200), format!("{te}\r\nContent-Length: x"), chunked.clone() + SMUGGLED_REQUEST),
        (
            AnsweredThenClosed(400),
            format!("Content-Length: 4\r\n{te}"),
            format!("{:x}\r\n{SMUGGLED_REQUEST}\r\n0\r\n\r\n", SMUGGLED_REQUEST.len()),
        ),
        (AnsweredThenClosed(400), format!("Content-Length: {both}\r\n{te}"), format!("0\r\n\r\n{SMUGGLED_REQUEST}")),
        (Refused(400), format!("Content-Length: {n}\r\nContent-Length: {both}"), text.clone() + SMUGGLED_REQUEST),
        (Refused(400), format!("Content-Length: {both}\r\nContent-Length: {n}"), text.clone() + SMUGGLED_REQUEST),
        (Refused(400), format!("Content-Length: 0\r\nContent-Length: {n}"), text.clone() + SMUGGLED_REQUEST),
        (Refused(400), format!("Content-Length: {n}, {both}"), text.clone() + SMUGGLED_REQUEST),
        (Refused(400), format!("Content-Length: {n}, {n}"), text.clone() + SMUGGLED_REQUEST),
        (Refused(400), format!("Content-Length: {n},{n}"), text.clone() + SMUGGLED_REQUEST),
        (Answered(200), format!("Content-Length: {n}\r\nContent-Length: {n}"), text.clone()),
    ] {
        assert_outcome(&server, fate, post_with_headers(&headers, &body).as_bytes()).await;
    }
    wait_for_open_connections(&server, 0).await;
}

/// The head of a prediction with these headers, and what follows it.
fn post_with_headers(headers: &str, body: &str) -> String {
    format!("{}{headers}\r\n\r\n{body}", super::POST_PREDICT_HEAD)
}

#[tokio::test(flavor = "multi_thread")]
async fn smuggling_content_length_must_be_plain_digits() {
    let server = start_server(&[], &[]).await;
    let text = question_body();
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
        assert_outcome(&server, fate, post_with_headers(&format!("Content-Length: {length}"), &text).as_bytes()).await;
    }
    // Not the header that frames a message, whatever it looks like to a gateway that folds names.
    let lookalike = post_with_headers(&format!("Transfer_Encoding: chunked\r\nContent-Length: {n}"), &text);
    assert_outcome(&server, Answered(200), lookalike.as_bytes()).await;
    wait_for_open_connections(&server, 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn smuggling_only_final_chunked_coding_is_chunked() {
    let server = start_server(&[], &[]).await;
    let text = question_body();
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
        assert_outcome(&server, fate, post_with_headers(encoding, &chunked).as_bytes()).await;
    }
    // An older protocol has lengths only.
    for (fate, headers, body) in [
        (AnsweredThenClosed(200), format!("Content-Length: {n}"), &text),
        (Answered(200), format!("Connection: keep-alive\r\nContent-Length: {n}"), &text),
        (Refused(400), "Transfer-Encoding: chunked".to_owned(), &chunked),
        (Refused(400), format!("Content-Length: {n}\r\nTransfer-Encoding: chunked"), &text),
    ] {
        let message = post_with_headers(&headers, body).replace("HTTP/1.1", "HTTP/1.0");
        assert_outcome(&server, fate, message.as_bytes()).await;
    }
    wait_for_open_connections(&server, 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn smuggling_chunks_end_at_their_size() {
    let server = start_server(&[], &[]).await;
    let text = question_body();
    let n = text.len();
    let whole = format!("{n:x}\r\n{text}\r\n0\r\n");
    for (fate, body) in [
        (Answered(200), format!("{whole}\r\n")),
        (Answered(200), format!("{whole}Content-Length: 5\r\nTransfer-Encoding: x\r\n\r\n")),
        (Answered(200), format!("{n:x};a=\"b\";c\r\n{text}\r\n000;d\r\n\r\n")),
        (Answered(200), format!("{n:X} \r\n{text}\r\n0\r\n\r\n")),
        (AnsweredThenClosed(400), format!("{whole}{SMUGGLED_REQUEST}")),
        (AnsweredThenClosed(400), format!("{whole}\r\n").replace('\r', "")),
        (AnsweredThenClosed(400), format!("{n:x};a\n{text}\r\n0\r\n\r\n")),
        (AnsweredThenClosed(400), format!("{n:x};a\rb\r\n{text}\r\n0\r\n\r\n")),
        (AnsweredThenClosed(400), format!("{n:x};{SMUGGLED_REQUEST}{text}\r\n0\r\n\r\n")),
        (AnsweredThenClosed(400), format!("1{n:016x}\r\n{text}\r\n0\r\n\r\n")),
        (AnsweredThenClosed(400), format!("-{n:x}\r\n{text}\r\n0\r\n\r\n")),
        (AnsweredThenClosed(400), format!("{:x}\r\n{text}\r\n0\r\n\r\n", n - 1)),
        (AnsweredThenClosed(400), format!("{:x}\r\n{text}\r\n0\r\n\r\n", n + 1)),
    ] {
        assert_outcome(&server, fate, post_with_headers("Transfer-Encoding: chunked", &body).as_bytes()).await;
    }
    wait_for_open_connections(&server, 0).await;
}
