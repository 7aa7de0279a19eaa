//! The real binary as it runs: signals, keys, variables, and what it leaves behind.

use std::collections::BTreeSet;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::SystemTime;

use predictd::experiments::receipts::ReceiptKeyring;
use serde_json::{Value, json};

use crate::support::answers::label;
use crate::support::daemon::{Daemon, PREDICTD_PATH, predictd, run_to_exit};
use crate::support::daemon_requests::get_ok;
use crate::support::test_server::{CHEAP_MODEL, QUESTION, cheap_models};

#[test]
fn process_sigterm_exits_0() {
    let models = cheap_models();
    let data = tempfile::tempdir().unwrap();
    for signal in ["TERM", "INT"] {
        let daemon = Daemon::start_with(models.path(), data.path(), &[]);
        assert_eq!(label(&daemon.predict(QUESTION)), "card_arrival");
        daemon.signal(signal);
        let (status, log) = daemon.wait();
        assert_eq!(status.code(), Some(0), "{signal}: {log}");
        assert!(log.contains("server stopped"), "{log}");
    }
}

/// The first signal waits for a day: the test ends only if the second does not.
#[test]
fn process_second_signal_exits_at_once() {
    let models = cheap_models();
    let data = tempfile::tempdir().unwrap();
    let mut daemon =
        Daemon::start_with(models.path(), data.path(), &["--drain-delay", "24h", "--drain-timeout", "24h"]);
    daemon.signal("TERM");
    daemon.wait_for_log("shutdown requested");
    // It still answers: the time between "not ready" and the end.
    assert_eq!(label(&daemon.predict(QUESTION)), "card_arrival");
    daemon.signal("INT");
    let (status, log) = daemon.wait();
    assert_eq!(status.code(), Some(1), "{log}");
    assert!(!log.contains("panicked"), "{log}");
}

#[test]
fn receipt_keys_are_created_once_and_kept() {
    let models = cheap_models();
    let place = tempfile::tempdir().unwrap();
    let data = place.path().join("deep/data");
    let keys = data.join("receipt.keys");
    let mut sealed = Vec::new();
    let mut contents = BTreeSet::new();
    for _ in 0..2 {
        let daemon = Daemon::start_with(models.path(), &data, &[]);
        sealed.push(daemon.predict(QUESTION).prediction_id);
        assert_eq!(std::fs::metadata(&keys).unwrap().permissions().mode() & 0o7777, 0o600);
        contents.insert(std::fs::read(&keys).unwrap());
        daemon.signal("TERM");
        assert!(daemon.wait().0.success());
    }
    assert_eq!(contents.len(), 1, "the second start uses the first one's keys");
    let receipts = ReceiptKeyring::open(&keys).unwrap();
    for sealed in &sealed {
        let receipt = receipts.verify(sealed, SystemTime::now()).unwrap();
        assert_eq!((receipt.model.as_str(), receipt.labels[0].as_str()), (CHEAP_MODEL, "card_arrival"));
    }
    assert_ne!(sealed[0], sealed[1]);
}

#[test]
fn receipt_keys_world_readable_exit_64() {
    let models = cheap_models();
    let data = tempfile::tempdir().unwrap();
    let keys = data.path().join("my.keys");
    std::fs::write(&keys, "5a".repeat(32)).unwrap();
    let arguments = [
        "--listen",
        "127.0.0.1:0",
        "--admin-listen",
        "127.0.0.1:0",
        "--models",
        models.path().to_str().unwrap(),
        "--data-dir",
        data.path().to_str().unwrap(),
        "--log",
        "error",
    ];
    for (mode, content, word) in [
        (0o644, "5a".repeat(32), "chmod 600"),
        (0o660, "5a".repeat(32), "chmod 600"),
        (0o600, "zz".repeat(32), "line 1"),
    ] {
        std::fs::write(&keys, content).unwrap();
        std::fs::set_permissions(&keys, std::fs::Permissions::from_mode(mode)).unwrap();
        let (code, said) = run_to_exit(predictd(&arguments).arg("--receipt-keys").arg(&keys));
        assert_eq!(code, 64, "{mode:o}: {said}");
        assert!(said.contains("--receipt-keys") && said.contains("my.keys") && said.contains(word), "{said}");
        assert!(!said.contains("5a5a") && !said.contains("zzzz"), "no key is shown");
    }
}

