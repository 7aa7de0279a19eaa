//! Fewer file descriptors than clients.

use std::process::{Command, Stdio};
use std::time::Duration;

use crate::support::answers::label;
use crate::support::daemon::{Daemon, PREDICTD_PATH, serve_command};
use crate::support::raw_client::{RawClient, get, request};
use crate::support::test_server::{cheap_models, question_body};

/// Seconds of processor time that a process has used.
fn cpu_seconds(process: u32) -> f64 {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).unwrap();
    let fields: Vec<&str> = stat.rsplit_once(") ").unwrap().1.split(' ').collect();
    // Ticks in user mode and in the kernel; there are 100 a second on every Linux that matters.
    (fields[11].parse::<f64>().unwrap() + fields[12].parse::<f64>().unwrap()) / 100.0
}

#[test]
fn fd_limit_low_serves_a_hundred_clients() {
    let models = cheap_models();
    let data = tempfile::tempdir().unwrap();
    // Clients that have begun a head stay as long as they like.
    let plain = serve_command(models.path(), data.path(), &["--header-timeout", "24h"]);
    let mut command = Command::new("sh");
    command.args(["-c", "ulimit -n 64 && exec \"$0\" \"$@\"", PREDICTD_PATH]).args(plain.get_args());
    let mut daemon = Daemon::launch(command.stdin(Stdio::null()).stderr(Stdio::piped()));
    let line = daemon.wait_for_log("ulimit -n");
    // The rest is kept for the admin listener, and for files.
    assert!((10..50).contains(&line["max_connections"].as_u64().unwrap()), "{line}");
    daemon.wait_for_log("model version loaded");
    let clients: Vec<RawClient> = (0..100)
        .map(|_| {
            let mut client = RawClient::connect(daemon.address);
            client.send("POST /predict HTTP/1.1\r\nHost:");
            client
        })
        .collect();
    let probe = || {
        for path in ["/livez", "/readyz", "/health", "/metrics"] {
            assert_eq!(RawClient::connect(daemon.admin).request(get(path)).status, 200, "{path}");
        }
    };
    probe();
    let before = cpu_seconds(daemon.child.id());
    std::thread::sleep(Duration::from_secs(1));
    let used = cpu_seconds(daemon.child.id()) - before;
    assert!(used < 0.5, "{used} s of processor time in a second without work");
    for _ in 0..20 {
        probe();
    }
    assert!(!daemon.log().contains("connection accept failed"), "{}", daemon.log());
    drop(clients);
    let question = request("POST", "/predict", "", &question_body());
    for _ in 0..20 {
        assert_eq!(label(&RawClient::connect(daemon.address).request(&question).json()), "card_arrival");
    }
    daemon.signal("TERM");
    let (status, log) = daemon.wait();
    assert_eq!(status.code(), Some(0), "{log}");
}
