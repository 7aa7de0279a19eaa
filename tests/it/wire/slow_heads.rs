//! Heads that do not come, or not to their end: their connections are closed without an answer.

use std::time::Duration;

use serde_json::json;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use super::{
    CROWD, Connection, GET, POST, answered, assert_cut_off, crowd, post, question, server, until_open, within,
};
use crate::server::QUESTION;

/// Long enough for a good client of a busy machine.
const SHORT: (&str, &str) = ("--header-timeout", "700ms");

/// Asserts that these clients are cut off, with the answer that each expects or with none, while others are served.
async fn assert_cut_off_in_heads<F>(client: impl Fn(usize, Connection) -> F)
where
    F: Future<Output = (Connection, Option<u16>)> + Send + 'static,
{
    let server = server(&[SHORT], &[]).await;
    let mut neighbour = Connection::neighbour(&server).await;
    let before: u64 = answered(&server).values().sum();
    let clients = crowd(server.address, CROWD, client).await;
    neighbour.ask_well().await;
    let mut complete = 0;
    for (client, expected) in clients {
        let statuses: Vec<u16> = client.answers().await.iter().map(|answer| answer.status).collect();
        assert_eq!(statuses, Vec::from_iter(expected));
        complete += statuses.len() as u64;
    }
    neighbour.ask_well().await;
    until_open(&server, 1).await;
    assert_cut_off(&server, &[("head", CROWD)]);
    assert_eq!(answered(&server).values().sum::<u64>(), before + 2 + complete);
}

#[tokio::test(flavor = "multi_thread")]
async fn silent_connections_are_closed() {
    assert_cut_off_in_heads(async |_, connection| (connection, None)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn half_heads_are_closed() {
    assert_cut_off_in_heads(|number, mut connection| async move {
        let halves = ["\r\n", "G", "GET /livez HTTP/1.1", "GET /livez HTTP/1.1\r\nHost: x\r\n", POST];
        connection.send(halves[number % halves.len()]).await;
        (connection, None)
    })
    .await;
}

/// Writes a byte now and then until the connection has ended.
async fn dribble(stream: &mut TcpStream, bytes: impl Iterator<Item = u8>) {
    for byte in bytes {
        if stream.write_all(&[byte]).await.is_err() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(70)).await;
    }
}

/// Every byte comes long before the limit, the whole head does not.
#[tokio::test(flavor = "multi_thread")]
async fn dribbled_heads_are_closed() {
    let server = server(&[SHORT], &[]).await;
    let mut neighbour = Connection::neighbour(&server).await;
    let first = [GET.to_owned(), String::new()];
    let clients = crowd(server.address, CROWD, move |number, mut connection| {
        let first = first[number % 2].clone();
        async move {
            if !first.is_empty() {
                assert_eq!(connection.ask(first).await.status, 200);
            }
            let endless = POST.bytes().chain(b"X: ".iter().copied()).chain(std::iter::repeat(b'a'));
            within(dribble(&mut connection.stream, endless)).await;
            connection.end().await
        }
    })
    .await;
    neighbour.ask_well().await;
    assert_eq!(clients, vec![Vec::<u8>::new(); CROWD]);
    until_open(&server, 1).await;
    assert_cut_off(&server, &[("head", CROWD)]);
}

/// However the first request ends, and whether or not the half came with it.
#[tokio::test(flavor = "multi_thread")]
async fn half_heads_behind_a_complete_request_are_closed() {
    let text = json!({ "text": QUESTION }).to_string();
    let chunked = format!("{POST}Transfer-Encoding: chunked\r\n\r\n{:x}\r\n{text}\r\n0\r\n", text.len());
    let firsts = [
        (200, GET.to_owned()),
        (200, question()),
        (200, format!("{chunked}\r\n")),
        (200, format!("{chunked}X-Trailer: {}\r\n\r\n", "a".repeat(300))),
        (422, post("/predict", &json!({ "text": "" }))),
        (404, post("/nowhere", &json!({ "text": "" }))),
    ];
    assert_cut_off_in_heads(move |number, mut connection| {
        let (status, first) = firsts[number % firsts.len()].clone();
        async move {
            let half = ["G", "GET /livez HTTP/1.1\r\nHost: x\r\n", POST][number / 6 % 3];
            if number / 18 % 2 == 0 {
                connection.send(first + half).await;
            } else {
                let answer = connection.ask(first).await;
                connection.received = [answer.head, answer.body].concat().into_bytes();
                connection.send(half).await;
            }
            (connection, Some(status))
        }
    })
    .await;
}
