//! The real binary as a process of its own.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Child, ChildStderr, Command, ExitStatus, Output, Stdio};

use serde_json::Value;

pub const PROGRAM: &str = env!("CARGO_BIN_EXE_predictd");

/// A command for the binary whose environment has nothing of the developer's options.
pub fn predictd(arguments: &[&str]) -> Command {
    let mut command = Command::new(PROGRAM);
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let own = std::env::vars_os().filter_map(|(name, _)| name.into_string().ok());
    for name in own.filter(|name| name.starts_with("PREDICTD_") || name == "ORT_DYLIB_PATH") {
        command.env_remove(name);
    }
    command
}

/// Runs the binary to its end; its exit code and what it wrote to standard error.
pub fn ends(command: &mut Command) -> (i32, String) {
    let Output { status, stderr, .. } = command.output().unwrap();
    (status.code().unwrap(), String::from_utf8(stderr).unwrap())
}

/// A running server process. Killed if a test ends early.
pub struct Daemon {
    pub child: Child,
    pub address: SocketAddr,
    log: BufReader<ChildStderr>,
}

impl Daemon {
    /// Starts the command and waits until it listens and its model is ready.
    pub fn start(command: &mut Command) -> Self {
        let mut child = command.spawn().unwrap();
        let mut log = BufReader::new(child.stderr.take().unwrap());
        let address = wait_for(&mut log, "listening")["address"].as_str().unwrap().parse().unwrap();
        wait_for(&mut log, "the model is ready");
        let daemon = Self { child, address, log };
        // The line comes a moment before the model answers.
        while !daemon.exchange("GET", "/readyz", "").starts_with("HTTP/1.1 200 ") {
            std::thread::yield_now();
        }
        daemon
    }

    /// A server of `models` with its data in `data`.
    pub fn with(models: &Path, data: &Path, options: &[&str]) -> Self {
        let paths = [models.to_str().unwrap(), data.to_str().unwrap()];
        let listeners = ["--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0"];
        let fixed = ["serve", "--models", paths[0], "--data-dir", paths[1]];
        let arguments: Vec<&str> =
            fixed.into_iter().chain(listeners).chain(["--log-format", "json"]).chain(options.iter().copied()).collect();
        Self::start(&mut predictd(&arguments))
    }

    /// Waits for a line of the log.
    pub fn logged(&mut self, message: &str) -> Value {
        wait_for(&mut self.log, message)
    }

    pub fn signal(&self, name: &str) {
        let status = Command::new("kill").args(["-s", name, &self.child.id().to_string()]).status().unwrap();
        assert!(status.success());
    }

    /// Waits for the end; the status and the rest of the log.
    pub fn wait(mut self) -> (ExitStatus, String) {
        let mut rest = String::new();
        self.log.read_to_string(&mut rest).unwrap();
        (self.child.wait().unwrap(), rest)
    }

    /// Sends a request on a connection of its own; the JSON of a 200.
    pub fn ask(&self, method: &str, path: &str, body: &str) -> Value {
        let answer = self.exchange(method, path, body);
        assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
        serde_json::from_str(answer.split_once("\r\n\r\n").unwrap().1).unwrap()
    }

    fn exchange(&self, method: &str, path: &str, body: &str) -> String {
        let mut stream = TcpStream::connect(self.address).unwrap();
        let kind = "Host: x\r\nContent-Type: application/json\r\nConnection: close";
        write!(stream, "{method} {path} HTTP/1.1\r\n{kind}\r\nContent-Length: {}\r\n\r\n{body}", body.len()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // It has ended already in every test that passes.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

fn wait_for(log: &mut impl BufRead, message: &str) -> Value {
    let mut seen = String::new();
    loop {
        let start = seen.len();
        assert!(log.read_line(&mut seen).unwrap() > 0, "the process ended before it logged {message:?}: {seen}");
        let line: Value = serde_json::from_str(&seen[start..]).unwrap_or_default();
        if line["message"].as_str().is_some_and(|logged| logged.contains(message)) {
            return line;
        }
    }
}
