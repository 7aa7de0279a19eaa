//! Clients that are stuck: each connects, does too little, and keeps its connection open.

use std::io::Result;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};

const DRIBBLE_INTERVAL: Duration = Duration::from_secs(1);
const STALLED_REQUEST: &str =
    "POST /predict HTTP/1.1\r\nhost: bench\r\ncontent-type: application/json\r\ncontent-length: 1000\r\n\r\n{";
/// Large answers on one connection, of which none is read.
const UNREAD_ANSWERS: usize = 3;
const UNREAD_TEXTS: usize = 1_024;

/// What a client does and then no more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum StuckKind {
    /// Connects.
    Silent,
    /// Sends half a head.
    HalfHead,
    /// Sends a head and one byte of the body.
    StalledBody,
    /// Sends a head, and the body at a byte per second.
    DribbledBody,
    /// Asks for large answers and reads none.
    UnreadAnswers,
}

/// How the server ended it.
#[derive(Debug, Clone)]
pub(crate) struct ConnectionEnd {
    /// From the connection's start.
    pub(crate) elapsed: Duration,
    /// The first line of what the server said before.
    pub(crate) answer: Option<String>,
}

/// A connection in that state.
pub(crate) struct StuckClient {
    kind: StuckKind,
    stream: TcpStream,
    started: Instant,
}

impl StuckClient {
    pub(crate) async fn connect(kind: StuckKind, address: &str) -> Result<Self> {
        let socket = TcpSocket::new_v4()?;
        if kind == StuckKind::UnreadAnswers {
            // So that no answer fits.
            socket.set_recv_buffer_size(4_096)?;
        }
        let mut stream = socket.connect(address.parse().map_err(std::io::Error::other)?).await?;
        let since = Instant::now();
        match kind {
            StuckKind::Silent => {}
            StuckKind::HalfHead => stream.write_all(&STALLED_REQUEST.as_bytes()[..STALLED_REQUEST.len() / 2]).await?,
            StuckKind::StalledBody | StuckKind::DribbledBody => stream.write_all(STALLED_REQUEST.as_bytes()).await?,
            StuckKind::UnreadAnswers => {
                let texts = vec!["Where is my card?"; UNREAD_TEXTS];
                let body = serde_json::json!({
                    "texts": texts, "model": "banking77-tfidf", "return_probabilities": true
                });
                let head = "POST /batch_predict HTTP/1.1\r\nhost: bench\r\ncontent-type: application/json\r\n";
                let request = format!("{head}content-length: {}\r\n\r\n{body}", body.to_string().len());
                // The server stops reading once its answer does not leave.
                tokio::time::timeout(DRIBBLE_INTERVAL, stream.write_all(request.repeat(UNREAD_ANSWERS).as_bytes()))
                    .await
                    .ok();
            }
        }
        Ok(Self { kind, stream, started: since })
    }

    /// Goes on being stuck until the server has closed the connection.
    pub(crate) async fn wait_until_closed(mut self) -> ConnectionEnd {
        let mut answer = Vec::new();
        let mut dribble = tokio::time::interval(DRIBBLE_INTERVAL);
        loop {
            tokio::select! {
                read = self.stream.read_buf(&mut answer), if self.kind != StuckKind::UnreadAnswers => {
                    if read.unwrap_or(0) == 0 {
                        let answer = String::from_utf8_lossy(&answer).lines().next().map(str::to_owned);
                        return ConnectionEnd { elapsed: self.started.elapsed(), answer };
                    }
                }
                // A failed write shows as a failed read too.
                _ = dribble.tick() => if self.kind == StuckKind::DribbledBody { self.stream.write_all(b" ").await.ok(); }
            }
        }
    }
}
