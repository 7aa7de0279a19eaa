//! Secrets and texts that must not be shown, planted wherever a client or an operator can put
//! them, are looked for in everything the server shows.

use rcgen::generate_simple_self_signed;
use serde_json::{Value, json};

use crate::support::daemon::{Daemon, predictd, serve_command};
use crate::support::daemon_requests::scrape_metrics;
use crate::support::raw_client::{RawClient, get, request};
use crate::support::test_server::{CHEAP_MODEL, cheap_models};

/// Stands in every planted text.
const CANARY: &str = "CANARY7f3a";

/// Longest line of the log, in bytes.
const MAX_LOG_LINE_BYTES: usize = 8 << 10;

/// Requests with the canary in every place that a client can write to, right and wrong ones.
fn canary_requests(key: &str) -> Vec<String> {
    let authorized = format!("Authorization: Bearer {key}\r\n");
    let text = format!("where is my card {CANARY}");
    let mut all = Vec::new();
    for headers in [
        authorized.clone(),
        format!("Authorization: Bearer pd_{CANARY}\r\n"),
        format!("Authorization: Basic {CANARY}\r\n"),
        format!(
            "{authorized}X-Request-Id: {CANARY} \u{1b}[31m\r\nX-Forwarded-For: {CANARY}\r\nUser-Agent: {CANARY}\r\n"
        ),
        format!("{authorized}X-Request-Id: {key}\r\nCookie: {CANARY}\r\nX-{CANARY}: a\r\n"),
        format!("{authorized}X-Request-Id: {}\r\n", CANARY.repeat(2_000)),
        format!("{authorized}X-Request-Timeout-Ms: {CANARY}\r\n"),
        format!("{authorized}Content-Encoding: {CANARY}\r\n"),
        format!("{authorized}Expect: {CANARY}\r\nTE: {CANARY}\r\nUpgrade: {CANARY}\r\n"),
    ] {
        let headers = headers + "Connection: close\r\n";
        for body in [
            json!({ "text": text, "user_id": CANARY }).to_string(),
            json!({ "text": text, "model": CANARY.to_lowercase() }).to_string(),
            json!({ "text": text, "model": CANARY }).to_string(),
            json!({ "text": text, "version": CANARY.to_lowercase(), "model": CHEAP_MODEL }).to_string(),
            json!({ "text": text, "top_k": CANARY }).to_string(),
            json!({ "text": [CANARY] }).to_string(),
            json!({ "text": text, "unknown": { CANARY: CANARY } }).to_string(),
            json!({ "text": format!("<script>{CANARY}</script>") }).to_string(),
            json!({ "text": format!("{CANARY}\u{1}") }).to_string(),
            json!([text, format!("\u{2}{CANARY}")]).to_string(),
            format!("{{\"text\":\"{CANARY}"),
            CANARY.to_owned(),
        ] {
            for path in ["/predict", "/batch_predict"] {
                all.push(request("POST", path, &headers, &body));
            }
        }
        for path in
            [format!("/{CANARY}"), format!("/models/{}", CANARY.to_lowercase()), format!("/predict?{CANARY}={CANARY}")]
        {
            all.push(request("POST", &path, &headers, "{}"));
            all.push(format!("{CANARY} {path} HTTP/1.1\r\nHost: {CANARY}\r\n{headers}\r\n"));
        }
    }
    all
}

/// Both spellings of the canary, and the secret part of a key.
fn find_leak(shown: &str, key: &str) -> Option<usize> {
    [CANARY, &CANARY.to_lowercase(), key.trim_start_matches("pd_")].into_iter().find_map(|secret| shown.find(secret))
}

fn assert_no_leak(what: &str, shown: &str, key: &str) {
    if let Some(place) = find_leak(shown, key) {
        let from = shown.floor_char_boundary(place.saturating_sub(200));
        panic!("{what} shows it: {}", &shown[from..shown.ceil_char_boundary((place + 100).min(shown.len()))]);
    }
}

