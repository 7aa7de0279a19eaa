//! Heads that are odd, or none: request lines, line ends, characters, protocols.

use tokio::io::AsyncWriteExt;

use super::ExpectedOutcome::{self, Answered, AnsweredThenClosed, Refused};
use super::{Connection, SMUGGLED_REQUEST, assert_outcome, start_server, wait_for_open_connections};

async fn assert_outcomes(messages: &[(ExpectedOutcome, &str)]) {
    let server = start_server(&[], &[]).await;
    for (fate, message) in messages {
        assert_outcome(&server, *fate, message.as_bytes()).await;
    }
    wait_for_open_connections(&server, 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn head_line_endings_are_unambiguous() {
    assert_outcomes(&[
        // RFC 9112, 2.2 lets a line feed alone end a line. Every server that accepts it reads one request.
        (Answered(200), "GET /livez HTTP/1.1\nHost: x\n\n"),
        (Answered(200), "GET /livez HTTP/1.1\r\nHost: x\n\r\n"),
        (Answered(200), "\r\n\r\n\r\nGET /livez HTTP/1.1\r\nHost: x\r\n\r\n"),
        (Answered(200), "\n\nGET /livez HTTP/1.1\r\nHost: x\r\n\r\n"),
        (Refused(400), "\rGET /livez HTTP/1.1\r\nHost: x\r\n\r\n"),
        (Refused(400), " GET /livez HTTP/1.1\r\nHost: x\r\n\r\n"),
        (Refused(400), "GET /livez HTTP/1.1\rHost: x\r\r"),
        (Refused(400), "GET /livez HTTP/1.1\r\nHost: x\rContent-Length: 34\r\n\r\n"),
        (Refused(400), "GET /livez HTTP/1.1\r\nHost: x\r\nX: a\rY: b\r\n\r\n"),
        (Refused(400), "GET /livez HTTP/1.1\r\nHost: x\r\r\nX: a\r\n\r\n"),
        (Refused(400), "GET /livez HTTP/1.1\r\n Host: x\r\nHost: x\r\n\r\n"),
        (Refused(400), "GET /livez HTTP/1.1\r\nHost: x\r\nX: a\r\n b\r\n\r\n"),
        (Refused(400), "GET /livez HTTP/1.1\r\nHost: x\r\nX: a\r\n\tb\r\n\r\n"),
    ])
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn head_header_needs_name_and_value() {
    assert_outcomes(&[
        (Answered(200), "GET /livez HTTP/1.1\r\nHost: x\r\nX:\r\n\r\n"),
        (Answered(200), "GET /livez HTTP/1.1\r\nHost: x\r\nX: \u{e9}\r\n\r\n"),
        (Answered(200), "GET /livez HTTP/1.1\r\nhOST:x\r\n\r\n"),
        (Refused(400), "GET /livez HTTP/1.1\r\nHost: x\r\nX\r\n\r\n"),
        (Refused(400), "GET /livez HTTP/1.1\r\nHost: x\r\n: a\r\n\r\n"),
        (Refused(400), "GET /livez HTTP/1.1\r\nHost : x\r\n\r\n"),
        (Refused(400), "GET /livez HTTP/1.1\r\nHost: x\r\nX Y: a\r\n\r\n"),
        (Refused(400), "GET /livez HTTP/1.1\r\nHost: x\r\nX(): a\r\n\r\n"),
        (Refused(400), "GET /livez HTTP/1.1\r\nHost: x\r\nX\u{e9}: a\r\n\r\n"),
        (Refused(400), "GET /livez HTTP/1.1\r\nHost: x\r\nX\0: a\r\n\r\n"),
        (Refused(400), "GET /livez HTTP/1.1\r\nHost: x\r\nX: a\0b\r\n\r\n"),
        (Refused(400), "GET /livez HTTP/1.1\r\nHost: x\r\nX: a\x1bb\r\n\r\n"),
        (Refused(400), "GET /livez HTTP/1.1\r\nHost: x\r\nX: a\x7fb\r\n\r\n"),
    ])
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn head_request_line_has_three_parts() {
    assert_outcomes(&[
        (Refused(400), "GET /livez\r\n"),
        (Refused(400), "GET /livez\r\nHost: x\r\n\r\n"),
        (Refused(400), "GET /livez \r\nHost: x\r\n\r\n"),
        (Refused(400), "GET HTTP/1.1\r\nHost: x\r\n\r\n"),
        (Refused(400), "/livez HTTP/1.1\r\nHost: x\r\n\r\n"),
        (Refused(400), "GET  /livez HTTP/1.1\r\nHost: x\r\n\r\n"),
        (Refused(400), "GET /livez  HTTP/1.1\r\nHost: x\r\n\r\n"),
        (Refused(400), "GET /livez HTTP/1.1 \r\nHost: x\r\n\r\n"),
        (Refused(400), "GET /li vez HTTP/1.1\r\nHost: x\r\n\r\n"),
        (Refused(400), "GET\t/livez\tHTTP/1.1\r\nHost: x\r\n\r\n"),
        (Refused(400), "GET /liv\0ez HTTP/1.1\r\nHost: x\r\n\r\n"),
        (Refused(400), "G@T /livez HTTP/1.1\r\nHost: x\r\n\r\n"),
        (Refused(400), "GET /livez http/1.1\r\nHost: x\r\n\r\n"),
        (Refused(400), "GET /livez HTTPS/1.1\r\nHost: x\r\n\r\n"),
        (Refused(400), "GET /livez HTTP/1\r\nHost: x\r\n\r\n"),
        (Refused(400), "GET /livez HTTP/1.10\r\nHost: x\r\n\r\n"),
        (Refused(400), "GET /livez HTTP/0.9\r\nHost: x\r\n\r\n"),
        (Refused(400), "GET /livez HTTP/1.2\r\nHost: x\r\n\r\n"),
        (Refused(400), "GET /livez HTTP/2.0\r\nHost: x\r\n\r\n"),
    ])
    .await;
}

/// A client that speaks HTTP/2 without having asked learns that it must not: by an error, or by the end alone.
#[tokio::test(flavor = "multi_thread")]
async fn http2_is_refused() {
    let server = start_server(&[], &[]).await;
    let preface = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
    for piece in [preface.len(), 5] {
        let mut connection = Connection::connect(&server).await;
        for bytes in preface.as_bytes().chunks(piece) {
            if connection.stream.write_all(bytes).await.is_err() {
                break;
            }
        }
        let received = String::from_utf8(connection.read_to_end().await).unwrap();
        assert!(received.is_empty() || received.starts_with("HTTP/1.1 400 Bad Request\r\n"), "{received}");
    }
    wait_for_open_connections(&server, 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn head_target_forms_select_route() {
    assert_outcomes(&[
        (Answered(200), "GET /livez?a=b#c HTTP/1.1\r\nHost: x\r\n\r\n"),
        (Answered(200), "GET http://other/livez HTTP/1.1\r\nHost: x\r\n\r\n"),
        (Answered(200), "GET https://other:1/livez?a HTTP/1.1\r\nHost: x\r\n\r\n"),
        (Answered(400), "GET http://other/livez HTTP/1.1\r\n\r\n"),
        (Answered(404), "GET //other/livez HTTP/1.1\r\nHost: x\r\n\r\n"),
        (Answered(404), "GET http://other HTTP/1.1\r\nHost: x\r\n\r\n"),
        (Answered(404), "GET livez HTTP/1.1\r\nHost: x\r\n\r\n"),
        (Answered(404), "GET * HTTP/1.1\r\nHost: x\r\n\r\n"),
        (Answered(404), "GET /livez%20HTTP/1.1 HTTP/1.1\r\nHost: x\r\n\r\n"),
        (Answered(404), "OPTIONS * HTTP/1.1\r\nHost: x\r\n\r\n"),
        // No tunnel is opened, neither to another host nor to another protocol.
        (Answered(404), "CONNECT other:80 HTTP/1.1\r\nHost: other:80\r\n\r\n"),
        (Answered(405), "CONNECT /livez HTTP/1.1\r\nHost: x\r\n\r\n"),
        (Answered(200), "GET /livez HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"),
        (
            Answered(200),
            "GET /livez HTTP/1.1\r\nHost: x\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n\r\n",
        ),
    ])
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn head_method_is_case_sensitive_token() {
    let long = format!("{} /livez HTTP/1.1\r\nHost: x\r\n\r\n", "A".repeat(5_000));
    assert_outcomes(&[
        (Answered(405), "get /livez HTTP/1.1\r\nHost: x\r\n\r\n"),
        (Answered(405), "TRACE /livez HTTP/1.1\r\nHost: x\r\nX: secret\r\n\r\n"),
        (Answered(405), "FOO /predict HTTP/1.1\r\nHost: x\r\n\r\n"),
        (Answered(405), "M-SEARCH /livez HTTP/1.1\r\nHost: x\r\n\r\n"),
        (Answered(405), &long),
        (AnsweredThenClosed(405), "get /livez HTTP/1.0\r\n\r\n"),
        // No request hides behind one that has no body by custom.
        (Answered(405), "TRACE /livez HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n"),
        (Refused(400), &format!("GET /livez HTTP/1.1\r\nHost: x\r\nContent-Length: x\r\n\r\n{SMUGGLED_REQUEST}")),
    ])
    .await;
}
