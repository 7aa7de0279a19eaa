//! Clients that ask the server over HTTP as people's programs do: each on a connection that it keeps, each with its
//! next text as soon as it has its answer.
//!
//! They have threads of their own, whose processor time is measured apart from the server's.

use std::io::{Error, ErrorKind, Result};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::machine::thread_cpu_time;
use super::measurement::MeasurementCounts;

/// Pause of a client that got an error: an overloaded server shall not be asked all the more.
const ERROR_BACKOFF: Duration = Duration::from_millis(10);
/// One thread of clients asks about 30,000 texts a second: few of them keep all cores of a server busy.
const CORES_PER_THREAD: usize = 4;
const MAX_CLIENT_THREADS: usize = 8;
/// More bytes than this are no answer of ours.
const MAX_RESPONSE_BYTES: usize = 1 << 20;

/// The stretch of time that counts.
#[derive(Debug, Clone, Copy)]
pub struct MeasurementPeriod {
    /// Before it, everything gets warm.
    pub begin: Instant,
    /// After it, no client sends.
    pub end: Instant,
}

/// Clients at work.
pub struct LoadClients {
    threads: Vec<JoinHandle<Result<MeasurementCounts>>>,
}

/// Requests, ready to be sent.
#[must_use]
pub fn build_requests(texts: &[String]) -> Arc<[Vec<u8>]> {
    let request = |text: &String| {
        let body = serde_json::json!({ "text": text }).to_string();
        let head = "POST /predict HTTP/1.1\r\nhost: bench\r\ncontent-type: application/json\r\ncontent-length:";
        format!("{head} {}\r\n\r\n{body}", body.len()).into_bytes()
    };
    texts.iter().map(request).collect()
}

impl LoadClients {
    /// Lets so many clients ask until the end of the window.
    ///
    /// # Errors
    /// If the operating system gives no thread.
    pub fn start(
        address: SocketAddr,
        requests: &Arc<[Vec<u8>]>,
        clients: usize,
        window: MeasurementPeriod,
        stop: &CancellationToken,
    ) -> Result<Self> {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let threads = (cores / CORES_PER_THREAD).clamp(1, MAX_CLIENT_THREADS).min(clients);
        // One list for all: a client with long texts asks fewer, and no text is left out.
        let client_thread =
            ClientThread { address, requests: Arc::clone(requests), next_index: Arc::default(), period: window };
        let start = |thread| {
            let thread_clients = clients / threads + usize::from(thread < clients % threads);
            let client_thread = client_thread.clone();
            let stop = stop.clone();
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            let ask = move || runtime.block_on(client_thread.run_clients(thread_clients, &stop));
            std::thread::Builder::new().name("predictd-client".to_owned()).spawn(ask)
        };
        Ok(Self { threads: (0..threads).map(start).collect::<Result<_>>()? })
    }

    /// Waits for all of them: their answers and errors within the window, and the processor time that they took.
    ///
    /// # Errors
    /// If a connection failed.
    pub fn finish(self) -> Result<MeasurementCounts> {
        let mut all = MeasurementCounts::default();
        for thread in self.threads {
            all.merge(thread.join().unwrap_or_else(|_| Err(Error::other("a thread of clients panicked")))?);
        }
        Ok(all)
    }
}

#[derive(Clone)]
struct ClientThread {
    address: SocketAddr,
    requests: Arc<[Vec<u8>]>,
    next_index: Arc<AtomicUsize>,
    period: MeasurementPeriod,
}

impl ClientThread {
    /// All clients of this thread.
    async fn run_clients(self, clients: usize, stop: &CancellationToken) -> Result<MeasurementCounts> {
        let mut tasks = JoinSet::new();
        for _ in 0..clients {
            tasks.spawn(self.clone().run_client());
        }
        let window = self.period;
        let measured = async {
            tokio::time::sleep_until(window.begin.into()).await;
            let cpu = thread_cpu_time();
            tokio::time::sleep_until(window.end.into()).await;
            let client_cpu_time = thread_cpu_time().saturating_sub(cpu);
            let mut all = MeasurementCounts { client_cpu_time, ..MeasurementCounts::default() };
            while let Some(results) = tasks.join_next().await {
                all.merge(results.map_err(Error::other)??);
            }
            Ok(all)
        };
        tokio::select! {
            measured = measured => measured,
            () = stop.cancelled() => Ok(MeasurementCounts::default()),
        }
    }

