//! The order of an end: not ready, no connections, the last answers, gone.

use std::net::TcpStream;

use super::{Scene, question};
use crate::support::answers::label;
use crate::support::raw_client::{RawClient, get};

#[test]
fn shutdown_draining_server_is_not_ready_and_answers() {
    let place = Scene::new();
    let mut daemon = place.start(&["--drain-delay", "24h"]);
    let mut kept = RawClient::connect(daemon.address);
    let before = kept.request(question());
    assert_eq!((before.status, before.header("connection")), (200, None));
    daemon.signal("TERM");
    daemon.wait_for_log("shutdown requested");
    for address in [daemon.address, daemon.admin] {
        for (path, status) in [("/readyz", 503), ("/health", 503), ("/livez", 200), ("/metrics", 200)] {
            // The server still accepts connections, and closes each after its response.
            let answer = RawClient::connect(address).request(get(path));
            assert_eq!((answer.status, answer.header("connection")), (status, Some("close")), "{path} {answer:?}");
        }
        assert_eq!(RawClient::connect(address).request(get("/readyz")).problem_kind(), "shutting-down");
    }
    let new = RawClient::connect(daemon.address).request(question());
    for answer in [kept.request(question()), new] {
        assert_eq!((answer.status, label(&answer.json())), (200, "card_arrival"));
        assert_eq!(answer.header("connection"), Some("close"));
    }
    assert_eq!(kept.read_to_close(), b"");
    daemon.signal("TERM");
    assert_eq!(daemon.wait().0.code(), Some(1));
}

#[test]
fn shutdown_steps_are_in_order() {
    let place = Scene::new();
    let options =
        ["--drain-delay", "50ms", "--drain-timeout", "24h", "--body-idle-timeout", "24h", "--body-timeout", "24h"];
    let mut daemon = place.start(&[&options[..], &["--log", "predictd=debug"]].concat());
    let whole = question();
    let (half, other_half) = whole.split_at(whole.len() - 5);
    let mut client = RawClient::connect(daemon.address);
    // The id marks its line among those of other requests.
    client.send(half.replacen("\r\n", "\r\nX-Request-Id: the-last-one\r\n", 1));
    daemon.signal("TERM");
    daemon.wait_for_log("listener closed");
    assert!(TcpStream::connect(daemon.address).is_err(), "the data listener is closed");
    // Monitoring still sees the server.
    assert_eq!(RawClient::connect(daemon.admin).request(get("/livez")).status, 200);
    assert_eq!(RawClient::connect(daemon.admin).request(get("/readyz")).problem_kind(), "shutting-down");
    client.send(other_half);
    assert_eq!(label(&client.read_response().json()), "card_arrival");
    let admin = daemon.admin;
    let (status, log) = daemon.wait();
    assert_eq!(status.code(), Some(0), "{log}");
    assert!(TcpStream::connect(admin).is_err(), "the admin listener is closed");
    let mut rest = log.as_str();
    for step in [
        "\"message\":\"listening\"",
        "shutdown requested; draining",
        "listener closed",
        "\"request_id\":\"the-last-one\"",
        "server stopped",
    ] {
        let (_, after) = rest.split_once(step).unwrap_or_else(|| panic!("{step} is not in its place: {log}"));
        rest = after;
    }
    assert!(log.trim_end().lines().last().unwrap().contains("server stopped"), "{log}");
}
