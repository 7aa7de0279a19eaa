//! What the two ends of a connection must know of each other: the transport, which counts
//! time, and the request, which says what the time is spent on.

use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use axum::body::{Body, Bytes};
use hyper::body::{Frame, SizeHint};
use parking_lot::Mutex;
use tokio::sync::Notify;

use super::response_budget::Reservation;
use super::response_stream::PART;

/// No request.
const IDLE: u8 = 0;
/// A request whose body is not complete.
const RECEIVING: u8 = 1;
/// A request that is complete and has no answer.
const WORKING: u8 = 2;
/// An answer that is being made into bytes.
const SENDING: u8 = 3;
/// An answer of which some bytes may not have been taken by the system.
const FLUSHING: u8 = 4;

/// The exchange of requests and answers on one connection, one at a time.
#[derive(Debug)]
pub struct Exchange {
    peer: SocketAddr,
    opened: Instant,
    phase: AtomicU8,
    requests: AtomicU64,
    /// The last request that was received in full by the transport, by number.
    received: AtomicU64,
    /// Since `opened`, in nanoseconds.
    idle_since: AtomicU64,
    /// Complete requests without an answer, over all connections of the server.
    working: Arc<AtomicUsize>,
    /// True while a response has ended of which the system has not taken the last byte.
    unflushed: AtomicBool,
    flush: Notify,
    /// Memory of the response that is being written.
    reservation: Mutex<Option<Reservation>>,
    /// Told when the connection shall give its memory up.
    eviction: Notify,
    evicted: AtomicBool,
    /// True once the connection is among those that may hold memory.
    pub(super) listed: AtomicBool,
    /// Since when the client takes no bytes, in nanoseconds since `opened`; 0 while it does.
    stalled_since: AtomicU64,
}

impl Exchange {
    /// The exchange of a new connection from `peer`. `working` counts complete requests that have no answer.
    #[must_use]
    pub fn new(peer: SocketAddr, working: Arc<AtomicUsize>) -> Arc<Self> {
        Arc::new(Self {
            peer,
            opened: Instant::now(),
            phase: AtomicU8::new(IDLE),
            requests: AtomicU64::new(0),
            received: AtomicU64::new(0),
            idle_since: AtomicU64::new(0),
            working,
            unflushed: AtomicBool::new(false),
            flush: Notify::new(),
            reservation: Mutex::default(),
            eviction: Notify::new(),
            evicted: AtomicBool::new(false),
            listed: AtomicBool::new(false),
            stalled_since: AtomicU64::new(0),
        })
    }

    /// Address of the other end.
    #[must_use]
    pub fn peer(&self) -> IpAddr {
        self.peer.ip().to_canonical()
    }

    /// True from a request's head until the system has taken the last byte of its answer.
    #[must_use]
    pub fn is_busy(&self) -> bool {
        self.phase.load(Ordering::Relaxed) != IDLE
    }

    /// Requests that have begun so far.
    #[must_use]
    pub fn requests(&self) -> u64 {
        self.requests.load(Ordering::Relaxed)
    }

    /// When the last answer ended; the beginning of the connection if there was none.
    #[must_use]
    pub fn idle_since(&self) -> Instant {
        self.opened + Duration::from_nanos(self.idle_since.load(Ordering::Relaxed))
    }

    /// How long there has been no request; zero while there is one.
    #[must_use]
    pub fn idle_for(&self) -> Duration {
        if self.is_busy() { Duration::ZERO } else { self.idle_since().elapsed() }
    }

    /// The transport has received `requests` requests in full.
    pub fn received(&self, requests: u64) {
        self.received.store(requests, Ordering::Relaxed);
    }

    /// True if nothing of this request is on its way: its handler has all of it, or, if `ready` counts, the transport.
    #[must_use]
    pub fn is_received(&self, ready: bool) -> bool {
        let ready = ready && self.received.load(Ordering::Relaxed) >= self.requests();
        ready || self.phase.load(Ordering::Relaxed) == WORKING
    }

    /// The system has taken all bytes: if an answer has ended, this is when.
    pub fn flushed(&self) {
        self.write_progressed();
        if self.unflushed.swap(false, Ordering::Relaxed) {
            *self.reservation.lock() = None;
            self.flush.notify_one();
        }
        if self.phase.load(Ordering::Relaxed) == FLUSHING {
            self.idle_since.store(self.now(), Ordering::Relaxed);
            self.phase.store(IDLE, Ordering::Relaxed);
        }
    }