    /// One client: what it hears within the window.
    async fn run_client(self) -> Result<MeasurementCounts> {
        let mut stream = TcpStream::connect(self.address).await?;
        stream.set_nodelay(true)?;
        let mut results = MeasurementCounts::default();
        let mut read = Vec::new();
        loop {
            let index = self.next_index.fetch_add(1, Ordering::Relaxed) % self.requests.len().max(1);
            let Some(request) = self.requests.get(index) else { break };
            let start = Instant::now();
            let exchange = async {
                stream.write_all(request).await?;
                read_response(&mut stream, &mut read).await
            };
            // What is still being worked on when the time is over is left: the server notices.
            let Ok(status) = tokio::time::timeout_at(self.period.end.into(), exchange).await else { break };
            let is_answered = status? == 200;
            let now = Instant::now();
            if now >= self.period.begin && now <= self.period.end {
                if is_answered {
                    results.latencies.push(now - start);
                } else {
                    results.unanswered += 1;
                }
            }
            if !is_answered {
                tokio::time::sleep(ERROR_BACKOFF).await;
            }
        }
        Ok(results)
    }
}

/// Reads one answer to its end; its status.
async fn read_response(stream: &mut TcpStream, read: &mut Vec<u8>) -> Result<u16> {
    loop {
        if let Some((status, length)) = parse_head(read)?
            && read.len() >= length
        {
            read.drain(..length);
            return Ok(status);
        }
        if read.len() > MAX_RESPONSE_BYTES {
            return Err(invalid_data("an answer that does not end"));
        }
        if stream.read_buf(read).await? == 0 {
            return Err(Error::new(ErrorKind::UnexpectedEof, "the server closed a connection in use"));
        }
    }
}

/// Status and length, head and body, of an answer; nothing if its head is not there in full.
fn parse_head(read: &[u8]) -> Result<Option<(u16, usize)>> {
    const HEAD_END: &[u8] = b"\r\n\r\n";
    let Some(end) = read.windows(HEAD_END.len()).position(|bytes| bytes == HEAD_END) else { return Ok(None) };
    let text = read.get(..end).and_then(|head| std::str::from_utf8(head).ok());
    let mut lines = text.ok_or_else(|| invalid_data("a head that is not text"))?.split("\r\n");
    let status = lines.next().and_then(|line| line.strip_prefix("HTTP/1.1 ")?.get(..3)?.parse().ok());
    let length = lines.filter_map(|line| line.split_once(':')).find_map(|(name, value)| {
        if name.eq_ignore_ascii_case("content-length") { value.trim().parse::<usize>().ok() } else { None }
    });
    let found = status.zip(length).filter(|&(_, length)| length <= MAX_RESPONSE_BYTES);
    let (status, length) = found.ok_or_else(|| invalid_data("a head without a status or a length"))?;
    Ok(Some((status, end + HEAD_END.len() + length)))
}

fn invalid_data(what: &'static str) -> Error {
    Error::new(ErrorKind::InvalidData, what)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn response_head_pipelined_ends_at_its_length() {
        let two = b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nx: y\r\n\r\nabcHTTP/1.1 503 No\r\ncontent-length:0\r\n\r\n";
        let (status, length) = parse_head(two).unwrap().unwrap();
        assert_eq!((status, &two[length - 3..length]), (200, &b"abc"[..]));
        assert_eq!(parse_head(&two[length..]).unwrap(), Some((503, two.len() - length)));
        assert_eq!(parse_head(&two[..30]).unwrap(), None);
        for bad in ["HTTP/1.1 200 OK\r\n\r\n", "HTTP/1.1 2\r\ncontent-length: 0\r\n\r\n", "hello\r\n\r\n"] {
            assert!(parse_head(bad.as_bytes()).is_err(), "{bad}");
        }
        assert!(parse_head(b"HTTP/1.1 200 OK\r\ncontent-length: 99999999999\r\n\r\n").is_err());
    }

    #[test]
    fn request_built_from_text_has_content_length() {
        let requests = build_requests(&["a \"quoted\" é".to_owned()]);
        let text = std::str::from_utf8(&requests[0]).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        assert_eq!(body, r#"{"text":"a \"quoted\" é"}"#);
        assert!(head.starts_with("POST /predict HTTP/1.1\r\n") && head.ends_with(&format!(": {}", body.len())));
    }
}