#[test]
fn secrets_in_requests_are_never_shown() {
    let models = cheap_models();
    let data = tempfile::tempdir().unwrap();
    let made = predictd(&["keys", "new", "--name", "all", "--scopes", "predict,metrics,admin,feedback", "--data-dir"])
        .arg(data.path())
        .output()
        .unwrap();
    let key = String::from_utf8(made.stdout).unwrap().trim().to_owned();
    assert!(key.len() == 46, "{key}");
    let mut command = serve_command(models.path(), data.path(), &["--log", "trace", "--max-body", "200000"]);
    command.env("SOME_PASSWORD", CANARY).env("PREDICTD_SOMETHING", CANARY);
    let daemon = Daemon::start(&mut command);
    let mut answered = std::collections::BTreeMap::new();
    for bytes in canary_requests(&key) {
        let mut wire = RawClient::connect(daemon.address);
        wire.send(&bytes);
        let answer = String::from_utf8_lossy(&wire.read_to_close()).into_owned();
        *answered.entry(answer.get(9..12).unwrap_or("none").to_owned()).or_insert(0) += 1;
        // A client may read its own words where they name something: a request's id, a label's model.
        let body = answer.split_once("\r\n\r\n").map_or(answer.as_str(), |(_, body)| body);
        assert_no_leak(&format!("the answer to {bytes:?}"), body, &key);
    }
    for status in ["200", "400", "401", "404", "405", "415", "422"] {
        assert!(answered.contains_key(status), "{status} was answered: {answered:?}");
    }
    let asks = format!("GET /metrics HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {key}\r\n\r\n");
    for address in [daemon.address, daemon.admin] {
        let metrics = RawClient::connect(address).request(&asks);
        assert_eq!(metrics.status, 200);
        assert_no_leak("/metrics", &metrics.body, &key);
        assert_no_leak("/health", &RawClient::connect(address).request(get("/health")).body, &key);
    }
    if let Ok(line) = std::fs::read(format!("/proc/{}/cmdline", daemon.child.id())) {
        assert_no_leak("the command line", &String::from_utf8_lossy(&line), &key);
    }
    daemon.signal("TERM");
    let (status, log) = daemon.wait();
    assert!(status.success());
    assert_no_leak("the log", &log, &key);
    assert!(log.lines().count() > 100, "the log is one at the level trace");
    for line in log.lines() {
        let event: Result<Value, _> = serde_json::from_str(line);
        assert!(event.is_ok_and(|event| event["level"].is_string()) && line.len() < MAX_LOG_LINE_BYTES, "{line}");
        assert!(!line.contains('\u{1b}'), "{line}");
    }
}

#[test]
fn secrets_private_key_is_never_shown() {
    let models = cheap_models();
    let data = tempfile::tempdir().unwrap();
    let made = generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let cert = data.path().join("cert.pem");
    let key = data.path().join("key.pem");
    let pem = made.signing_key.serialize_pem();
    std::fs::write(&cert, made.cert.pem()).unwrap();
    std::fs::write(&key, &pem).unwrap();
    let options = ["--log", "trace", "--tls-cert", cert.to_str().unwrap(), "--tls-key", key.to_str().unwrap()];
    let mut daemon = Daemon::launch(&mut serve_command(models.path(), data.path(), &options));
    daemon.wait_for_log("model version loaded");
    for bytes in ["GET / HTTP/1.1\r\n\r\n", "\u{16}\u{3}\u{1}"] {
        let mut wire = RawClient::connect(daemon.address);
        wire.send(bytes);
        wire.read_to_close();
    }
    let metrics = scrape_metrics(&daemon);
    daemon.signal("TERM");
    let (status, log) = daemon.wait();
    assert!(status.success());
    for secret in pem.lines().filter(|line| !line.starts_with("---")) {
        assert!(!log.contains(secret) && !metrics.contains(secret));
    }
}
