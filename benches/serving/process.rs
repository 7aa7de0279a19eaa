//! The release binary as a process, and a client for it that adds as little as it can.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

const BINARY: &str = env!("CARGO_BIN_EXE_predictd");

fn text_field(example: &serde_json::Value, field: &str) -> String {
    example[field].as_str().unwrap().to_owned()
}

/// Texts of the models' golden examples: what the benchmarks ask.
pub(crate) fn golden_texts(model: &str) -> Vec<(String, String)> {
    let path = format!("models/{model}/1/golden.json");
    let golden: serde_json::Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    golden["examples"].as_array().unwrap().iter().map(|e| (text_field(e, "text"), text_field(e, "label"))).collect()
}

/// Processor time used so far, user and system, by `self`, `thread-self` or a process id.
pub(crate) fn cpu_time_of(who: &str) -> Duration {
    let stat = std::fs::read_to_string(format!("/proc/{who}/stat")).unwrap();
    // The name in parentheses may hold spaces; utime and stime are the 14th and 15th field.
    let fields: Vec<&str> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
    let ticks: u64 = fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap();
    Duration::from_millis(ticks * 10)
}

/// A running `predictd`; killed when dropped.
pub(crate) struct ServerProcess {
    child: Child,
    pub(crate) address: String,
    pub(crate) admin: String,
    /// From the start of the process to a ready answer.
    pub(crate) start_to_ready: Duration,
    _data: tempfile::TempDir,
}

impl ServerProcess {
    /// A server whose figures are the models': without a cache, unless the options say otherwise.
    pub(crate) fn start(options: &[&str]) -> Self {
        let uncached = if options.contains(&"--cache-bytes") { &[][..] } else { &["--cache-bytes", "0"] };
        let data = tempfile::tempdir().unwrap();
        let start = Instant::now();
        let mut child = Command::new(BINARY)
            .args(["--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0", "--log-format", "json"])
            .args(["--data-dir", data.path().to_str().unwrap()])
            .args(uncached)
            .args(options)
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut log = BufReader::new(child.stderr.take().unwrap());
        let (address, admin) = loop {
            let mut line = String::new();
            assert!(log.read_line(&mut line).unwrap() > 0, "the server ended before it listened");
            let event: serde_json::Value = serde_json::from_str(&line).unwrap();
            if event["message"] == "listening" {
                break (event["address"].as_str().unwrap().to_owned(), event["admin"].as_str().unwrap().to_owned());
            }
        };
        // A full pipe would make the server wait at its next log line.
        let drain = move || _ = std::io::copy(&mut log, &mut std::io::sink());
        std::thread::Builder::new().name("log".to_owned()).spawn(drain).unwrap();
        while !is_ready(&address) {
            std::thread::sleep(Duration::from_millis(2));
        }
        Self { child, address, admin, start_to_ready: start.elapsed(), _data: data }
    }

    /// Resident memory in MiB.
    pub(crate) fn resident_mib(&self) -> f64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse::<f64>().unwrap() / 1024.0
    }

    /// Processor time used so far, user and system.
    pub(crate) fn cpu_time(&self) -> Duration {
        cpu_time_of(&self.child.id().to_string())
    }

    /// True if the process that was started has not ended.
    pub(crate) fn is_alive(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    /// Tells the server to stop.
    pub(crate) fn terminate(&self) {
        assert!(Command::new("kill").args(["-TERM", &self.child.id().to_string()]).status().unwrap().success());
    }

    /// How the process ended; nothing if it has not within `limit`.
    pub(crate) fn wait_for_exit(&mut self, limit: Duration) -> Option<ExitStatus> {
        let start = Instant::now();
        loop {
            let status = self.child.try_wait().unwrap();
            if status.is_some() || start.elapsed() > limit {
                return status;
            }
            std::thread::sleep(Duration::from_millis(2));
        }
    }
}

fn is_ready(address: &str) -> bool {
    let (status, body) = KeepAliveClient::connect(address).request("GET", "/health", "");
    status == 200 && !body.contains("loading")
}

impl Drop for ServerProcess {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// One keep-alive connection.
pub(crate) struct KeepAliveClient {
    stream: BufReader<TcpStream>,
}

impl KeepAliveClient {
    pub(crate) fn connect(address: &str) -> Self {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_nodelay(true).unwrap();
        Self { stream: BufReader::new(stream) }
    }

    /// Sends a request.
    pub(crate) fn send(&mut self, method: &str, path: &str, body: &str) {
        let head = format!(
            "{method} {path} HTTP/1.1\r\nhost: bench\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n",
            body.len()
        );
        self.stream.get_mut().write_all((head + body).as_bytes()).unwrap();
    }

    /// Sends a request and reads its answer: status and body.
    pub(crate) fn request(&mut self, method: &str, path: &str, body: &str) -> (u16, String) {
        self.send(method, path, body);
        let mut line = String::new();
        self.stream.read_line(&mut line).unwrap();
        let status = line.split(' ').nth(1).unwrap().parse().unwrap();
        let mut length = 0;
        loop {
            line.clear();
            self.stream.read_line(&mut line).unwrap();
            if line == "\r\n" {
                break;
            }
            let (name, value) = line.split_once(':').unwrap();
            // Other servers write names in other cases.
            if name.eq_ignore_ascii_case("content-length") {
                length = value.trim().parse().unwrap();
            }
            assert!(!name.eq_ignore_ascii_case("transfer-encoding"), "answers in pieces are not read: {line}");
        }
        let mut body = vec![0; length];
        self.stream.read_exact(&mut body).unwrap();
        (status, String::from_utf8(body).unwrap())
    }
}
