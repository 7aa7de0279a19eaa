//! A machine whose clock stands before 1970: a board without a battery, a container with a wrong time.

use std::path::Path;
use std::process::Command;

use predictd::api::feedback::FeedbackStatus;
use predictd::api::predictions::Prediction;
use serde_json::{Value, json};

use crate::support::daemon::{Daemon, exchange, predictd, serve_command};
use crate::support::daemon_requests::stored_feedback;
use crate::support::model_builder::ModelBuilder;
use crate::support::raw_client::{RawClient, get, request};
use crate::support::waiting::block_until;

const FAKETIME_LIBRARIES: [&str; 3] = [
    "/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1",
    "/usr/lib/aarch64-linux-gnu/faketime/libfaketimeMT.so.1",
    "/usr/lib/faketime/libfaketimeMT.so.1",
];

/// Has a command believe that it is 1965; false where there is no library for it.
fn set_clock_before_1970(command: &mut Command) -> bool {
    let Some(library) = FAKETIME_LIBRARIES.iter().find(|path| Path::new(path).exists()) else {
        eprintln!(
            "SKIPPED: a clock before 1970 was not tried on the binary: libfaketime is not there (apt-get install faketime)"
        );
        return false;
    };
    command.env("LD_PRELOAD", library).env("FAKETIME", "@1965-01-01 00:00:00").env("FAKETIME_DONT_FAKE_MONOTONIC", "1");
    true
}

#[test]
fn clock_before_1970_server_predicts_and_keeps_feedback() {
    let [models, data] = [(); 2].map(|()| tempfile::tempdir().unwrap());
    ModelBuilder::plain().write(models.path(), "m", "1");
    let log = data.path().join("log");
    let mut command = serve_command(models.path(), data.path(), &["--log-file", log.to_str().unwrap()]);
    if !set_clock_before_1970(&mut command) {
        return;
    }
    let daemon = Daemon::start(&mut command);
    let mut wire = RawClient::connect(daemon.address);
    let answer = wire.request(request("POST", "/predict", "", r#"{"text":"10"}"#));
    assert_eq!((answer.status, answer.header("date")), (200, None), "a server that has no clock sends no date");
    let truth = json!({ "prediction_id": answer.json::<Prediction>().prediction_id, "actual": "a", "text": "10" });
    let status: FeedbackStatus = wire.request(request("POST", "/feedback", "", &truth.to_string())).ok();
    assert_eq!(status.outcome, "stored");
    assert_eq!(wire.request(request("POST", "/predict", "", "{")).problem_kind(), "malformed-json");
    for path in ["/health", "/metrics", "/admin/models", "/admin/models/m/history", "/admin/feedback", "/admin/drift"] {
        let status = RawClient::connect(daemon.admin).request(get(path)).status;
        assert!([200, 404].contains(&status), "{path}: {status}");
    }
    assert_eq!(stored_feedback(&daemon)[0].made, "1970-01-01T00:00:00.000Z");
    block_until("lines come to the file", || {
        let text = std::fs::read_to_string(&log).unwrap_or_default();
        text.lines().any(|line| serde_json::from_str::<Value>(line).unwrap()["route"] == "/predict")
    });
    daemon.signal("TERM");
    let (status, said) = daemon.wait();
    assert!(status.success() && !said.contains("panic"), "{said}");
}

#[test]
fn clock_before_1970_commands_work() {
    let place = tempfile::tempdir().unwrap();
    let directory = ModelBuilder::plain().write(place.path(), "m", "1");
    let keys = place.path().join("keys.toml");
    let keys = keys.to_str().unwrap();
    let commands: [&[&str]; 3] = [
        &["keys", "new", "--name", "a", "--scopes", "predict", "--keys", keys],
        &["keys", "list", "--keys", keys],
        &["check", directory.to_str().unwrap()],
    ];
    for arguments in commands {
        let mut command = predictd(arguments);
        if !set_clock_before_1970(&mut command) {
            return;
        }
        let output = command.output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success() && !said.contains("panic"), "{arguments:?}: {said}");
    }
}

#[test]
fn clock_before_1970_tls_works() {
    let [models, data] = [(); 2].map(|()| tempfile::tempdir().unwrap());
    ModelBuilder::plain().write(models.path(), "m", "1");
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let [cert, key] = ["cert.pem", "key.pem"].map(|name| data.path().join(name));
    std::fs::write(&cert, made.cert.pem()).unwrap();
    std::fs::write(&key, made.signing_key.serialize_pem()).unwrap();
    let options = ["--tls-cert", cert.to_str().unwrap(), "--tls-key", key.to_str().unwrap()];
    let mut command = serve_command(models.path(), data.path(), &options);
    if !set_clock_before_1970(&mut command) {
        return;
    }
    let mut daemon = Daemon::launch(&mut command);
    daemon.wait_for_log("model version loaded");
    // This process knows what time it is.
    let trusted = reqwest::Certificate::from_pem(made.cert.pem().as_bytes()).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let status = runtime.block_on(async {
        let client = crate::support::test_server::client().tls_certs_only([trusted]);
        let client = client.resolve("localhost", daemon.address).build().unwrap();
        client.get(format!("https://localhost:{}/livez", daemon.address.port())).send().await.unwrap().status()
    });
    assert_eq!(status, 200);
    assert!(exchange(daemon.admin, "GET", "/livez", "").starts_with("HTTP/1.1 200 "));
    daemon.signal("TERM");
    let (status, said) = daemon.wait();
    assert!(status.success() && !said.contains("panic"), "{said}");
}