#[test]
fn environment_variables_work_like_flags() {
    let models = cheap_models();
    let data = tempfile::tempdir().unwrap();
    let limits = |arguments: &[&str]| {
        let mut command = predictd(arguments);
        command
            .env("PREDICTD_LISTEN", "127.0.0.1:0")
            .env("PREDICTD_ADMIN_LISTEN", "127.0.0.1:0")
            .env("PREDICTD_MODELS", models.path());
        command.env("PREDICTD_DATA_DIR", data.path()).env("PREDICTD_LOG_FORMAT", "json");
        command.env("PREDICTD_MAX_TEXT_CHARS", "77").env("PREDICTD_MAX_CLIENT_BATCH_SIZE", "7");
        let daemon = Daemon::start(&mut command);
        let model: Value = get_ok(daemon.address, &format!("/models/{CHEAP_MODEL}"));
        model["versions"][0]["limits"].clone()
    };
    assert_eq!(limits(&[]), json!({ "max_text_chars": 77, "max_client_batch_size": 7 }));
    // A flag is the stronger one.
    let flag = limits(&["--max-text-chars", "88"]);
    assert_eq!(flag, json!({ "max_text_chars": 88, "max_client_batch_size": 7 }));
    assert!(data.path().join("receipt.keys").is_file());
    let (code, said) =
        run_to_exit(predictd(&["serve"]).env("PREDICTD_WORKERS", "0").env("PREDICTD_MODELS", models.path()));
    assert_eq!((code, said.contains("--workers 0")), (64, true), "{said}");
}

/// Local addresses, as the system writes them, of the sockets on which a process listens.
fn listening_addresses(process: u32) -> Vec<String> {
    let own: BTreeSet<String> = std::fs::read_dir(format!("/proc/{process}/fd"))
        .unwrap()
        .filter_map(|entry| std::fs::read_link(entry.ok()?.path()).ok()?.to_str().map(str::to_owned))
        .collect();
    let mut found = Vec::new();
    for table in ["tcp", "tcp6", "udp", "udp6"] {
        for line in std::fs::read_to_string(format!("/proc/{process}/net/{table}")).unwrap_or_default().lines().skip(1)
        {
            let fields: Vec<&str> = line.split_whitespace().collect();
            // State 0A is LISTEN; a datagram socket waits in state 07.
            if own.contains(&format!("socket:[{}]", fields[9])) && ["0A", "07"].contains(&fields[3]) {
                found.push(fields[1].to_owned());
            }
        }
    }
    found
}

#[cfg(target_os = "linux")]
#[test]
fn process_listens_on_loopback_only() {
    let models = cheap_models();
    let data = tempfile::tempdir().unwrap();
    let daemon = Daemon::start_with(models.path(), data.path(), &[]);
    let found = listening_addresses(daemon.child.id());
    assert_eq!(found.len(), 2, "data and admin: {found:?}");
    // 127.0.0.1 in the order of this machine's bytes.
    assert!(found.iter().all(|address| address.starts_with("0100007F:")), "{found:?}");
}

/// Everything below a directory.
fn list_files(directory: &Path) -> Vec<String> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        found.push(path.display().to_string());
        if path.is_dir() {
            found.extend(list_files(&path));
        }
    }
    found
}

/// Without a variable that forbids it, the official library would write a database into the home.
fn allow_telemetry(command: &mut Command, home: &Path) {
    command.env_clear().env("HOME", home).env("PATH", "/usr/bin:/bin").env("TMPDIR", home);
    for name in ["CACHE", "CONFIG", "DATA", "STATE"] {
        command.env(format!("XDG_{name}_HOME"), home);
    }
    command.env("XDG_RUNTIME_DIR", home);
}

