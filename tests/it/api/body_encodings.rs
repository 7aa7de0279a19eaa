//! Bodies that are compressed, and bodies that are not UTF-8.

use std::io::{Error, Write};

use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use http_body_util::StreamBody;
use hyper::body::Frame;
use serde_json::json;

use crate::support::answers::label;
use crate::support::test_server::{QUESTION, Response, TestServer, cheap_models, question_body, send_request};

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn question_bytes() -> Vec<u8> {
    question_body().into_bytes()
}

/// A body of unknown length, in parts of this size.
fn streamed_body(bytes: &[u8], size: usize) -> reqwest::Body {
    let frames: Vec<_> =
        bytes.chunks(size).map(|part| Frame::data(Bytes::copy_from_slice(part))).map(Ok::<_, Error>).collect();
    reqwest::Body::wrap(StreamBody::new(futures_util::stream::iter(frames)))
}

async fn send(server: &TestServer, encoding: &str, body: impl Into<reqwest::Body>) -> Response {
    let request = server.client.post(format!("{}/predict", server.url)).header("content-type", "application/json");
    send_request(request.header("content-encoding", encoding).body(body)).await
}

#[tokio::test]
async fn body_identity_and_gzip_are_accepted() {
    let server = TestServer::start(cheap_models().path(), &[]).await;
    let two_members = [gzip(b"{\"text\":"), gzip(format!("{QUESTION:?}}}").as_bytes())].concat();
    for (encoding, body) in [
        ("identity", question_bytes()),
        ("", question_bytes()),
        ("gzip", gzip(&question_bytes())),
        ("GZIP", gzip(&question_bytes())),
        ("x-gzip", gzip(&question_bytes())),
        ("identity, gzip", gzip(&question_bytes())),
        ("gzip", two_members),
    ] {
        let reply = send(&server, encoding, body).await;
        assert_eq!((reply.status, label(&reply.json())), (200, "card_arrival"), "{encoding:?}");
    }
    // In chunks, of unknown length.
    let compressed = gzip(&question_bytes());
    assert_eq!(send(&server, "gzip", streamed_body(&compressed, 7)).await.status, 200);
}

#[tokio::test]
async fn body_damaged_gzip_is_400() {
    let server = TestServer::start(cheap_models().path(), &[]).await;
    let good = gzip(&question_bytes());
    let mut flipped = good.clone();
    let middle = flipped.len() / 2;
    flipped[middle] ^= 0x40;
    let mut checksum = good.clone();
    let end = checksum.len() - 6;
    checksum[end] ^= 1;
    for (name, body) in [
        ("empty", Vec::new()),
        ("plain JSON", question_bytes()),
        ("cut", good[..good.len() - 9].to_vec()),
        ("without its checksum", good[..good.len() - 8].to_vec()),
        ("changed", flipped),
        ("another checksum", checksum),
        ("and more", [good.clone(), b"more".to_vec()].concat()),
        ("a header", good[..10].to_vec()),
    ] {
        let reply = send(&server, "gzip", body).await;
        assert_eq!((reply.status, reply.problem_kind().as_str()), (400, "damaged-encoding"), "{name}: {}", reply.body);
    }
    crate::support::problems::assert_alive(&server).await;
}

#[tokio::test]
async fn body_gzip_limit_counts_decompressed_bytes() {
    let server = TestServer::start(cheap_models().path(), &["--max-body", "65536"]).await;
    let sized = |size: usize| [question_bytes(), vec![b' '; size - question_bytes().len()]].concat();
    assert_eq!(send(&server, "gzip", gzip(&sized(65_536))).await.status, 200);
    for size in [65_537, 1 << 20, 64 << 20] {
        let bomb = gzip(&sized(size));
        assert!(bomb.len() < 65_536, "{}", bomb.len());
        let reply = send(&server, "gzip", bomb).await;
        assert_eq!((reply.status, reply.problem_kind().as_str()), (413, "body-too-large"), "{size}");
    }
    // A bomb in chunks is no larger.
    assert_eq!(send(&server, "gzip", streamed_body(&gzip(&sized(64 << 20)), 1 << 20)).await.status, 413);
    crate::support::problems::assert_alive(&server).await;
}

#[tokio::test]
async fn body_other_encoding_is_415_with_accept_encoding() {
    let server = TestServer::start(cheap_models().path(), &[]).await;
    for encoding in ["br", "deflate", "zstd", "gzip, gzip", "gzip, br"] {
        let reply = send(&server, encoding, question_bytes()).await;
        assert_eq!((reply.status, reply.problem_kind().as_str()), (415, "unsupported-media-type"), "{encoding}");
        assert_eq!(reply.headers["accept-encoding"], "gzip, identity");
    }
}

#[tokio::test]
async fn body_byte_order_mark_is_skipped() {
    let server = TestServer::start(cheap_models().path(), &[]).await;
    let mark = "\u{feff}".as_bytes();
    for (path, body) in [("/predict", question_bytes()), ("/batch_predict", json!([QUESTION]).to_string().into_bytes())]
    {
        let reply = server.post(path, [mark, &body].concat()).await;
        assert_eq!(reply.status, 200, "{path}: {}", reply.body);
    }
    let twice = server.post("/predict", [mark, mark, &question_bytes()].concat()).await;
    assert_eq!((twice.status, twice.problem_kind().as_str()), (400, "malformed-json"));
    assert_eq!(send(&server, "gzip", gzip(&[mark, &question_bytes()].concat())).await.status, 200);
}

#[tokio::test]
async fn body_not_utf8_is_refused_naming_encoding() {
    let server = TestServer::start(cheap_models().path(), &[]).await;
    let text = r#"{"text":"CANARY-7f3a café"}"#;
    let utf16 = |bytes: fn(u16) -> [u8; 2]| text.encode_utf16().flat_map(bytes).collect::<Vec<u8>>();
    let latin1: Vec<u8> = text.chars().map(|c| u8::try_from(u32::from(c)).unwrap()).collect();
    for (name, body) in [
        ("UTF-16.", utf16(u16::to_le_bytes)),
        ("UTF-16.", utf16(u16::to_be_bytes)),
        ("UTF-16 with a byte order mark.", [&b"\xff\xfe"[..], &utf16(u16::to_le_bytes)].concat()),
        ("UTF-16 with a byte order mark.", [&b"\xfe\xff"[..], &utf16(u16::to_be_bytes)].concat()),
        ("Latin-1 or Windows-1252", latin1),
        ("offset 9", b"{\"text\":\"\xc0\x80\"}".to_vec()),
    ] {
        for path in ["/predict", "/batch_predict", "/feedback"] {
            let reply = server.post(path, body.clone()).await;
            assert_eq!(
                (reply.status, crate::support::problems::assert_safe_problem(&reply, name).as_str()),
                (400, "malformed-json")
            );
            let detail = reply.problem().detail;
            assert!(detail.contains(name) && detail.ends_with("Send UTF-8."), "{detail}");
        }
    }
}
