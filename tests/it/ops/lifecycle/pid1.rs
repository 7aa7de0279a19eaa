//! The server as the first process of a container, without an init above it.

use std::process::Command;

use super::Scene;
use crate::support::daemon::{Daemon, PREDICTD_PATH, send_signal, serve_command};

/// The child of a process, as this process sees it.
fn child_of(parent: u32) -> Option<u32> {
    std::fs::read_dir("/proc").unwrap().find_map(|entry| {
        let process: u32 = entry.ok()?.file_name().to_str()?.parse().ok()?;
        let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
        // The name in parentheses may hold anything; state and parent follow it.
        let found = stat.rsplit_once(") ")?.1.split(' ').nth(1)?.parse::<u32>().ok()?;
        (found == parent).then_some(process)
    })
}

#[test]
fn pid1_stops_on_signal() {
    let isolated = ["--pid", "--fork", "--mount-proc", "--kill-child"];
    let tried = Command::new("unshare").args(isolated).arg("true").output();
    if !tried.as_ref().is_ok_and(|output| output.status.success()) {
        eprintln!("SKIPPED: the server was not run as process 1, unshare does not work here: {tried:?}");
        return;
    }
    let place = Scene::new();
    for name in ["TERM", "INT"] {
        let plain = serve_command(place.models(), place.data.path(), &[]);
        let mut command = Command::new("unshare");
        command.args(isolated).arg(PREDICTD_PATH).args(plain.get_args()).stderr(std::process::Stdio::piped());
        let daemon = Daemon::start(&mut command);
        let first = child_of(daemon.child.id()).expect("unshare has a child");
        let status = std::fs::read_to_string(format!("/proc/{first}/status")).unwrap();
        let numbers = status.lines().find_map(|line| line.strip_prefix("NSpid:")).unwrap();
        assert!(numbers.trim_end().ends_with("\t1"), "it is process 1: {numbers}");
        send_signal(first, name);
        let (status, log) = daemon.wait();
        assert_eq!(status.code(), Some(0), "{name}: {log}");
        assert!(log.contains("server stopped"), "{log}");
    }
}
