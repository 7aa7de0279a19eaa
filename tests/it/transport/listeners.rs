//! Listeners at host names and at Unix sockets.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::process::{Child, ChildStderr, Command};

use predictd::api::models::RegisteredModelList;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::daemon::{predictd, run_to_exit, send_signal};
use crate::support::test_server::{cheap_models, question_body};
use crate::support::waiting::block_until;

/// A server process; killed if a test ends early.
struct ListeningServer {
    child: Child,
    log: BufReader<ChildStderr>,
}

impl ListeningServer {
    /// Starts a server with these listeners and waits until its model is ready; the line that says where it listens.
    fn start(models: &TempDir, data: &TempDir, listen: &str, admin: &str, more: &[&str]) -> (Self, Value) {
        let mut child = serve_command(models, data, listen, admin, more).spawn().unwrap();
        let log = BufReader::new(child.stderr.take().unwrap());
        let mut server = Self { child, log };
        let listening = server.wait_for_log(if more.is_empty() { "listening" } else { "data listener opens once" });
        server.wait_for_log("model version loaded");
        (server, listening)
    }

    /// Waits for the next line of the log with this message.
    fn wait_for_log(&mut self, message: &str) -> Value {
        loop {
            let mut line = String::new();
            assert!(self.log.read_line(&mut line).unwrap() > 0, "the process ended before it logged {message:?}");
            let line: Value = serde_json::from_str(&line).unwrap_or_else(|_| panic!("{line}"));
            if line["message"].as_str().is_some_and(|logged| logged.contains(message)) {
                return line;
            }
        }
    }

    fn stop(mut self) {
        send_signal(self.child.id(), "TERM");
        let mut rest = String::new();
        self.log.read_to_string(&mut rest).unwrap();
        assert!(self.child.wait().unwrap().success(), "{rest}");
    }
}

impl Drop for ListeningServer {
    fn drop(&mut self) {
        // It has ended already in every test that passes.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

fn serve_command(models: &TempDir, data: &TempDir, listen: &str, admin: &str, more: &[&str]) -> Command {
    let mut command = predictd(&["serve", "--listen", listen, "--admin-listen", admin, "--log-format", "json"]);
    command.arg("--models").arg(models.path()).arg("--data-dir").arg(data.path()).args(more);
    command
}

fn unix_address(path: &Path) -> String {
    format!("unix:{}", path.display())
}

/// Sends a request over a Unix socket; the answer.
fn request_over_unix_socket(socket: &Path, method: &str, path: &str, body: &str) -> std::io::Result<String> {
    let mut stream = UnixStream::connect(socket)?;
    let head = "Host: any.example\r\nContent-Type: application/json\r\nConnection: close";
    write!(stream, "{method} {path} HTTP/1.1\r\n{head}\r\nContent-Length: {}\r\n\r\n{body}", body.len())?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}

fn file_mode(path: &Path) -> u32 {
    let metadata = std::fs::symlink_metadata(path).unwrap();
    assert!(metadata.file_type().is_socket());
    metadata.permissions().mode() & 0o777
}

#[test]
fn unix_socket_answers_and_is_removed_at_stop() {
    let models = cheap_models();
    let data = tempfile::tempdir().unwrap();
    let place = tempfile::tempdir().unwrap();
    let listen = place.path().join("data.sock");
    let admin = place.path().join("admin.sock");
    for more in [&[][..], &["--accept", "ready"]] {
        let (server, line) =
            ListeningServer::start(&models, &data, &unix_address(&listen), &unix_address(&admin), more);
        assert_eq!((&line["address"], &line["admin"]), (&json!(unix_address(&listen)), &json!(unix_address(&admin))));
        // A server that waits until it is ready makes the socket then.
        block_until("the socket takes connections", || UnixStream::connect(&listen).is_ok());
        assert_eq!((file_mode(&listen), file_mode(&admin)), (0o660, 0o600));
        let body = question_body();
        block_until("the model answers", || {
            request_over_unix_socket(&listen, "POST", "/predict", &body).unwrap().contains("card_arrival")
        });
        // No browser and no other user reaches the socket: any Host will do, and no key is needed.
        assert!(request_over_unix_socket(&admin, "GET", "/admin/log", "").unwrap().starts_with("HTTP/1.1 200 "));
        let url = unix_address(&admin);
        let (code, said) = run_to_exit(&mut predictd(&["health", "--admin-listen", &url]));
        assert_eq!((code, said.as_str()), (0, ""));
        let output = predictd(&["models", "list", "--json", "--admin-url", &url]).output().unwrap();
        let answer: RegisteredModelList = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(answer.models[0].name, "banking77-tfidf");
        // A second server does not take it away.
        let elsewhere = tempfile::tempdir().unwrap();
        let (code, said) =
            run_to_exit(&mut serve_command(&models, &elsewhere, &unix_address(&listen), "127.0.0.1:0", &[]));
        assert!(code == 1 && said.contains("another process listens on this socket"), "{said}");
        assert!(request_over_unix_socket(&listen, "GET", "/livez", "").unwrap().starts_with("HTTP/1.1 200 "));
        server.stop();
        assert!(!listen.exists() && !admin.exists(), "both are gone");
    }
}

#[test]
fn unix_socket_stale_is_replaced_other_file_is_kept() {
    let models = cheap_models();
    let data = tempfile::tempdir().unwrap();
    let place = tempfile::tempdir().unwrap();
    let listen = place.path().join("data.sock");
    // As a process leaves it that was killed.
    drop(UnixListener::bind(&listen).unwrap());
    let (server, _) = ListeningServer::start(&models, &data, &unix_address(&listen), "127.0.0.1:0", &[]);
    assert!(request_over_unix_socket(&listen, "GET", "/livez", "").unwrap().starts_with("HTTP/1.1 200 "));
    // Whose socket is replaced leaves the other one alone.
    std::fs::remove_file(&listen).unwrap();
    let _other = UnixListener::bind(&listen).unwrap();
    server.stop();
    assert!(listen.exists());
    let file = place.path().join("file");
    std::fs::write(&file, "precious").unwrap();
    let (code, said) = run_to_exit(&mut serve_command(&models, &data, &unix_address(&file), "127.0.0.1:0", &[]));
    assert!(code == 1 && said.contains("--listen unix:") && said.contains("no socket"), "{said}");
    assert_eq!(std::fs::read(&file).unwrap(), b"precious");
}

#[test]
fn listen_host_name_is_resolved() {
    let models = cheap_models();
    let data = tempfile::tempdir().unwrap();
    let (server, line) = ListeningServer::start(&models, &data, "localhost:0", "localhost:0", &[]);
    let address = line["address"].as_str().unwrap();
    assert!(address.starts_with("127.0.0.1:"), "{line}: loopback, so that no key is needed");
    let port = line["admin"].as_str().unwrap().rsplit(':').next().unwrap();
    let (code, said) = run_to_exit(&mut predictd(&["health", "--admin-listen", &format!("localhost:{port}")]));
    assert_eq!((code, said.as_str()), (0, ""));
    server.stop();
    let (code, said) = run_to_exit(&mut serve_command(&models, &data, "no-such-host.invalid:80", "127.0.0.1:0", &[]));
    assert!(
        code == 64 && said.contains("--listen no-such-host.invalid:80: the host name cannot be resolved"),
        "{said}"
    );
}
