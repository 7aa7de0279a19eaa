//! Heads that do not come, or not to their end: their connections are closed without an answer.

use std::time::Duration;

use serde_json::json;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use super::{
    CROWD_SIZE, Connection, LIVEZ_REQUEST, POST_PREDICT_HEAD, assert_cut_off, or_timeout, post_request,
    question_request, responses_by_status, run_clients, start_server, wait_for_open_connections,
};
use crate::support::test_server::question_body;

/// Long enough for a good client of a busy machine.
const SHORT_HEADER_TIMEOUT: (&str, &str) = ("--header-timeout", "700ms");

/// Asserts that these clients are cut off, with the answer that each expects or with none, while others are served.
async fn assert_cut_off_in_heads<F>(client: impl Fn(usize, Connection) -> F)
where
    F: Future<Output = (Connection, Option<u16>)> + Send + 'static,
{
    let server = start_server(&[SHORT_HEADER_TIMEOUT], &[]).await;
    let mut neighbour = Connection::connect_and_request(&server).await;
    let before: u64 = responses_by_status(&server).values().sum();
    let clients = run_clients(server.address, CROWD_SIZE, client).await;
    neighbour.request_ok().await;
    let mut complete = 0;
    for (client, expected) in clients {
        let statuses: Vec<u16> = client.read_responses().await.iter().map(|answer| answer.status).collect();
        assert_eq!(statuses, Vec::from_iter(expected));
        complete += statuses.len() as u64;
    }
    neighbour.request_ok().await;
    wait_for_open_connections(&server, 1).await;
    assert_cut_off(&server, &[("head", CROWD_SIZE)]);
    assert_eq!(responses_by_status(&server).values().sum::<u64>(), before + 2 + complete);
}

#[tokio::test(flavor = "multi_thread")]
async fn slow_head_silent_connection_is_closed() {
    assert_cut_off_in_heads(async |_, connection| (connection, None)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn slow_head_partial_is_closed() {
    assert_cut_off_in_heads(|number, mut connection| async move {
        let halves = ["\r\n", "G", "GET /livez HTTP/1.1", "GET /livez HTTP/1.1\r\nHost: x\r\n", POST_PREDICT_HEAD];
        connection.send(halves[number % halves.len()]).await;
        (connection, None)
    })
    .await;
}

/// Writes a byte now and then until the connection has ended.
async fn write_slowly(stream: &mut TcpStream, bytes: impl Iterator<Item = u8>) {
    for byte in bytes {
        if stream.write_all(&[byte]).await.is_err() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(70)).await;
    }
}

/// Every byte comes long before the limit, the whole head does not.
#[tokio::test(flavor = "multi_thread")]
async fn slow_head_dribbled_is_closed() {
    let server = start_server(&[SHORT_HEADER_TIMEOUT], &[]).await;
    let mut neighbour = Connection::connect_and_request(&server).await;
    let first = [LIVEZ_REQUEST.to_owned(), String::new()];
    let clients = run_clients(server.address, CROWD_SIZE, move |number, mut connection| {
        let first = first[number % 2].clone();
        async move {
            if !first.is_empty() {
                assert_eq!(connection.request(first).await.status, 200);
            }
            let endless = POST_PREDICT_HEAD.bytes().chain(b"X: ".iter().copied()).chain(std::iter::repeat(b'a'));
            or_timeout(write_slowly(&mut connection.stream, endless)).await;
            connection.read_to_end().await
        }
    })
    .await;
    neighbour.request_ok().await;
    assert_eq!(clients, vec![Vec::<u8>::new(); CROWD_SIZE]);
    wait_for_open_connections(&server, 1).await;
    assert_cut_off(&server, &[("head", CROWD_SIZE)]);
}

/// However the first request ends, and whether or not the half came with it.
#[tokio::test(flavor = "multi_thread")]
async fn slow_head_partial_after_request_is_closed() {
    let text = question_body();
    let chunked = format!("{POST_PREDICT_HEAD}Transfer-Encoding: chunked\r\n\r\n{:x}\r\n{text}\r\n0\r\n", text.len());
    let firsts = [
        (200, LIVEZ_REQUEST.to_owned()),
        (200, question_request()),
        (200, format!("{chunked}\r\n")),
        (200, format!("{chunked}X-Trailer: {}\r\n\r\n", "a".repeat(300))),
        (422, post_request("/predict", &json!({ "text": "" }))),
        (404, post_request("/nowhere", &json!({ "text": "" }))),
    ];
    assert_cut_off_in_heads(move |number, mut connection| {
        let (status, first) = firsts[number % firsts.len()].clone();
        async move {
            let half = ["G", "GET /livez HTTP/1.1\r\nHost: x\r\n", POST_PREDICT_HEAD][number / 6 % 3];
            if number / 18 % 2 == 0 {
                connection.send(first + half).await;
            } else {
                let answer = connection.request(first).await;
                connection.received = [answer.head, answer.body].concat().into_bytes();
                connection.send(half).await;
            }
            (connection, Some(status))
        }
    })
    .await;
}
