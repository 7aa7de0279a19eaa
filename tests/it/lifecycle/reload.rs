//! SIGHUP, SIGUSR1 and SIGUSR2: files are read or opened again, and the process goes on.

use std::os::unix::fs::MetadataExt;

use serde_json::{Value, json};

use super::{Place, question};
use crate::daemon::{Daemon, ends, predictd, signal};
use crate::raw::{Wire, get, until};

fn lines(path: &std::path::Path) -> Vec<Value> {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    text.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"))).collect()
}

fn answers(daemon: &Daemon) {
    assert_eq!(Wire::to(daemon.address).ask(question()).status, 200);
}

#[test]
fn no_signal_of_an_operator_ends_the_server() {
    let place = Place::new();
    let mut daemon = place.start(&[]);
    for signal in ["HUP", "USR1", "USR2"] {
        for _ in 0..3 {
            daemon.signal(signal);
            daemon.logged("log files were opened again");
            answers(&daemon);
        }
    }
    daemon.signal("TERM");
    let (status, log) = daemon.wait();
    assert_eq!(status.code(), Some(0), "{log}");
}

#[test]
fn a_signal_while_models_are_loaded_ends_nothing() {
    let place = Place::new();
    crate::fixture::endless::on_every_text().write(place.models(), "never-ready", "1");
    let mut daemon = place.launch(&["--grace", "100ms"]);
    for signal in ["HUP", "USR1", "USR2"] {
        daemon.signal(signal);
        daemon.logged("log files were opened again");
    }
    assert_eq!(Wire::to(daemon.admin).ask(get("/livez")).status, 200);
    daemon.signal("TERM");
    assert_eq!(daemon.wait().0.code(), Some(0));
}

#[test]
fn a_log_file_that_was_moved_away_is_opened_again() {
    for signal in ["HUP", "USR1", "USR2"] {
        let place = Place::new();
        let [log, moved] = ["log", "log.moved"].map(|name| place.data.path().join(name));
        let daemon = place.start(&["--log-file", log.to_str().unwrap()]);
        answers(&daemon);
        until("the request is logged", || lines(&log).iter().any(|line| line["route"] == "/predict"));
        std::fs::rename(&log, &moved).unwrap();
        daemon.signal(signal);
        until("there is a new file", || log.exists());
        answers(&daemon);
        until("the request is logged", || lines(&log).iter().any(|line| line["route"] == "/predict"));
        let before = lines(&moved).len();
        answers(&daemon);
        until("it is logged in the new file", || {
            lines(&log).iter().filter(|line| line["route"] == "/predict").count() == 2
        });
        assert_eq!(lines(&moved).len(), before, "{signal}");
        daemon.signal("TERM");
        assert!(daemon.wait().0.success());
    }
}

#[test]
fn a_log_file_that_cannot_be_opened_again_goes_on_as_it_was() {
    let place = Place::new();
    let directory = place.data.path().join("logs");
    std::fs::create_dir(&directory).unwrap();
    let log = directory.join("log");
    let mut daemon = place.start(&["--log-file", log.to_str().unwrap()]);
    let aside = place.data.path().join("aside");
    std::fs::rename(&directory, &aside).unwrap();
    daemon.signal("HUP");
    daemon.logged("a log file cannot be opened again");
    answers(&daemon);
    until("the request is logged", || lines(&aside.join("log")).iter().any(|line| line["route"] == "/predict"));
    daemon.signal("TERM");
    assert!(daemon.wait().0.success());
}

#[test]
fn keys_and_certificates_are_read_at_once_though_nothing_tells_that_they_changed() {
    let place = Place::new();
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
    assert_eq!(ends(&mut predictd(&new)).0, 0);
    let options = ["--tls-cert", cert.to_str().unwrap(), "--tls-key", key.to_str().unwrap(), "--keys", path];
    let mut daemon = place.launch(&options);
    daemon.logged("the model is ready");
    daemon.signal("HUP");
    for what in ["keys", "certificate"] {
        let line = daemon.logged("files were read again");
        assert_eq!((&line["what"], &line["level"]), (&json!(what), &json!("INFO")), "{line}");
    }
    // What cannot be used leaves what was there, and is told.
    let before = std::fs::metadata(&keys).unwrap();
    std::fs::write(&keys, "nonsense").unwrap();
    assert_eq!(std::fs::metadata(&keys).unwrap().ino(), before.ino());
    daemon.signal("HUP");
    let line = daemon.logged("cannot be used: the old ones stay");
    assert_eq!((&line["what"], &line["level"]), (&json!("keys"), &json!("ERROR")), "{line}");
    daemon.signal("TERM");
    assert!(daemon.wait().0.success());
}

#[test]
fn a_signal_while_options_are_read_ends_nothing() {
    let place = Place::new();
    let pipe = place.data.path().join("password");
    let made = std::process::Command::new("mkfifo").arg(&pipe).status().unwrap();
    assert!(made.success());
    let mut command = predictd(&["serve", "--database", "postgres://me@127.0.0.1:1/db", "--database-password-file"]);
    command.arg(&pipe).arg("--models").arg(place.models()).arg("--data-dir").arg(place.data.path());
    let child = command.spawn().unwrap();
    // It opens once the server reads the password, and the server waits for its end.
    let end = std::fs::OpenOptions::new().write(true).open(&pipe).unwrap();
    for name in ["HUP", "USR1", "USR2"] {
        signal(child.id(), name);
    }
    drop(end);
    let output = child.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.code() == Some(64) && said.contains("it is empty"), "{:?} {said}", output.status);
}
