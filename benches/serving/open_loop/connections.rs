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

use super::{Answered, Due, LAST_ANSWERS, Load, Outcome};
use crate::answer::head;

/// What all connections share. Nothing holds a borrow over an await.
struct Pool {
    load: Load,
    start: Instant,
    /// Connections without a request; the one used last is taken first.
    idle: RefCell<Vec<oneshot::Sender<Due>>>,
    waiting: RefCell<VecDeque<Due>>,
    outcome: RefCell<Outcome>,
}

/// Sends what becomes due until there is no more, and waits for the answers.
pub(super) async fn serve(load: Load, start: Instant, due: &mut Receiver<Due>) -> Outcome {
    let pool = Rc::new(Pool {
        load,
        start,
        idle: RefCell::default(),
        waiting: RefCell::default(),
        outcome: RefCell::default(),
    });
    while let Some(next) = due.recv().await {
        give(&pool, next);
    }
    let never_sent = pool.waiting.borrow_mut().drain(..).count();
    pool.outcome.borrow_mut().never_sent += never_sent;
    let give_up = Instant::now() + LAST_ANSWERS;
    while pool.idle.borrow().len() < pool.outcome.borrow().connections && Instant::now() < give_up {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let mut outcome = pool.outcome.take();
    let unanswered = outcome.intended - outcome.answers.len() - outcome.failed - outcome.never_sent;
    if unanswered > 0 {
        outcome.fail(unanswered, "no answer");
    }
    outcome
}

/// Hands a request to an idle connection, a new one, or the queue, in this order.
fn give(pool: &Rc<Pool>, mut due: Due) {
    pool.outcome.borrow_mut().intended += 1;
    while let Some(idle) = pool.idle.borrow_mut().pop() {
        match idle.send(due) {
            Ok(()) => return,
            Err(back) => due = back,
        }
    }
    if pool.outcome.borrow().connections == pool.load.max_connections {
        return pool.waiting.borrow_mut().push_back(due);
    }
    pool.outcome.borrow_mut().connections += 1;
    tokio::task::spawn_local(connection(Rc::clone(pool), due));
}

/// One place for a connection: it connects again where the server closes.
async fn connection(pool: Rc<Pool>, mut due: Due) {
    let (mut stream, mut buffer) = (None, Vec::new());
    loop {
        match exchange(&pool, &mut stream, &mut buffer, due).await {
            Ok(answered) => pool.outcome.borrow_mut().answers.push(answered),
            Err(error) => pool.outcome.borrow_mut().fail(1, &error.to_string()),
        }
        due = if let Some(next) = next_waiting(&pool) {
            next
        } else {
            let (sender, receiver) = oneshot::channel();
            pool.idle.borrow_mut().push(sender);
            let Ok(next) = receiver.await else { return };
            next
        };
    }
}

fn next_waiting(pool: &Pool) -> Option<Due> {
    let mut waiting = pool.waiting.borrow_mut();
    while let Some(due) = waiting.pop_front() {
        if due.intended.elapsed() <= pool.load.patience {
            return Some(due);
        }
        pool.outcome.borrow_mut().never_sent += 1;
    }
    None
}

/// One request and its answer. A kept connection may have been closed meanwhile: then once more on a new one.
async fn exchange(pool: &Pool, kept: &mut Option<TcpStream>, buffer: &mut Vec<u8>, due: Due) -> Result<Answered> {
    let ask = &pool.load.asks[due.ask];
    let reused = kept.is_some();
    let mut stream = match kept.take() {
        Some(stream) => stream,
        None => connect(&pool.load.address).await?,
    };
    let delay = due.intended.elapsed();
    let mut answer = talk(&mut stream, buffer, &ask.request).await;
    if answer.is_err() && reused && buffer.is_empty() {
        stream = connect(&pool.load.address).await?;
        answer = talk(&mut stream, buffer, &ask.request).await;
    }
    let (status, head, close) = answer?;
    let answered = Answered { intended: due.intended - pool.start, delay, status, latency: due.intended.elapsed() };
    let body = &buffer[head..];
    if status == 200 && !body.windows(ask.right.len()).any(|part| part == ask.right) {
        pool.outcome.borrow_mut().wrong_answer(body, &ask.right);
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
async fn talk(stream: &mut TcpStream, buffer: &mut Vec<u8>, request: &[u8]) -> Result<(u16, usize, bool)> {
    buffer.clear();
    stream.write_all(request).await?;
    loop {
        if let Some(head) = head(buffer)?
            && buffer.len() >= head.length + head.body
        {
            return Ok((head.status, head.length, head.close));
        }
        if stream.read_buf(buffer).await? == 0 {
            return Err(Error::from(ErrorKind::UnexpectedEof));
        }
    }
}
