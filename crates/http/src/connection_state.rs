//! What the transport and the request of a connection share: the transport measures time, the request says what it is
//! spent on.

use std::net::{IpAddr, Ipv4Addr};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use axum::body::{Body, Bytes};
use axum::extract::Request;
use hyper::body::{Frame, SizeHint};
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::buffer_sizes::PART_BYTES;
use super::response_reservation::Reservation;

/// No request.
const IDLE: u8 = 0;
/// A request whose body is not complete.
const RECEIVING: u8 = 1;
/// A request that is complete and has no answer.
const PROCESSING: u8 = 2;
/// An answer that is being made into bytes.
const SENDING: u8 = 3;
/// An answer of which some bytes may not have been taken by the system.
const FLUSHING: u8 = 4;

/// The state of one connection, which has one request at a time.
#[derive(Debug)]
pub struct ConnectionState {
    peer: IpAddr,
    opened_at: Instant,
    request_state: AtomicU8,
    request_count: AtomicU64,
    /// The last request that was received in full by the transport, by number.
    received_requests: AtomicU64,
    /// Since `opened`, in nanoseconds.
    idle_since_nanos: AtomicU64,
    /// Complete requests without an answer, over all connections of the server.
    unanswered_requests: Arc<AtomicUsize>,
    /// True while a response has ended of which the system has not taken the last byte.
    is_unflushed: AtomicBool,
    flush_notify: Notify,
    /// Memory of the response that is being written.
    reservation: Mutex<Option<Reservation>>,
    /// Cancelled when others need the memory of this connection more: it shall end.
    pub eviction: CancellationToken,
    /// True once the connection is among those that may hold memory.
    pub(super) is_registered: AtomicBool,
    /// Since when the client takes no bytes, in nanoseconds since `opened`; 0 while it does.
    stalled_since_nanos: AtomicU64,
}

impl ConnectionState {
    /// The state of a new connection from `peer`. `unanswered_requests` counts complete requests without an answer.
    #[must_use]
    pub fn new(peer: IpAddr, unanswered_requests: Arc<AtomicUsize>) -> Arc<Self> {
        Arc::new(Self {
            peer: peer.to_canonical(),
            opened_at: Instant::now(),
            request_state: AtomicU8::new(IDLE),
            request_count: AtomicU64::new(0),
            received_requests: AtomicU64::new(0),
            idle_since_nanos: AtomicU64::new(0),
            unanswered_requests,
            is_unflushed: AtomicBool::new(false),
            flush_notify: Notify::new(),
            reservation: Mutex::default(),
            eviction: CancellationToken::new(),
            is_registered: AtomicBool::new(false),
            stalled_since_nanos: AtomicU64::new(0),
        })
    }

    /// True from a request's head until the system has taken the last byte of its answer.
    #[must_use]
    pub fn is_busy(&self) -> bool {
        self.request_state.load(Relaxed) != IDLE
    }

    /// Requests that have begun so far.
    #[must_use]
    pub fn request_count(&self) -> u64 {
        self.request_count.load(Relaxed)
    }

    /// When the last answer ended; the beginning of the connection if there was none.
    #[must_use]
    pub fn idle_since(&self) -> Instant {
        self.opened_at + Duration::from_nanos(self.idle_since_nanos.load(Relaxed))
    }

    /// How long there has been no request; zero while there is one.
    #[must_use]
    pub fn idle_duration(&self) -> Duration {
        if self.is_busy() { Duration::ZERO } else { self.idle_since().elapsed() }
    }

    /// The transport has received `requests` requests in full.
    pub fn set_received_requests(&self, requests: u64) {
        self.received_requests.store(requests, Relaxed);
    }

    /// True if nothing of this request is on its way: its handler has all of it, or, if `in_transport`, the transport.
    #[must_use]
    pub fn has_received_request(&self, in_transport: bool) -> bool {
        let received = in_transport && self.received_requests.load(Relaxed) >= self.request_count();
        received || self.request_state.load(Relaxed) == PROCESSING
    }

    /// The system has taken all bytes: if an answer has ended, this is when.
    pub fn mark_flushed(&self) {
        self.mark_write_progress();
        if self.is_unflushed.swap(false, Relaxed) {
            *self.reservation.lock() = None;
            self.flush_notify.notify_one();
        }
        if self.request_state.load(Relaxed) == FLUSHING {
            self.idle_since_nanos.store(self.elapsed_nanos(), Relaxed);
            self.request_state.store(IDLE, Relaxed);
        }
    }

    /// Waits until the system has taken all bytes of the response before.
    ///
    /// A client that sends requests without reading would fill the memory with responses otherwise.
    pub async fn wait_until_flushed(&self) {
        while self.is_unflushed.load(Relaxed) {
            self.flush_notify.notified().await;
        }
    }

