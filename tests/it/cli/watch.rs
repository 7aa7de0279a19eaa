//! `predictd watch`: checks of real servers, alerts, and the state between runs.

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener};
use std::process::{Child, Command};

use serde_json::{Value, json};

use crate::support::daemon::{Daemon, exchange, predictd, run_to_exit, send_signal};
use crate::support::http_receiver::{HttpReceiver, spawn_thread};
use crate::support::snapshots::{ADDRESS, TIME, snapshot_settings};
use crate::support::test_server::cheap_models;
use crate::support::waiting::block_until;
use crate::support::watch_alerts::{wait_for_alerts, wait_for_raw_alerts};

fn watch_command(options: &[&str]) -> Command {
    predictd(&["watch"].into_iter().chain(options.iter().copied()).collect::<Vec<_>>())
}

/// A watcher that checks every 20 ms.
struct WatchProcess(Child);

impl WatchProcess {
    fn start(options: &[&str]) -> Self {
        let mut command = watch_command(options);
        command.args(["--interval", "20ms", "--unhealthy-after", "2", "--healthy-after", "2"]);
        Self(command.stderr(std::process::Stdio::null()).spawn().unwrap())
    }

    /// Ends it as an operator does.
    fn stop(mut self) {
        send_signal(self.0.id(), "TERM");
        assert!(self.0.wait().unwrap().success());
    }
}

