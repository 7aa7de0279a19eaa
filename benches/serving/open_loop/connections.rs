//! The generator's connections: opened as needed, kept alive, one request at a time on each.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::io::{Error, ErrorKind, Result};
use std::rc::Rc;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::mpsc::Receiver;
use tokio::sync::oneshot;

use super::{DueRequest, LAST_ANSWERS_TIMEOUT, LoadOutcome, LoadSpec, TimedResponse};
use crate::http_response::parse_head;

/// What all connections share. Nothing holds a borrow over an await.
struct ConnectionPool {
    load: LoadSpec,
    start: Instant,
    /// Connections without a request; the one used last is taken first.
    idle: RefCell<Vec<oneshot::Sender<DueRequest>>>,
    queued: RefCell<VecDeque<DueRequest>>,
    outcome: RefCell<LoadOutcome>,
}

/// Sends what becomes due until there is no more, and waits for the answers.
pub(super) async fn run_load(load: LoadSpec, start: Instant, due: &mut Receiver<DueRequest>) -> LoadOutcome {
    let pool = Rc::new(ConnectionPool {
        load,
        start,
        idle: RefCell::default(),
        queued: RefCell::default(),
        outcome: RefCell::default(),
    });
    while let Some(next) = due.recv().await {
        dispatch(&pool, next);
    }
    let never_sent = pool.queued.borrow_mut().drain(..).count();
    pool.outcome.borrow_mut().never_sent += never_sent;
    let give_up = Instant::now() + LAST_ANSWERS_TIMEOUT;
    while pool.idle.borrow().len() < pool.outcome.borrow().connections && Instant::now() < give_up {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let mut outcome = pool.outcome.take();
    let unanswered = outcome.intended - outcome.answers.len() - outcome.failed - outcome.never_sent;
    if unanswered > 0 {
        outcome.record_failure(unanswered, "no answer");
    }
    outcome
}

/// Hands a request to an idle connection, a new one, or the queue, in this order.
fn dispatch(pool: &Rc<ConnectionPool>, mut due: DueRequest) {
    pool.outcome.borrow_mut().intended += 1;
    while let Some(idle) = pool.idle.borrow_mut().pop() {
        match idle.send(due) {
            Ok(()) => return,
            Err(back) => due = back,
        }
    }
    if pool.outcome.borrow().connections == pool.load.max_connections {
        return pool.queued.borrow_mut().push_back(due);
    }
    pool.outcome.borrow_mut().connections += 1;
    tokio::task::spawn_local(run_connection(Rc::clone(pool), due));
}

/// One place for a connection: it connects again where the server closes.
async fn run_connection(pool: Rc<ConnectionPool>, mut due: DueRequest) {
    let mut stream = None;
    let mut buffer = Vec::new();
    loop {
        match exchange(&pool, &mut stream, &mut buffer, due).await {
            Ok(answered) => pool.outcome.borrow_mut().answers.push(answered),
            Err(error) => pool.outcome.borrow_mut().record_failure(1, &error.to_string()),
        }
        due = if let Some(next) = pop_queued(&pool) {
            next
        } else {
            let (sender, receiver) = oneshot::channel();
            pool.idle.borrow_mut().push(sender);
            let Ok(next) = receiver.await else { return };
            next
        };
    }
}

fn pop_queued(pool: &ConnectionPool) -> Option<DueRequest> {
    let mut waiting = pool.queued.borrow_mut();
    while let Some(due) = waiting.pop_front() {
        if due.intended.elapsed() <= pool.load.connection_timeout {
            return Some(due);
        }
        pool.outcome.borrow_mut().never_sent += 1;
    }
    None
}

/// One request and its answer. A kept connection may have been closed meanwhile: then once more on a new one.
async fn exchange(
    pool: &ConnectionPool,
    kept: &mut Option<TcpStream>,
    buffer: &mut Vec<u8>,
    due: DueRequest,
) -> Result<TimedResponse> {
    let ask = &pool.load.requests[due.request_index];
    let reused = kept.is_some();
    let mut stream = match kept.take() {
        Some(stream) => stream,
        None => connect(&pool.load.address).await?,
    };
    let delay = due.intended.elapsed();
    let mut answer = send_and_read(&mut stream, buffer, &ask.bytes).await;
    if answer.is_err() && reused && buffer.is_empty() {
        stream = connect(&pool.load.address).await?;
        answer = send_and_read(&mut stream, buffer, &ask.bytes).await;
    }
    let (status, head, close) = answer?;
    let answered =
        TimedResponse { intended: due.intended - pool.start, delay, status, latency: due.intended.elapsed() };
    let body = &buffer[head..];
    if status == 200 && !body.windows(ask.expected.len()).any(|part| part == ask.expected) {
        pool.outcome.borrow_mut().record_wrong(body, &ask.expected);
    }
    if !close {
        *kept = Some(stream);
    }
    Ok(answered)
}

async fn connect(address: &str) -> Result<TcpStream> {
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// Writes a request and reads its answer into `buffer`: status, length of the head, and whether it is the last.
async fn send_and_read(stream: &mut TcpStream, buffer: &mut Vec<u8>, request: &[u8]) -> Result<(u16, usize, bool)> {
    buffer.clear();
    stream.write_all(request).await?;
    loop {
        if let Some(head) = parse_head(buffer)?
            && buffer.len() >= head.head_bytes + head.body_bytes
        {
            return Ok((head.status, head.head_bytes, head.close));
        }
        if stream.read_buf(buffer).await? == 0 {
            return Err(Error::from(ErrorKind::UnexpectedEof));
        }
    }
}
