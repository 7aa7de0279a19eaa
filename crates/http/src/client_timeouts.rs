//! Time limits for every wait of a connection for its client.
//!
//! hyper reads and writes through [`TimeoutStream`]. Its own timer would treat a connection that
//! rests between two requests like one that has sent half a head, and it knows none for writes.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use predictd_metrics::{Metrics, TimeoutStage};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Sleep;

use super::connection_state::ConnectionState;
use super::framing::Framing;
use crate::settings::ClientTimeouts;

/// How long unread bytes are discarded before a connection is closed.
///
/// Closing at once would reset the connection, and the client would lose the answer that says
/// why its body was refused.
const LINGER_TIMEOUT: Duration = Duration::from_secs(2);

/// A stream to a client, with time limits.
#[derive(Debug)]
pub struct TimeoutStream<S> {
    stream: S,
    timeouts: ClientTimeouts,
    connection_state: Arc<ConnectionState>,
    metrics: Arc<Metrics>,
    framing: Framing,
    /// The head that is being read, by number, and when it began.
    current_message: (u64, Instant),
    read_timer: LazyTimer,
    /// The request whose answer is being written, and when its client first made it wait.
    write_stall: Option<(u64, Instant)>,
    write_timer: LazyTimer,
    linger_until: Option<Instant>,
}

impl<S> TimeoutStream<S> {
    /// Watches over a new connection.
    #[must_use]
    pub fn new(
        stream: S,
        timeouts: ClientTimeouts,
        connection_state: Arc<ConnectionState>,
        metrics: Arc<Metrics>,
    ) -> Self {
        Self {
            stream,
            timeouts,
            connection_state,
            metrics,
            framing: Framing::default(),
            current_message: (0, Instant::now()),
            read_timer: LazyTimer::default(),
            write_stall: None,
            write_timer: LazyTimer::default(),
            linger_until: None,
        }
    }

    /// When the wait for the client's next bytes ends, and what is waited for.
    fn read_deadline(&self) -> Option<(Instant, TimeoutStage)> {
        if self.connection_state.is_busy() {
            // The client waits for the server; a body has limits of its own.
            return None;
        }
        let idle_since = self.connection_state.idle_since();
        if self.framing.is_in_headers() {
            return Some((self.current_message.1.max(idle_since) + self.timeouts.header, TimeoutStage::Head));
        }
        if self.connection_state.request_count() == 0 {
            return Some((idle_since + self.timeouts.first_byte, TimeoutStage::Head));
        }
        Some((idle_since + self.timeouts.keep_alive, TimeoutStage::KeepAlive))
    }

    fn track_read(&mut self, bytes: &[u8]) {
        self.framing.feed(bytes);
        if self.framing.message_starts != self.current_message.0 {
            self.current_message = (self.framing.message_starts, Instant::now());
        }
        self.connection_state.set_received_requests(self.framing.complete_messages());
    }

    /// The outcome of a write; one that its client holds up has an end.
    fn track_write<T>(&mut self, written: Poll<io::Result<T>>, cx: &mut Context<'_>) -> Poll<io::Result<T>> {
        if written.is_ready() {
            self.connection_state.mark_write_progress();
            return written;
        }
        self.connection_state.mark_write_stalled();
        let request = self.connection_state.request_count();
        let since = match self.write_stall {
            Some((held_up, since)) if held_up == request => since,
            _ => Instant::now(),
        };
        self.write_stall = Some((request, since));
        ready!(self.write_timer.poll(since + self.timeouts.write, cx));
        self.metrics.http.record_timeout(TimeoutStage::Write);
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for TimeoutStream<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let before = buffer.filled().len();
        if let Poll::Ready(read) = Pin::new(&mut this.stream).poll_read(cx, buffer) {
            this.track_read(buffer.filled().get(before..).unwrap_or_default());
            return Poll::Ready(read);
        }
        let Some((deadline, why)) = this.read_deadline() else { return Poll::Pending };
        ready!(this.read_timer.poll(deadline, cx));
        this.metrics.http.record_timeout(why);
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for TimeoutStream<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.track_write(written, cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(cx, bytes);
        self.track_write(written, cx)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let flushed = Pin::new(&mut this.stream).poll_flush(cx);
        ready!(this.track_write(flushed, cx))?;
        this.connection_state.mark_flushed();
        // hyper does not read again when an answer has ended: the wait that begins now needs its timer now.
        if let Some((deadline, _)) = this.read_deadline()
            && this.read_timer.poll(deadline, cx).is_ready()
        {
            cx.waker().wake_by_ref();
        }
        Poll::Ready(Ok(()))
    }

    /// Says that nothing more comes, and takes what its client still sends for a short time.
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if this.linger_until.is_none() {
            let ended = Pin::new(&mut this.stream).poll_shutdown(cx);
            ready!(this.track_write(ended, cx))?;
        }
        let until = *this.linger_until.get_or_insert_with(|| Instant::now() + LINGER_TIMEOUT);
        let mut unwanted = [0; 4_096];
        // A bounded number of reads in a row: the task gives way to others.
        for _ in 0..16 {
            let mut buffer = ReadBuf::new(&mut unwanted);
            match Pin::new(&mut this.stream).poll_read(cx, &mut buffer) {
                Poll::Ready(Ok(())) if !buffer.filled().is_empty() && Instant::now() < until => {
                    this.framing.feed(buffer.filled());
                }
                Poll::Ready(_) => return Poll::Ready(Ok(())),
                // All of it is there.
                Poll::Pending if this.framing.is_between_messages() => return Poll::Ready(Ok(())),
                Poll::Pending => return this.read_timer.poll(until, cx).map(Ok),
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}

/// A timer for a deadline that moves.
///
/// Most waits end long before their deadline, and every request has several: a timer that is
/// armed early is only set again when it fires too early.
#[derive(Debug, Default)]
struct LazyTimer(Option<Pin<Box<Sleep>>>);

impl LazyTimer {
    /// Ready once `deadline` has passed.
    fn poll(&mut self, deadline: Instant, cx: &mut Context<'_>) -> Poll<()> {
        let sleep = self.0.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(deadline.into())));
        if sleep.deadline() > deadline.into() {
            sleep.as_mut().reset(deadline.into());
        }
        loop {
            ready!(sleep.as_mut().poll(cx));
            if Instant::now() >= deadline {
                return Poll::Ready(());
            }
            sleep.as_mut().reset(deadline.into());
        }
    }
}