    /// Waits until the system has taken all bytes of the response before.
    ///
    /// A client that sends requests without reading would fill the memory with responses otherwise.
    pub async fn wait_flushed(&self) {
        while self.unflushed.load(Ordering::Relaxed) {
            self.flush.notified().await;
        }
    }

    /// The system takes no bytes now: its client does not read.
    pub fn write_stalled(&self) {
        if self.stalled_since.load(Ordering::Relaxed) == 0 {
            self.stalled_since.store(self.now().max(1), Ordering::Relaxed);
        }
    }

    /// The system has taken bytes.
    pub fn write_progressed(&self) {
        self.stalled_since.store(0, Ordering::Relaxed);
    }

    /// How long the client has taken no byte of a response that holds memory; nothing if it does, or holds none.
    #[must_use]
    pub fn stalled_for(&self) -> Option<Duration> {
        let since = self.stalled_since.load(Ordering::Relaxed);
        if since == 0 || self.evicted.load(Ordering::Relaxed) || self.reservation.lock().is_none() {
            return None;
        }
        Some(Duration::from_nanos(self.now().saturating_sub(since)))
    }

    /// Others need the memory of this connection more.
    pub fn evict(&self) {
        self.evicted.store(true, Ordering::Relaxed);
        self.eviction.notify_one();
    }

    /// Waits until the connection shall end.
    pub async fn wait_evicted(&self) {
        self.eviction.notified().await;
    }

    /// Nanoseconds since the connection was opened.
    fn now(&self) -> u64 {
        u64::try_from(self.opened.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }

    /// A request's head is there.
    #[must_use]
    pub fn begin(self: &Arc<Self>) -> Turn {
        self.requests.fetch_add(1, Ordering::Relaxed);
        self.phase.store(RECEIVING, Ordering::Relaxed);
        Turn(Arc::clone(self))
    }

    /// The request's body is complete: what it waits for now is the server.
    pub fn body_complete(&self) {
        if self.phase.swap(WORKING, Ordering::Relaxed) != WORKING {
            self.working.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn leave(&self, next: u8) {
        if self.phase.swap(next, Ordering::Relaxed) == WORKING {
            self.working.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

/// One request and its answer. Dropped when the answer is in the transport's hands or its client left.
#[derive(Debug)]
pub struct Turn(Arc<Exchange>);

impl Turn {
    /// The answer is there, with its memory: it ends this turn when its last byte was taken.
    #[must_use]
    pub fn answer(self, body: Body, reservation: Option<Reservation>) -> Answer {
        self.0.leave(SENDING);
        if reservation.is_some() {
            *self.0.reservation.lock() = reservation;
        }
        Answer { body, rest: Bytes::new(), _turn: self }
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        // Its last bytes may still be here.
        self.0.unflushed.store(true, Ordering::Relaxed);
        self.0.leave(FLUSHING);
    }
}

/// The body of an answer, with the turn that it ends.
#[derive(Debug)]
pub struct Answer {
    body: Body,
    /// What is left of a large frame: hyper gets it in parts, and takes the next one when it has written the last.
    rest: Bytes,
    _turn: Turn,
}

impl hyper::body::Body for Answer {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        if self.rest.is_empty() {
            match ready!(Pin::new(&mut self.body).poll_frame(cx)).map(|frame| frame.map(Frame::into_data)) {
                Some(Ok(Ok(data))) => self.rest = data,
                Some(Ok(Err(other))) => return Poll::Ready(Some(Ok(other))),
                Some(Err(error)) => return Poll::Ready(Some(Err(error))),
                None => return Poll::Ready(None),
            }
        }
        let length = self.rest.len().min(PART);
        Poll::Ready(Some(Ok(Frame::data(self.rest.split_to(length)))))
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let body = self.body.size_hint();
        let rest = self.rest.len() as u64;
        let mut hint = SizeHint::new();
        if let Some(upper) = body.upper() {
            hint.set_upper(upper + rest);
        }
        hint.set_lower(body.lower() + rest);
        hint
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flushed_connection_is_not_stalled() {
        let exchange = Exchange::new(([127, 0, 0, 1], 1).into(), Arc::default());
        exchange.write_stalled();
        assert_ne!(exchange.stalled_since.load(Ordering::Relaxed), 0);
        exchange.flushed();
        assert_eq!(exchange.stalled_since.load(Ordering::Relaxed), 0);
    }
}