    /// The system takes no bytes now: its client does not read.
    pub fn mark_write_stalled(&self) {
        self.stalled_since_nanos.compare_exchange(0, self.elapsed_nanos().max(1), Relaxed, Relaxed).ok();
    }

    /// The system has taken bytes.
    pub fn mark_write_progress(&self) {
        self.stalled_since_nanos.store(0, Relaxed);
    }

    /// How long the client has taken no byte of a response that holds memory; nothing if it does, or holds none.
    #[must_use]
    pub fn stall_duration(&self) -> Option<Duration> {
        let since = self.stalled_since_nanos.load(Relaxed);
        if since == 0 || self.eviction.is_cancelled() || self.reservation.lock().is_none() {
            return None;
        }
        Some(Duration::from_nanos(self.elapsed_nanos().saturating_sub(since)))
    }

    /// Nanoseconds since the connection was opened.
    fn elapsed_nanos(&self) -> u64 {
        u64::try_from(self.opened_at.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }

    /// A request's head is there.
    #[must_use]
    pub fn begin_request(self: &Arc<Self>) -> RequestGuard {
        self.request_count.fetch_add(1, Relaxed);
        self.request_state.store(RECEIVING, Relaxed);
        RequestGuard(Arc::clone(self))
    }

    /// The request's body is complete: the client waits for the server from here on.
    pub fn mark_body_complete(&self) {
        if self.request_state.swap(PROCESSING, Relaxed) != PROCESSING {
            self.unanswered_requests.fetch_add(1, Relaxed);
        }
    }

    fn set_request_state(&self, next: u8) {
        if self.request_state.swap(next, Relaxed) == PROCESSING {
            self.unanswered_requests.fetch_sub(1, Relaxed);
        }
    }
}

/// Address of the other end of a request's connection; unspecified where there is no connection.
#[must_use]
pub fn peer_address(request: &Request) -> IpAddr {
    let connection_state = request.extensions().get::<Arc<ConnectionState>>();
    connection_state.map_or(Ipv4Addr::UNSPECIFIED.into(), |connection_state| connection_state.peer)
}

/// One request and its answer. Dropped when the transport has the whole answer, or the client has disconnected.
#[derive(Debug)]
pub struct RequestGuard(pub Arc<ConnectionState>);

impl RequestGuard {
    /// Makes the body of the answer, with its memory. The request ends when the system has taken the last byte.
    #[must_use]
    pub fn into_tracked_body(self, body: Body, reservation: Option<Reservation>) -> TrackedBody {
        self.0.set_request_state(SENDING);
        if reservation.is_some() {
            *self.0.reservation.lock() = reservation;
        }
        TrackedBody { body, remaining: Bytes::new(), _guard: self }
    }
}

impl Drop for RequestGuard {
    fn drop(&mut self) {
        // The transport may still hold the last bytes.
        self.0.is_unflushed.store(true, Relaxed);
        self.0.set_request_state(FLUSHING);
    }
}

/// The body of an answer, with the request that it ends.
#[derive(Debug)]
pub struct TrackedBody {
    body: Body,
    /// What is left of a large frame: hyper gets it in parts, and takes the next one when it has written the last.
    remaining: Bytes,
    _guard: RequestGuard,
}

impl hyper::body::Body for TrackedBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        if self.remaining.is_empty() {
            let polled = ready!(Pin::new(&mut self.body).poll_frame(cx));
            let Some(frame) = polled.transpose()? else { return Poll::Ready(None) };
            match frame.into_data() {
                Ok(data) => self.remaining = data,
                Err(trailers) => return Poll::Ready(Some(Ok(trailers))),
            }
        }
        let length = self.remaining.len().min(PART_BYTES);
        Poll::Ready(Some(Ok(Frame::data(self.remaining.split_to(length)))))
    }

    fn is_end_stream(&self) -> bool {
        self.remaining.is_empty() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let mut hint = self.body.size_hint();
        let rest = self.remaining.len() as u64;
        if let Some(upper) = hint.upper() {
            hint.set_upper(upper + rest);
        }
        hint.set_lower(hint.lower() + rest);
        hint
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connection_state_flushed_is_not_stalled() {
        let connection_state = ConnectionState::new([127, 0, 0, 1].into(), Arc::default());
        connection_state.mark_write_stalled();
        assert_ne!(connection_state.stalled_since_nanos.load(Relaxed), 0);
        connection_state.mark_flushed();
        assert_eq!(connection_state.stalled_since_nanos.load(Relaxed), 0);
    }
}
