//! The real binary as a process of its own.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Child, ChildStderr, Command, ExitStatus, Output, Stdio};
use std::sync::Arc;

use parking_lot::{Condvar, Mutex, MutexGuard};
use serde_json::Value;

use crate::support::test_server::uncached;

pub const PREDICTD_PATH: &str = env!("CARGO_BIN_EXE_predictd");

/// A command for the binary whose environment has nothing of the developer's options.
pub fn predictd(arguments: &[&str]) -> Command {
    let mut command = Command::new(PREDICTD_PATH);
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let own = std::env::vars_os().filter_map(|(name, _)| name.into_string().ok());
    for name in own.filter(|name| name.starts_with("PREDICTD_") || name == "ORT_DYLIB_PATH") {
        command.env_remove(name);
    }
    command
}

/// Runs the binary to its end; its exit code and what it wrote to standard error.
pub fn run_to_exit(command: &mut Command) -> (i32, String) {
    let Output { status, stderr, .. } = command.output().unwrap();
    (status.code().unwrap(), String::from_utf8(stderr).unwrap())
}

/// A running server process. Killed if a test ends early.
pub struct Daemon {
    pub child: Child,
    /// Address of the data listener.
    pub address: SocketAddr,
    /// Address of the admin listener.
    pub admin: SocketAddr,
    log: StderrLog,
}

impl Daemon {
    /// Starts the command and waits until it listens and its model is ready.
    pub fn start(command: &mut Command) -> Self {
        let mut daemon = Self::launch(command);
        daemon.wait_for_log("model version loaded");
        // The line comes a moment before the model answers.
        while !daemon.is_ready() {
            std::thread::yield_now();
        }
        daemon
    }

    /// Starts the command and waits until it listens, whatever becomes of its models.
    pub fn launch(command: &mut Command) -> Self {
        let mut child = command.spawn().unwrap();
        let mut log = StderrLog::from_stderr(child.stderr.take().unwrap());
        let line = log.wait_for_one_of(&["listening", "data listener opens once"]);
        let address = |field: &str| line[field].as_str().unwrap().parse().unwrap();
        Self { child, address: address("address"), admin: address("admin"), log }
    }

    /// A server of `models` with its data in `data`.
    pub fn start_with(models: &Path, data: &Path, options: &[&str]) -> Self {
        Self::start(&mut serve_command(models, data, options))
    }

    /// The same, once the start is over: all versions were tried, and which of them are active is recorded.
    pub fn start_recorded(models: &Path, data: &Path, options: &[&str]) -> Self {
        let mut daemon = Self::start_with(models, data, options);
        daemon.wait_for_log("maximum memory use estimated");
        daemon
    }

    /// Waits for the next line of the log with this message.
    pub fn wait_for_log(&mut self, message: &str) -> Value {
        self.log.wait_for(message)
    }

    /// All that was logged so far.
    pub fn log(&self) -> String {
        self.log.written.lock().0.clone()
    }

    pub fn signal(&self, name: &str) {
        send_signal(self.child.id(), name);
    }

    /// Waits for the end; the status and the whole log.
    pub fn wait(mut self) -> (ExitStatus, String) {
        let status = self.child.wait().unwrap();
        (status, self.log.read_to_end())
    }

    /// Stops it in order; its log.
    pub fn stop(self) -> String {
        self.signal("TERM");
        let (status, log) = self.wait();
        assert!(status.success(), "{log}");
        log
    }

    fn is_ready(&self) -> bool {
        let answer = try_exchange(self.address, "GET", "/readyz", "");
        answer.unwrap_or_else(|error| panic!("{error}: {}", self.log())).starts_with("HTTP/1.1 200 ")
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // It has ended already in every test that passes.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// The command of a server of `models` with its data in `data`, on ports that the system chooses.
pub fn serve_command(models: &Path, data: &Path, options: &[&str]) -> Command {
    let paths = [models.to_str().unwrap(), data.to_str().unwrap()];
    let listeners = ["--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0"];
    let fixed = ["serve", "--models", paths[0], "--data-dir", paths[1]];
    let arguments: Vec<&str> = fixed
        .into_iter()
        .chain(listeners)
        .chain(["--log-format", "json"])
        .chain(uncached(options).copied())
        .chain(options.iter().copied())
        .collect();
    predictd(&arguments)
}

/// Sends a signal to a process.
pub fn send_signal(process: u32, name: &str) {
    let status = Command::new("kill").args(["-s", name, &process.to_string()]).status().unwrap();
    assert!(status.success());
}

/// Sends a request on a connection of its own and reads the answer to its end.
pub fn exchange(address: SocketAddr, method: &str, path: &str, body: &str) -> String {
    try_exchange(address, method, path, body).unwrap()
}

fn try_exchange(address: SocketAddr, method: &str, path: &str, body: &str) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(address)?;
    let kind = "Host: localhost\r\nContent-Type: application/json\r\nConnection: close";
    write!(stream, "{method} {path} HTTP/1.1\r\n{kind}\r\nContent-Length: {}\r\n\r\n{body}", body.len())?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}

/// What a process writes to standard error. It is read all the time: a full pipe would stop the process.
struct StderrLog {
    /// The lines so far, and whether there will be no more.
    written: Arc<LogBuffer>,
    /// Bytes that were looked at.
    seen: usize,
}

#[derive(Default)]
struct LogBuffer {
    state: Mutex<(String, bool)>,
    changed: Condvar,
}

impl LogBuffer {
    fn lock(&self) -> MutexGuard<'_, (String, bool)> {
        self.state.lock()
    }
}

impl StderrLog {
    fn from_stderr(from: ChildStderr) -> Self {
        let written = Arc::new(LogBuffer::default());
        let reader = Arc::clone(&written);
        let read = move || {
            let mut from = BufReader::new(from);
            loop {
                let mut line = String::new();
                let length = from.read_line(&mut line).unwrap_or(0);
                let mut state = reader.lock();
                state.0.push_str(&line);
                state.1 = length == 0;
                reader.changed.notify_all();
                if length == 0 {
                    return;
                }
            }
        };
        std::thread::Builder::new().spawn(read).unwrap();
        Self { written, seen: 0 }
    }

    fn wait_for(&mut self, message: &str) -> Value {
        self.wait_for_one_of(&[message])
    }

    fn wait_for_one_of(&mut self, messages: &[&str]) -> Value {
        let mut state = self.written.lock();
        loop {
            while let Some(length) = state.0[self.seen..].find('\n') {
                let line = serde_json::from_str(&state.0[self.seen..][..length]).unwrap_or(Value::Null);
                self.seen += length + 1;
                if line["message"]
                    .as_str()
                    .is_some_and(|logged| messages.iter().any(|message| logged.contains(message)))
                {
                    return line;
                }
            }
            assert!(!state.1, "the process ended before it logged {messages:?}: {}", state.0);
            self.written.changed.wait(&mut state);
        }
    }

    /// Everything, to the end.
    fn read_to_end(&self) -> String {
        let mut state = self.written.lock();
        self.written.changed.wait_while(&mut state, |state| !state.1);
        state.0.clone()
    }
}