fn serve_arguments<'a>(models: &'a Path, data: &'a Path) -> Vec<&'a str> {
    let paths = [models.to_str().unwrap(), data.to_str().unwrap()];
    let listeners = ["--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0"];
    vec![
        "serve",
        listeners[0],
        listeners[1],
        listeners[2],
        listeners[3],
        "--models",
        paths[0],
        "--data-dir",
        paths[1],
        "--log-format",
        "json",
    ]
}

#[test]
fn process_writes_no_telemetry() {
    let models = cheap_models();
    let data = tempfile::tempdir().unwrap();
    let home = tempfile::tempdir().unwrap();
    let mut arguments = serve_arguments(models.path(), data.path());
    // An argument that a shell would split or lose.
    arguments.extend(["--log", "info,predictd=info", "--receipt-keys"]);
    let odd = data.path().join("odd  'name\" \u{e9}");
    arguments.push(odd.to_str().unwrap());
    let mut command = predictd(&arguments);
    allow_telemetry(&mut command, home.path());
    let daemon = Daemon::start(&mut command);
    assert_eq!(label(&daemon.predict(QUESTION)), "card_arrival");
    assert!(odd.is_file(), "arguments survive the restart");
    if let Ok(environment) = std::fs::read(format!("/proc/{}/environ", daemon.child.id())) {
        // The process that was started is the one that runs, with the variable set.
        let variables: Vec<&[u8]> = environment.split(|&byte| byte == 0).collect();
        assert!(variables.contains(&&b"ORT_DISABLE_TELEMETRY=1"[..]), "telemetry");
        assert!(variables.contains(&&b"MALLOC_MMAP_THRESHOLD_=262144"[..]), "memory is given back");
        let line = std::fs::read(format!("/proc/{}/cmdline", daemon.child.id())).unwrap();
        let now: Vec<&[u8]> = line.split(|&byte| byte == 0).filter(|argument| !argument.is_empty()).collect();
        let then: Vec<&[u8]> = [PREDICTD_PATH].iter().chain(&arguments).map(|argument| argument.as_bytes()).collect();
        assert_eq!(now, then);
        assert_eq!(std::ffi::OsStr::from_bytes(now[0]), PREDICTD_PATH);
    } else {
        eprintln!("SKIPPED: this system has no /proc to see the process's own environment in");
    }
    daemon.signal("TERM");
    assert!(daemon.wait().0.success());
    assert_eq!(list_files(home.path()), Vec::<String>::new());
}

#[test]
fn process_opens_no_outgoing_connection() {
    let models = cheap_models();
    let data = tempfile::tempdir().unwrap();
    let home = tempfile::tempdir().unwrap();
    let trace = data.path().join("trace");
    let probe = Command::new("strace").args(["-f", "-o", "/dev/null", "true"]).stderr(Stdio::null()).status();
    if !probe.is_ok_and(|status| status.success()) {
        eprintln!("SKIPPED: connections were not watched, strace is not there or may not trace");
        return;
    }
    let mut command = Command::new("strace");
    // -D: the server is the child that was started, so that signals reach it.
    command.args(["-D", "-f", "-e", "trace=connect,accept4,sendto,sendmsg", "-o"]).arg(&trace).arg(PREDICTD_PATH);
    command.args(serve_arguments(models.path(), data.path())).stderr(Stdio::piped()).stdin(Stdio::null());
    allow_telemetry(&mut command, home.path());
    let daemon = Daemon::start(&mut command);
    assert_eq!(label(&daemon.predict(QUESTION)), "card_arrival");
    daemon.signal("TERM");
    // The log's end is open in the tracer as well: when it is closed, the trace is complete.
    assert!(daemon.wait().0.success());
    let trace = std::fs::read_to_string(trace).unwrap();
    assert!(trace.contains("accept4(") && trace.contains("+++ exited with 0 +++"), "the trace is one: {trace}");
    assert!(!trace.contains("connect("), "{trace}");
    let own = |line: &&str| line.contains("sockaddr") && !line.contains("accept4");
    assert_eq!(trace.lines().find(own), None, "nothing is sent to an address");
}
