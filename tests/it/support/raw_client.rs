//! A connection on which a test writes its own bytes: as much of a request as it likes, when it likes.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use predictd::api::problem::Problem;
use serde::de::DeserializeOwned;

use crate::support::answers::kind;

/// A connection to a server.
pub struct RawClient(BufReader<TcpStream>);

/// An answer, read to its end; the connection may go on.
#[derive(Debug)]
pub struct RawResponse {
    pub status: u16,
    /// Status line and headers, in lower case.
    pub head: String,
    pub body: String,
}

impl RawResponse {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
    }

    /// The body as a wire type; as a `Value` where the test is about the JSON itself.
    #[track_caller]
    pub fn json<T: DeserializeOwned>(&self) -> T {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// The body of a 200.
    #[track_caller]
    pub fn ok<T: DeserializeOwned>(&self) -> T {
        assert_eq!(self.status, 200, "{self:?}");
        self.json()
    }

    /// The problem that an error is.
    #[track_caller]
    pub fn problem(&self) -> Problem {
        assert_eq!(self.header("content-type"), Some("application/problem+json"), "{self:?}");
        self.json()
    }

    /// The kind of a problem: the last part of its type.
    #[track_caller]
    pub fn problem_kind(&self) -> String {
        kind(&self.problem()).to_owned()
    }
}

impl RawClient {
    pub fn connect(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).unwrap();
        // Only for tests that would fail anyhow: they end.
        stream.set_read_timeout(Some(Duration::from_mins(1))).unwrap();
        Self(BufReader::new(stream))
    }

    pub fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.0.get_mut().write_all(bytes.as_ref()).unwrap();
    }

    /// Reads the next answer.
    pub fn read_response(&mut self) -> RawResponse {
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            assert!(self.0.read_line(&mut head).unwrap() > 0, "the connection was closed after {head:?}");
        }
        let head = head.to_ascii_lowercase();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        let mut answer = RawResponse { status, head, body: String::new() };
        if answer.header("transfer-encoding") == Some("chunked") {
            answer.body = self.read_chunked();
            return answer;
        }
        let length: u64 = answer.header("content-length").map_or(0, |length| length.parse().unwrap());
        self.0.by_ref().take(length).read_to_string(&mut answer.body).unwrap();
        assert_eq!(answer.body.len() as u64, length, "the connection was closed within the answer");
        answer
    }

    /// Reads a body in chunks to its end.
    fn read_chunked(&mut self) -> String {
        let mut body = Vec::new();
        loop {
            let mut line = String::new();
            assert!(self.0.read_line(&mut line).unwrap() > 0, "the connection was closed between two chunks");
            let length = u64::from_str_radix(line.trim_end(), 16).unwrap();
            let before = body.len() as u64;
            self.0.by_ref().take(length + 2).read_to_end(&mut body).unwrap();
            assert_eq!(body.len() as u64, before + length + 2, "the connection was closed within a chunk");
            body.truncate(body.len() - 2);
            if length == 0 {
                return String::from_utf8(body).unwrap();
            }
        }
    }

    /// Sends a request and reads its answer.
    pub fn request(&mut self, request: impl AsRef<[u8]>) -> RawResponse {
        self.send(request);
        self.read_response()
    }

    /// Reads answers until the server closes the connection, which it does after a whole one.
    pub fn read_responses(mut self) -> Vec<RawResponse> {
        let mut answers = Vec::new();
        while !self.0.fill_buf().unwrap().is_empty() {
            answers.push(self.read_response());
        }
        answers
    }

    /// Waits until the server has closed the connection; what it sent before that.
    pub fn read_to_close(mut self) -> Vec<u8> {
        let mut rest = Vec::new();
        // A reset is an end as well.
        self.0.read_to_end(&mut rest).ok();
        rest
    }
}

/// A body in chunks at the beginning of these bytes, and how many bytes it takes, if it is complete.
pub fn dechunked(bytes: &[u8]) -> Option<(Vec<u8>, usize)> {
    let mut body = Vec::new();
    let mut place = 0;
    loop {
        let rest = &bytes[place..];
        let line = rest.windows(2).position(|end| end == b"\r\n")?;
        let length = usize::from_str_radix(std::str::from_utf8(&rest[..line]).unwrap(), 16).unwrap();
        body.extend_from_slice(rest.get(line + 2..line + 2 + length)?);
        rest.get(line + 2 + length..line + 4 + length)?;
        place += line + 4 + length;
        if length == 0 {
            return Some((body, place));
        }
    }
}

/// A request with these further header lines, each with its end.
pub fn request(method: &str, path: &str, headers: &str, body: &str) -> String {
    let length = body.len();
    format!(
        "{method} {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n{headers}Content-Length: {length}\r\n\r\n{body}"
    )
}

/// A request without a body.
pub fn get(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n")
}

/// The value of a metric as `/metrics` of `address` has it; 0 if it is not there.
pub fn metric(address: SocketAddr, name: &str) -> u64 {
    let answer = RawClient::connect(address).request(get("/metrics"));
    assert_eq!(answer.status, 200, "{answer:?}");
    let line = answer.body.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    line.map_or(0, |value| value.parse().unwrap())
}
