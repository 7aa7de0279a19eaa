//! Bodies in chunks: many, small, decorated, damaged. And compressed bodies, which are never unpacked.

use serde_json::json;

use super::{Answer, Connection, POST, assert_cut_off, question, server, until_open};
use crate::server::QUESTION;

/// Enough for every limit on their number or decoration to show.
const MANY: usize = 50_000;

/// A request whose body comes in these chunks, ended by `end`.
fn chunked<'a>(chunks: impl Iterator<Item = &'a [u8]>, extension: &str, end: &str) -> Vec<u8> {
    let mut request = format!("{POST}Transfer-Encoding: chunked\r\n\r\n").into_bytes();
    for chunk in chunks {
        request.extend(format!("{:x}{extension}\r\n", chunk.len()).bytes());
        request.extend_from_slice(chunk);
        request.extend_from_slice(b"\r\n");
    }
    request.extend_from_slice(end.as_bytes());
    request
}

fn text() -> String {
    json!({ "text": QUESTION }).to_string()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_may_come_in_chunks_of_one_byte() {
    let server = server(&[], &["--max-body", &MANY.to_string()]).await;
    let mut connection = Connection::to(&server).await;
    let longest = format!("{:<MANY$}", text());
    let answer = connection.ask(chunked(longest.as_bytes().chunks(1), "", "0\r\n\r\n")).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    connection.ask_well().await;
    let longer = longest + " ";
    let answer = connection.ask(chunked(longer.as_bytes().chunks(1), "", "")).await;
    assert_eq!((answer.status, answer.kind().as_str(), answer.closes()), (413, "body-too-large", true));
    assert!(connection.answers().await.is_empty());
    until_open(&server, 0).await;
    assert_cut_off(&server, &[]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_decorates_a_body_is_bounded() {
    let server = server(&[], &[]).await;
    let body = text();
    let ask = async |request: Vec<u8>| {
        let mut connection = Connection::to(&server).await;
        connection.send([&request, question().as_bytes()].concat()).await;
        connection.answer().await
    };
    let trailers = |count: usize| format!("0\r\n{}\r\n", "X-Trailer: a\r\n".repeat(count));
    let extension = |length: usize| format!(";{}", "a".repeat(length));
    // hyper's bounds, for the whole of a body: 16 KB of extensions, 100 trailers, 16 KB of them.
    for (status, extension, end) in [
        (200, ";a=b".to_owned(), trailers(0)),
        (200, extension(100), trailers(0)),
        (400, extension(20_000), trailers(0)),
        (400, extension(1_000), trailers(0)),
        (200, String::new(), trailers(50)),
        (400, String::new(), trailers(200)),
        (400, String::new(), format!("0\r\nX-Trailer: {}\r\n\r\n", "a".repeat(20_000))),
    ] {
        let answer = ask(chunked(body.as_bytes().chunks(1), &extension, &end)).await;
        assert_eq!(answer.status, status, "{extension:.20} {end:.40}");
        assert_eq!(answer.kind(), if status == 200 { "" } else { "incomplete-body" });
        assert_eq!(answer.closes(), status != 200);
    }
    until_open(&server, 0).await;
}

fn assert_damaged(answers: &[Answer], what: &str) {
    let [answer] = answers else { panic!("{what:?}: {answers:?}") };
    assert_eq!((answer.status, answer.kind().as_str(), answer.closes()), (400, "incomplete-body", true), "{what:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn damaged_chunks_end_the_connection() {
    let server = server(&[], &[]).await;
    let length = text().len();
    for size in [
        "-1",
        "+1",
        "0x1",
        " 1",
        "1 1",
        "g",
        "",
        ";a",
        "1,1",
        "1\n",
        "1\0",
        "10000000000000000",
        "fffffffffffffffff",
        "ffffffffffffffffffffffffffffffff",
        "00000000000000000000000000000000001",
    ] {
        let head = format!("{POST}Transfer-Encoding: chunked\r\n\r\n");
        let mut connection = Connection::to(&server).await;
        connection.send(format!("{head}{size}\r\n{}\r\n0\r\n\r\n{}", text(), question())).await;
        assert_damaged(&connection.answers().await, size);
    }
    for (good, bad) in
        [("\r\n0", "0"), ("\r\n0", "\n0"), ("\r\n0", "xx\r\n0"), ("\r\n{", "\n{"), ("\r\n0\r\n\r\n", "\r\n0\rx\r\n")]
    {
        let request = String::from_utf8(chunked([text().as_bytes()].into_iter(), "", "0\r\n\r\n")).unwrap();
        assert!(request.contains(good));
        let mut connection = Connection::to(&server).await;
        connection.send(request.replacen(good, bad, 1) + &question()).await;
        assert_damaged(&connection.answers().await, bad);
    }
    // A chunk of which more is announced than comes, and then the client leaves.
    let mut connection = Connection::to(&server).await;
    connection.send(format!("{POST}Transfer-Encoding: chunked\r\n\r\n{:x}\r\n{}", length + 1, text())).await;
    drop(connection);
    until_open(&server, 0).await;
    assert_cut_off(&server, &[]);
}

/// Anything but gzip that must be unpacked: nothing is.
#[tokio::test(flavor = "multi_thread")]
async fn compressed_bodies_are_refused_unread() {
    let server = server(&[], &[]).await;
    let bomb = [vec![0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 3], vec![0; 1_000_000]].concat();
    for encoding in ["gzip, gzip", "deflate", "br", "zstd", "compress", "identity, br"] {
        for body in [&bomb[..], &bomb[..5], b"", text().as_bytes()] {
            let mut connection = Connection::to(&server).await;
            let head = format!("{POST}Content-Encoding: {encoding}\r\nContent-Length: {}\r\n\r\n", body.len());
            let answer = connection.ask([head.as_bytes(), body].concat()).await;
            assert_eq!((answer.status, answer.kind().as_str()), (415, "unsupported-media-type"), "{encoding}");
            assert_eq!(answer.header("accept-encoding"), Some("gzip, identity"));
        }
    }
    // Compression that only the connection names, or nobody, is not looked for.
    for framing in [
        format!("Content-Length: {}\r\n\r\n", bomb.len()),
        "Transfer-Encoding: gzip, chunked\r\n\r\nf4240\r\n".to_owned(),
    ] {
        let mut connection = Connection::to(&server).await;
        let end = if framing.starts_with('C') { "" } else { "\r\n0\r\n\r\n" };
        let body = if end.is_empty() { &bomb[..] } else { &bomb[..1_000_000] };
        let answer = connection.ask([POST.as_bytes(), framing.as_bytes(), body, end.as_bytes()].concat()).await;
        assert_eq!((answer.status, answer.kind().as_str()), (400, "malformed-json"));
        connection.ask_well().await;
    }
    until_open(&server, 0).await;
}
