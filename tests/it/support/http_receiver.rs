//! A receiver of requests that the server or the watcher sends.

use std::collections::VecDeque;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::thread::JoinHandle;

use parking_lot::{Condvar, Mutex};
use serde_json::Value;

/// Statuses and bodies that are answered, the last for ever, and the requests that were received.
#[derive(Default)]
struct ReceiverScript {
    responses: Mutex<VecDeque<(u16, String)>>,
    requests: Mutex<Vec<(String, Vec<u8>)>>,
    /// Their heads, in small letters.
    heads: Mutex<String>,
    arrived: Condvar,
}

/// A receiver of requests that answers by a script.
pub struct HttpReceiver {
    address: SocketAddr,
    script: Arc<ReceiverScript>,
}

impl HttpReceiver {
    pub fn new(answers: &[(u16, &str)]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let script = Arc::new(ReceiverScript::default());
        script.responses.lock().extend(answers.iter().map(|(status, body)| (*status, (*body).to_owned())));
        let own = Arc::clone(&script);
        spawn_thread(move || {
            for stream in listener.incoming() {
                answer_request(&mut stream.unwrap(), &own);
            }
        });
        Self { address, script }
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// What it answers from now on.
    pub fn set_response(&self, status: u16, body: &str) {
        *self.script.responses.lock() = [(status, body.to_owned())].into();
    }

    /// Waits for so many requests; path and body of each.
    pub fn wait_for_requests(&self, count: usize) -> Vec<(String, Value)> {
        let mut requests = self.script.requests.lock();
        while requests.len() < count {
            self.script.arrived.wait(&mut requests);
        }
        requests.iter().map(|(path, body)| (path.clone(), serde_json::from_slice(body).unwrap_or_default())).collect()
    }

    /// The heads of all requests until now, in small letters.
    pub fn heads(&self) -> String {
        self.script.heads.lock().clone()
    }

    /// Path and body of each request until now.
    pub fn received_requests(&self) -> Vec<(String, Vec<u8>)> {
        self.script.requests.lock().clone()
    }
}

pub fn spawn_thread<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> JoinHandle<T> {
    std::thread::Builder::new().name("other side".to_owned()).spawn(work).unwrap()
}

fn answer_request(stream: &mut TcpStream, script: &ReceiverScript) {
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    let mut path = String::new();
    let mut length = 0;
    let mut line = String::new();
    while reader.read_line(&mut line).is_ok_and(|read| read > 2) {
        if path.is_empty() {
            path.push_str(line.split(' ').nth(1).unwrap_or_default());
        }
        script.heads.lock().push_str(&line.to_ascii_lowercase());
        if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length: ") {
            length = value.trim().parse().unwrap();
        }
        line.clear();
    }
    let mut body = vec![0; length];
    if reader.read_exact(&mut body).is_err() {
        return;
    }
    let (status, said) = {
        let mut answers = script.responses.lock();
        if answers.len() > 1 {
            answers.pop_front().unwrap()
        } else {
            answers.front().cloned().unwrap_or((200, String::new()))
        }
    };
    script.requests.lock().push((path, body));
    script.arrived.notify_all();
    write!(stream, "HTTP/1.1 {status} x\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{said}", said.len()).ok();
}
