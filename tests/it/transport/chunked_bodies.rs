//! Bodies in chunks: many, small, decorated, damaged. And compressed bodies, which are never unpacked.

use super::{
    Connection, POST_PREDICT_HEAD, WireResponse, assert_cut_off, question_request, start_server,
    wait_for_open_connections,
};
use crate::support::test_server::question_body;

/// Enough for every limit on their number or decoration to show.
const MANY_CHUNKS: usize = 50_000;

/// A request whose body comes in these chunks, ended by `end`.
fn chunked_request<'a>(chunks: impl Iterator<Item = &'a [u8]>, extension: &str, end: &str) -> Vec<u8> {
    let mut request = format!("{POST_PREDICT_HEAD}Transfer-Encoding: chunked\r\n\r\n").into_bytes();
    for chunk in chunks {
        request.extend(format!("{:x}{extension}\r\n", chunk.len()).bytes());
        request.extend_from_slice(chunk);
        request.extend_from_slice(b"\r\n");
    }
    request.extend_from_slice(end.as_bytes());
    request
}

#[tokio::test(flavor = "multi_thread")]
async fn chunked_body_of_one_byte_chunks_is_accepted() {
    let server = start_server(&[], &["--max-body", &MANY_CHUNKS.to_string()]).await;
    let mut connection = Connection::connect(&server).await;
    let longest = format!("{:<MANY_CHUNKS$}", question_body());
    let answer = connection.request(chunked_request(longest.as_bytes().chunks(1), "", "0\r\n\r\n")).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    connection.request_ok().await;
    let longer = longest + " ";
    let answer = connection.request(chunked_request(longer.as_bytes().chunks(1), "", "")).await;
    assert_eq!(
        (answer.status, answer.problem_kind().as_str(), answer.closes_connection()),
        (413, "body-too-large", true)
    );
    assert!(connection.read_responses().await.is_empty());
    wait_for_open_connections(&server, 0).await;
    assert_cut_off(&server, &[]);
}

#[tokio::test(flavor = "multi_thread")]
async fn chunked_extensions_and_trailers_are_bounded() {
    let server = start_server(&[], &[]).await;
    let body = question_body();
    let ask = async |request: Vec<u8>| {
        let mut connection = Connection::connect(&server).await;
        connection.send([&request, question_request().as_bytes()].concat()).await;
        connection.read_response().await
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
        let answer = ask(chunked_request(body.as_bytes().chunks(1), &extension, &end)).await;
        assert_eq!(answer.status, status, "{extension:.20} {end:.40}");
        assert_eq!(answer.problem_kind(), if status == 200 { "" } else { "incomplete-body" });
        assert_eq!(answer.closes_connection(), status != 200);
    }
    wait_for_open_connections(&server, 0).await;
}

fn assert_damaged(answers: &[WireResponse], what: &str) {
    let [answer] = answers else { panic!("{what:?}: {answers:?}") };
    assert_eq!(
        (answer.status, answer.problem_kind().as_str(), answer.closes_connection()),
        (400, "incomplete-body", true),
        "{what:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn chunked_damaged_body_ends_connection() {
    let server = start_server(&[], &[]).await;
    let length = question_body().len();
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
        let head = format!("{POST_PREDICT_HEAD}Transfer-Encoding: chunked\r\n\r\n");
        let mut connection = Connection::connect(&server).await;
        connection.send(format!("{head}{size}\r\n{}\r\n0\r\n\r\n{}", question_body(), question_request())).await;
        assert_damaged(&connection.read_responses().await, size);
    }
    for (good, bad) in
        [("\r\n0", "0"), ("\r\n0", "\n0"), ("\r\n0", "xx\r\n0"), ("\r\n{", "\n{"), ("\r\n0\r\n\r\n", "\r\n0\rx\r\n")]
    {
        let request =
            String::from_utf8(chunked_request([question_body().as_bytes()].into_iter(), "", "0\r\n\r\n")).unwrap();
        assert!(request.contains(good));
        let mut connection = Connection::connect(&server).await;
        connection.send(request.replacen(good, bad, 1) + &question_request()).await;
        assert_damaged(&connection.read_responses().await, bad);
    }
    // A chunk of which more is announced than comes, and then the client leaves.
    let mut connection = Connection::connect(&server).await;
    connection
        .send(format!("{POST_PREDICT_HEAD}Transfer-Encoding: chunked\r\n\r\n{:x}\r\n{}", length + 1, question_body()))
        .await;
    drop(connection);
    wait_for_open_connections(&server, 0).await;
    assert_cut_off(&server, &[]);
}

/// Anything but gzip that must be unpacked: nothing is.
#[tokio::test(flavor = "multi_thread")]
async fn body_unsupported_encoding_is_refused_unread() {
    let server = start_server(&[], &[]).await;
    let bomb = [vec![0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 3], vec![0; 1_000_000]].concat();
    for encoding in ["gzip, gzip", "deflate", "br", "zstd", "compress", "identity, br"] {
        for body in [&bomb[..], &bomb[..5], b"", question_body().as_bytes()] {
            let mut connection = Connection::connect(&server).await;
            let head =
                format!("{POST_PREDICT_HEAD}Content-Encoding: {encoding}\r\nContent-Length: {}\r\n\r\n", body.len());
            let answer = connection.request([head.as_bytes(), body].concat()).await;
            assert_eq!((answer.status, answer.problem_kind().as_str()), (415, "unsupported-media-type"), "{encoding}");
            assert_eq!(answer.header("accept-encoding"), Some("gzip, identity"));
        }
    }
    // Compression that only the connection names, or no header, is not looked for.
    for framing in [
        format!("Content-Length: {}\r\n\r\n", bomb.len()),
        "Transfer-Encoding: gzip, chunked\r\n\r\nf4240\r\n".to_owned(),
    ] {
        let mut connection = Connection::connect(&server).await;
        let end = if framing.starts_with('C') { "" } else { "\r\n0\r\n\r\n" };
        let body = if end.is_empty() { &bomb[..] } else { &bomb[..1_000_000] };
        let answer =
            connection.request([POST_PREDICT_HEAD.as_bytes(), framing.as_bytes(), body, end.as_bytes()].concat()).await;
        assert_eq!((answer.status, answer.problem_kind().as_str()), (400, "malformed-json"));
        connection.request_ok().await;
    }
    wait_for_open_connections(&server, 0).await;
}
