//! What is no HTTP at all: other protocols, random bytes, scans of ports. It disturbs no other
//! client, and the log has no line for it.

use tokio::net::TcpSocket;

use super::{CROWD_SIZE, Connection, question_request, run_clients, start_server, wait_for_open_connections};
use crate::support::daemon::Daemon;
use crate::support::test_server::cheap_models;

/// How clients of other protocols begin.
const OTHER_PROTOCOLS: [&[u8]; 9] = [
    // TLS: the begin of a ClientHello.
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\x5b\xa3\x11\x8e\n\r\n\x0a\x20\xc0\x2b\xc0\x2f\x00\x9e\r\n\r\n",
    b"\x16\x03\x01\x00\xa5\x01\x00\x00\xa1\x03\x03",
    b"SSH-2.0-OpenSSH_9.6\r\n",
    b"EHLO example.com\r\n",
    b"*1\r\n$4\r\nPING\r\n",
    b"\x03\x00\x00\x13\x0e\xe0\x00\x00\x00\x00\x00\x01\x00\x08\x00\x03\x00\x00\x00",
    b"\x00\x00\x00\x2f\xff\x53\x4d\x42\x72\x00\x00\x00\x00",
    b"\xff\xfb\x1f\xff\xfb\x20\xff\xfb\x18",
    b"GET / \x00\x00\x00\x00",
];

/// Bytes without any order, the same for the same number.
fn random_bytes(number: usize) -> Vec<u8> {
    let mut state = (number as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    (0..=next() % 4_096).map(|_| next().to_le_bytes()[0]).collect()
}

fn assert_refused(received: &[u8], sent: &[u8]) {
    let shown = String::from_utf8_lossy(received);
    let refused = shown.is_empty() || shown.starts_with("HTTP/1.1 400 Bad Request\r\nconnection: close\r\n");
    assert!(refused && shown.len() < 200, "{sent:?}: {shown}");
}

#[tokio::test(flavor = "multi_thread")]
async fn non_http_bytes_are_refused() {
    let server = start_server(&[("--header-timeout", "700ms")], &[]).await;
    let before = super::responses_by_status(&server);
    let mut neighbour = Connection::connect_and_request(&server).await;
    run_clients(server.address, CROWD_SIZE, |number, mut connection| async move {
        let bytes = OTHER_PROTOCOLS.get(number).map_or_else(|| random_bytes(number), |other| other.to_vec());
        connection.send(&bytes).await;
        assert_refused(&connection.read_to_end().await, &bytes);
    })
    .await;
    neighbour.request_ok().await;
    wait_for_open_connections(&server, 1).await;
    assert_eq!(super::responses_by_status(&server)["200"], before["200"] + 2);
}

/// Behind a good request too: what came before stays as it was answered.
#[tokio::test(flavor = "multi_thread")]
async fn non_http_after_request_ends_connection() {
    let server = start_server(&[("--header-timeout", "700ms")], &[]).await;
    run_clients(server.address, CROWD_SIZE, |number, mut connection| async move {
        let bytes = OTHER_PROTOCOLS.get(number).map_or_else(|| random_bytes(number), |other| other.to_vec());
        connection.send([question_request().as_bytes(), &bytes].concat()).await;
        assert_eq!(connection.read_response().await.status, 200);
        assert_refused(&connection.read_to_end().await, &bytes);
    })
    .await;
    wait_for_open_connections(&server, 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn port_scan_writes_no_log_line() {
    let models = cheap_models();
    let data = tempfile::tempdir().unwrap();
    let daemon = Daemon::start_with(models.path(), data.path(), &["--log", "info"]);
    for number in 0..3_000 {
        let socket = TcpSocket::new_v4().unwrap();
        if number % 2 == 0 {
            // Resets the connection when it is closed, as scanners do.
            socket.set_zero_linger().unwrap();
        }
        let stream = socket.connect(daemon.address).await.unwrap();
        if number % 10 == 0 {
            let mut connection = Connection { stream, received: Vec::new() };
            let bytes = OTHER_PROTOCOLS.get(number / 10).map_or_else(|| random_bytes(number), |other| other.to_vec());
            connection.send(&bytes).await;
        }
    }
    assert_eq!(daemon.predict("Is my card lost?").model.version, "1");
    daemon.signal("TERM");
    let (status, log) = daemon.wait();
    assert_eq!(status.code(), Some(0), "{log}");
    // The lines of its beginning and its end, and none of what came in between.
    assert!(log.lines().count() <= 11 && !log.contains("panicked"), "{log}");
}
