//! SIGHUP, SIGUSR1 and SIGUSR2: files are read or opened again, and the process goes on.

use std::os::unix::fs::MetadataExt;

use serde_json::{Value, json};

use super::{Scene, question};
use crate::support::daemon::{Daemon, predictd, run_to_exit, send_signal};
use crate::support::raw_client::{RawClient, get};
use crate::support::waiting::block_until;

fn log_lines(path: &std::path::Path) -> Vec<Value> {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    text.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"))).collect()
}

fn assert_answers(daemon: &Daemon) {
    assert_eq!(RawClient::connect(daemon.address).request(question()).status, 200);
}

#[test]
fn reload_signals_do_not_end_server() {
    let place = Scene::new();
    let mut daemon = place.start(&[]);
    for signal in ["HUP", "USR1", "USR2"] {
        for _ in 0..3 {
            daemon.signal(signal);
            daemon.wait_for_log("log files reopened");
            assert_answers(&daemon);
        }
    }
    daemon.signal("TERM");
    let (status, log) = daemon.wait();
    assert_eq!(status.code(), Some(0), "{log}");
}

#[test]
fn reload_signal_while_loading_ends_nothing() {
    let place = Scene::new();
    crate::support::model_builder::slow_models::never_answers().write(place.models(), "never-ready", "1");
    let mut daemon = place.launch(&["--drain-timeout", "100ms"]);
    for signal in ["HUP", "USR1", "USR2"] {
        daemon.signal(signal);
        daemon.wait_for_log("log files reopened");
    }
    assert_eq!(RawClient::connect(daemon.admin).request(get("/livez")).status, 200);
    daemon.signal("TERM");
    assert_eq!(daemon.wait().0.code(), Some(0));
}

#[test]
fn reload_reopens_moved_log_file() {
    for signal in ["HUP", "USR1", "USR2"] {
        let place = Scene::new();
        let [log, moved] = ["log", "log.moved"].map(|name| place.data.path().join(name));
        let daemon = place.start(&["--log-file", log.to_str().unwrap()]);
        assert_answers(&daemon);
        block_until("the request is logged", || log_lines(&log).iter().any(|line| line["route"] == "/predict"));
        std::fs::rename(&log, &moved).unwrap();
        daemon.signal(signal);
        block_until("there is a new file", || log.exists());
        assert_answers(&daemon);
        block_until("the request is logged", || log_lines(&log).iter().any(|line| line["route"] == "/predict"));
        let before = log_lines(&moved).len();
        assert_answers(&daemon);
        block_until("it is logged in the new file", || {
            log_lines(&log).iter().filter(|line| line["route"] == "/predict").count() == 2
        });
        assert_eq!(log_lines(&moved).len(), before, "{signal}");
        daemon.signal("TERM");
        assert!(daemon.wait().0.success());
    }
}

#[test]
fn reload_unopenable_log_file_keeps_old_one() {
    let place = Scene::new();
    let directory = place.data.path().join("logs");
    std::fs::create_dir(&directory).unwrap();
    let log = directory.join("log");
    let mut daemon = place.start(&["--log-file", log.to_str().unwrap()]);
    let aside = place.data.path().join("aside");
    std::fs::rename(&directory, &aside).unwrap();
    daemon.signal("HUP");
    daemon.wait_for_log("log file could not be reopened");
    assert_answers(&daemon);
    block_until("the request is logged", || {
        log_lines(&aside.join("log")).iter().any(|line| line["route"] == "/predict")
    });
    daemon.signal("TERM");
    assert!(daemon.wait().0.success());
}

#[test]
fn reload_rereads_keys_and_certificates_at_once() {
    let place = Scene::new();
    let made = |number: u8| {
        let made = rcgen::generate_simple_self_signed([format!("host{number}")]).unwrap();
        (made.cert.pem(), made.signing_key.serialize_pem())
    };
    let [cert, key, keys] = ["cert.pem", "key.pem", "keys.toml"].map(|name| place.data.path().join(name));
    let (pem, secret) = made(1);
    std::fs::write(&cert, pem).unwrap();
    std::fs::write(&key, secret).unwrap();
    let path = keys.to_str().unwrap();
    let new = ["keys", "new", "--name", "a", "--scopes", "admin", "--keys", path];
    assert_eq!(run_to_exit(&mut predictd(&new)).0, 0);
    let options = ["--tls-cert", cert.to_str().unwrap(), "--tls-key", key.to_str().unwrap(), "--keys", path];
    let mut daemon = place.launch(&options);
    daemon.wait_for_log("model version loaded");
    daemon.signal("HUP");
    for what in ["keys", "certificate"] {
        let line = daemon.wait_for_log("files reloaded on signal");
        assert_eq!((&line["files"], &line["level"]), (&json!(what), &json!("INFO")), "{line}");
    }
    // Unusable files change nothing, and the log names them.
    let before = std::fs::metadata(&keys).unwrap();
    std::fs::write(&keys, "nonsense").unwrap();
    assert_eq!(std::fs::metadata(&keys).unwrap().ino(), before.ino());
    daemon.signal("HUP");
    let line = daemon.wait_for_log("files invalid; previous content stays in use");
    assert_eq!((&line["files"], &line["level"]), (&json!("keys"), &json!("ERROR")), "{line}");
    daemon.signal("TERM");
    assert!(daemon.wait().0.success());
}

#[test]
fn reload_signal_during_option_parsing_ends_nothing() {
    let place = Scene::new();
    let pipe = place.data.path().join("password");
    let made = std::process::Command::new("mkfifo").arg(&pipe).status().unwrap();
    assert!(made.success());
    let mut command = predictd(&["serve", "--database", "postgres://me@127.0.0.1:1/db", "--database-password-file"]);
    command.arg(&pipe).arg("--models").arg(place.models()).arg("--data-dir").arg(place.data.path());
    let child = command.spawn().unwrap();
    // It opens once the server reads the password, and the server waits for its end.
    let end = std::fs::OpenOptions::new().write(true).open(&pipe).unwrap();
    for name in ["HUP", "USR1", "USR2"] {
        send_signal(child.id(), name);
    }
    drop(end);
    let output = child.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.code() == Some(64) && said.contains("it is empty"), "{:?} {said}", output.status);
}