impl Drop for WatchProcess {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

#[test]
fn watch_once_exit_code_tells_health() {
    let models = cheap_models();
    let data = tempfile::tempdir().unwrap();
    let daemon = Daemon::start_with(models.path(), data.path(), &[]);
    let url = format!("http://{}", daemon.address);
    let (code, log) = run_to_exit(&mut watch_command(&["--once", &url]));
    assert_eq!(code, 0, "{log}");
    let line: Value = serde_json::from_str(log.lines().next().unwrap()).unwrap();
    assert_eq!((&line["healthy"], &line["status_code"]), (&json!(true), &json!(200)), "{line}");
    assert_eq!(line["url"], format!("{url}/health"));
    assert!(line["response_time"].as_f64().unwrap() > 0.0 && line["timestamp"].is_string());

    let broken = HttpReceiver::new(&[(503, "{\"status\":\"unhealthy\"}")]);
    let (code, log) = run_to_exit(&mut watch_command(&["--once", &url, &broken.url("/readyz?key=CANARY")]));
    assert_eq!(code, 1);
    assert!(
        log.contains("it answered with 503") && log.ends_with("predictd: 1 of 2 servers are not healthy\n"),
        "{log}"
    );
    assert!(!log.contains("CANARY"), "{log}");
    // The server reports itself unhealthy; refuses the connection; does not answer; has no address.
    let unwell = HttpReceiver::new(&[(200, "{\"status\":\"unhealthy\"}")]);
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let gone = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    for (url, reason) in [
        (unwell.url(""), "unhealthy"),
        (format!("http://{gone}"), "refused"),
        (format!("http://{}", silent.local_addr().unwrap()), "no answer within 100ms"),
        ("http://no.such.host.invalid".to_owned(), "error"),
    ] {
        let (code, log) = run_to_exit(&mut watch_command(&["--once", "--timeout", "100ms", &url]));
        assert!(code == 1 && log.contains(reason), "{url}: {log}");
    }
}

#[test]
fn watch_every_channel_gets_each_change_once() {
    let server = HttpReceiver::new(&[(200, "{\"status\":\"healthy\"}")]);
    let [webhook, slack, pager, manager] = [(); 4].map(|()| HttpReceiver::new(&[(202, "")]));
    let place = tempfile::tempdir().unwrap();
    let program = place.path().join("program");
    let file = place.path().join("alerts");
    std::fs::write(&program, format!("#!/bin/sh\ncat >>{0}\necho >>{0}\n", file.display())).unwrap();
    std::fs::set_permissions(&program, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let watched = server.url("/x");
    let running = WatchProcess::start(&[
        &watched,
        "--webhook",
        &webhook.url("/hook"),
        "--slack",
        &slack.url("/T/B/secret"),
        "--pagerduty",
        "routing",
        "--pagerduty-url",
        &pager.url("/v2/enqueue"),
        "--alertmanager",
        &manager.url(""),
        "--command",
        program.to_str().unwrap(),
    ]);
    server.wait_for_requests(5);
    assert!(webhook.received_requests().is_empty(), "a server that is healthy from the start is no news");
    server.set_response(500, "");
    let sent = wait_for_raw_alerts(&webhook, 1).remove(0);
    assert_eq!(webhook.received_requests()[0].0, "/hook");
    snapshot_settings(&[(r#""response_time": [^,\n]+"#, "\"response_time\": \"[measured]\""), ADDRESS, TIME])
        .bind(|| insta::assert_snapshot!("watch-alert", format!("{sent:#}")));
    assert_eq!(sent["url"], watched);
    assert_eq!(sent["summary"], format!("{watched} is unhealthy: it answered with 500"));
    server.set_response(200, "");
    let sent = wait_for_raw_alerts(&webhook, 2).remove(1);
    assert_eq!((&sent["status"], sent["check"].get("error")), (&json!("healthy"), Some(&Value::Null)));
    let texts: Vec<Value> = slack.wait_for_requests(2).into_iter().map(|(_, body)| body["text"].clone()).collect();
    assert!(
        texts[0].as_str().unwrap().contains("is unhealthy") && texts[1].as_str().unwrap().contains("healthy again")
    );
    let events = pager.wait_for_requests(2);
    assert_eq!((&events[0].1["event_action"], &events[1].1["event_action"]), (&json!("trigger"), &json!("resolve")));
    assert_eq!(
        (&events[0].1["dedup_key"], &events[0].1["routing_key"]),
        (&events[1].1["dedup_key"], &json!("routing"))
    );
    let alerts = manager.wait_for_requests(2);
    assert_eq!(alerts[0].0, "/api/v2/alerts");
    // One message opens an alert that lasts longer than Alertmanager's default.
    let time =
        |alert: usize, field: &str| humantime::parse_rfc3339(alerts[alert].1[0][field].as_str().unwrap()).unwrap();
    let lasts = time(0, "endsAt").duration_since(time(0, "startsAt")).unwrap();
    assert!(lasts > std::time::Duration::from_hours(24) && time(1, "endsAt") < time(0, "endsAt"), "{alerts:?}");
    assert_eq!(alerts[0].1[0]["labels"]["severity"], "page");
    block_until("the program got the alerts", || {
        std::fs::read_to_string(&file).is_ok_and(|alerts| alerts.lines().count() == 2)
    });
    // Further checks send nothing more.
    let seen = server.received_requests().len();
    server.wait_for_requests(seen + 10);
    running.stop();
    assert_eq!(webhook.received_requests().len(), 2);
}

#[test]
fn watch_alert_is_retried_until_accepted() {
    let server = HttpReceiver::new(&[(500, "")]);
    let webhook = HttpReceiver::new(&[(503, ""), (200, "")]);
    let running = WatchProcess::start(&[&server.url(""), "--webhook", &webhook.url("/")]);
    let tries = webhook.wait_for_requests(2);
    assert_eq!(tries[0], tries[1]);
    running.stop();
    // What will never be taken is given up at once.
    let refusing = HttpReceiver::new(&[(400, "")]);
    let (code, log) = run_to_exit(&mut watch_command(&[
        "--once",
        "--unhealthy-after",
        "1",
        "--webhook",
        &refusing.url("/"),
        &server.url(""),
    ]));
    assert!(code == 1 && log.contains("it answered with 400") && log.contains("alert dropped"), "{log}");
    assert_eq!(refusing.wait_for_requests(1).len(), 1);
}

#[test]
fn watch_state_and_pending_alerts_survive_restart() {
    let place = tempfile::tempdir().unwrap();
    let state = place.path().join("state.json");
    let state = state.to_str().unwrap();
    let server = HttpReceiver::new(&[(500, "")]);
    let webhook = HttpReceiver::new(&[(200, "")]);
    let gone = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let once = |webhook: &str, retry: &str| {
        let url = server.url("");
        let options =
            ["--once", "--unhealthy-after", "2", "--healthy-after", "1", "--state", state, "--retry-for", retry];
        run_to_exit(watch_command(&options).args(["--webhook", webhook, &url])).0
    };
    // The second failure in a row, in another process, is the one that counts.
    assert_eq!(once(&webhook.url("/"), "10m"), 1);
    assert!(webhook.received_requests().is_empty());
    // No receiver takes the alert: the next process sends it.
    let mut held = watch_command(&[
        "--interval",
        "1h",
        "--unhealthy-after",
        "2",
        "--state",
        state,
        "--webhook",
        &format!("http://{gone}"),
        &server.url(""),
    ]);
    let held = WatchProcess(held.stderr(std::process::Stdio::null()).spawn().unwrap());
    block_until("it was noticed", || {
        std::fs::read_to_string(state).is_ok_and(|state| state.contains("\"waiting\":{\"webhook\""))
    });
    drop(held);
    assert_eq!(once(&webhook.url("/"), "10m"), 1);
    assert_eq!(wait_for_raw_alerts(&webhook, 1)[0]["status"], "unhealthy");
    server.set_response(200, "");
    assert_eq!(once(&webhook.url("/"), "10m"), 0);
    assert_eq!(wait_for_raw_alerts(&webhook, 2)[1]["status"], "healthy");
    assert_eq!(once(&webhook.url("/"), "10m"), 0);
    assert_eq!(webhook.received_requests().len(), 2);
    std::fs::write(state, "{").unwrap();
    assert_eq!(once(&webhook.url("/"), "10m"), 64, "a damaged file is not taken for none");
}

#[test]
fn watch_alert_is_sent_by_mail() {
    let server = HttpReceiver::new(&[(500, "")]);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let mail = spawn_thread(move || {
        let mut stream = listener.accept().unwrap().0;
        let mut reader = BufReader::new(stream.try_clone().unwrap());
        let mut all = String::new();
        let mut line = String::new();
        let mut data = false;
        stream.write_all(b"220 test\r\n").unwrap();
        while reader.read_line(&mut line).unwrap() > 0 {
            all.push_str(&line);
            let reply: &[u8] = match line.as_str() {
                ".\r\n" => b"250 taken\r\n",
                _ if data => b"",
                "DATA\r\n" => b"354 go on\r\n",
                "QUIT\r\n" => b"221 bye\r\n",
                _ => b"250 ok\r\n",
            };
            data = (data || line == "DATA\r\n") && line != ".\r\n";
            stream.write_all(reply).unwrap();
            if all.contains("\r\n.\r\n") {
                break;
            }
            line.clear();
        }
        all
    });
    let smtp = format!("smtp://{address}");
    let (code, log) = run_to_exit(&mut watch_command(&[
        "--once",
        "--unhealthy-after",
        "1",
        "--smtp",
        &smtp,
        "--email-from",
        "watch@example.com",
        "--email-to",
        "a@example.com,b@example.com",
        &server.url(""),
    ]));
    assert_eq!(code, 1, "{log}");
    let mail = mail.join().unwrap();
    for part in [
        "RCPT TO:<a@example.com>",
        "RCPT TO:<b@example.com>",
        "From: watch@example.com",
        "is unhealthy: it answered with 500",
    ] {
        assert!(mail.contains(part), "{part}: {mail}");
    }
    assert!(log.contains("alert delivered"), "{log}");
}

#[test]
fn watch_exposes_its_own_metrics() {
    let server = HttpReceiver::new(&[(200, ""), (200, ""), (500, "")]);
    let url = server.url("/health");
    let webhook = HttpReceiver::new(&[(200, "")]);
    let mut command = watch_command(&[
        &url,
        "--interval",
        "20ms",
        "--unhealthy-after",
        "2",
        "--metrics",
        "127.0.0.1:0",
        "--webhook",
        &webhook.url("/"),
    ]);
    let mut child = command.spawn().unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
    let address = loop {
        let line: Value = serde_json::from_str(&lines.next().unwrap().unwrap()).unwrap();
        if line["message"] == "metrics listener opened" {
            break line["address"].as_str().unwrap().parse::<SocketAddr>().unwrap();
        }
    };
    spawn_thread(move || lines.for_each(drop));
    let running = WatchProcess(child);
    webhook.wait_for_requests(1);
    let metrics = || exchange(address, "GET", "/metrics", "");
    let delivered = "predictd_watch_deliveries_total{channel=\"webhook\",result=\"delivered\"} 1\n";
    block_until("the delivery was counted", || metrics().contains(delivered));
    let text = metrics();
    for line in [
        format!("predictd_watch_healthy{{url=\"{url}\"}} 0\n"),
        format!("predictd_watch_checks_total{{result=\"good\",url=\"{url}\"}} 2\n"),
        format!("predictd_watch_changes_total{{to=\"unhealthy\",url=\"{url}\"}} 1\n"),
    ] {
        assert!(text.contains(&line), "{line}: {text}");
    }
    running.stop();
}

#[test]
fn watch_invalid_options_exit_64_without_secrets() {
    let url = "http://127.0.0.1:1";
    for (options, word) in [
        (&["--once"][..], "<URL>"),
        (&["ftp://x"], "http://"),
        (&["no url"], "<URL>"),
        (&["htps://CANARY@x"], "http://"),
        (&[url, "--webhook", "hooks.example.com/CANARY"], "--webhook"),
        (&[url, "--slack", "htps://hooks.example.com/CANARY"], "--slack"),
        (&[url, "--alertmanager", "CANARY"], "--alertmanager"),
        (&[url, "--interval", "1ms"], "--interval"),
        (&[url, "--unhealthy-after", "0"], "--unhealthy-after"),
        (&[url, "--smtp", "smtp://x"], "--email-from"),
        (&[url, "--smtp", "imap://CANARY@x", "--email-from", "a@b.c", "--email-to", "a@b.c"], "--smtp"),
        (&[url, "--smtp", "smtp://x", "--email-from", "nobody", "--email-to", "a@b.c"], "--email-from"),
    ] {
        let (code, said) = run_to_exit(&mut watch_command(options));
        assert!(code == 64 && said.contains(word) && !said.contains("CANARY"), "{options:?}: {code} {said}");
    }
    let mut help = watch_command(&["--help"]);
    let output =
        help.env("PREDICTD_WATCH_SLACK", "https://CANARY").env("PREDICTD_WATCH_PAGERDUTY", "CANARY").output().unwrap();
    let help = String::from_utf8(output.stdout).unwrap();
    assert!(help.contains("PREDICTD_WATCH_SLACK") && !help.contains("CANARY"), "{help}");
}

#[test]
fn watch_once_without_state_file_alerts() {
    let broken = HttpReceiver::new(&[(500, "")]);
    let webhook = HttpReceiver::new(&[]);
    let (code, log) = run_to_exit(&mut watch_command(&["--once", "--webhook", &webhook.url("/"), &broken.url("")]));
    assert_eq!((code, &wait_for_raw_alerts(&webhook, 1)[0]["status"]), (1, &json!("unhealthy")), "{log}");
}

#[test]
fn watch_urls_differing_in_query_are_distinct() {
    let server = HttpReceiver::new(&[(500, "")]);
    let webhook = HttpReceiver::new(&[]);
    let urls = [server.url("/x?model=CANARY"), server.url("/x?model=b")];
    let (code, log) = run_to_exit(&mut watch_command(&["--once", "--webhook", &webhook.url("/"), &urls[0], &urls[1]]));
    let alerts = wait_for_alerts(&webhook, 2);
    assert_eq!((code, webhook.received_requests().len()), (1, 2), "{log}");
    assert_ne!(alerts[0].url, alerts[1].url);
    for (path, body) in webhook.received_requests() {
        assert!(!path.contains("CANARY") && !String::from_utf8(body).unwrap().contains("CANARY"), "{path} {alerts:?}");
    }
    assert!(!log.contains("CANARY"), "{log}");
}

#[test]
fn watch_signal_ends_check() {
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", silent.local_addr().unwrap());
    for once in [&["--once"][..], &[]] {
        let mut command = watch_command(&[once, &["--timeout", "10m", "--interval", "10m", &url]].concat());
        let mut watcher = command.stderr(std::process::Stdio::piped()).spawn().unwrap();
        let _asked = silent.accept().unwrap();
        send_signal(watcher.id(), "TERM");
        let status = watcher.wait().unwrap();
        // A check that was not made to its end is none that was good.
        assert_eq!(status.code(), Some(i32::from(!once.is_empty())));
    }
}
