//! A connection that does not wait for ever: every wait for its client has an end.
//!
//! hyper reads and writes through [`Paced`]. Its own timer would treat a connection that
//! rests between two requests like one that has sent half a head, and it knows none for writes.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Sleep;

use super::exchange::Exchange;
use super::framing::Framing;
use crate::config::Patience;
use crate::metrics::{CutOff, Metrics};

/// How long bytes that nobody wants are taken before a connection is closed.
///
/// Closing at once would reset the connection, and the client would lose the answer that says
/// why its body was refused.
const LINGER: Duration = Duration::from_secs(2);

/// A stream to a client, with time limits.
#[derive(Debug)]
pub struct Paced<S> {
    stream: S,
    patience: Patience,
    exchange: Arc<Exchange>,
    metrics: Arc<Metrics>,
    framing: Framing,
    /// The head that is being read, by number, and when it began.
    head: (u64, Instant),
    reading: Alarm,
    /// The request whose answer is being written, and when its client first made it wait.
    held_up: Option<(u64, Instant)>,
    writing: Alarm,
    lingering: Option<Instant>,
}

impl<S> Paced<S> {
    /// Watches over a new connection.
    #[must_use]
    pub fn new(stream: S, patience: Patience, exchange: Arc<Exchange>, metrics: Arc<Metrics>) -> Self {
        Self {
            stream,
            patience,
            exchange,
            metrics,
            framing: Framing::default(),
            head: (0, Instant::now()),
            reading: Alarm::default(),
            held_up: None,
            writing: Alarm::default(),
            lingering: None,
        }
    }

    /// When the wait for the client's next bytes ends, and what is waited for.
    fn read_deadline(&self) -> Option<(Instant, CutOff)> {
        if self.exchange.is_busy() {
            // The client waits for the server; a body has limits of its own.
            return None;
        }
        let idle_since = self.exchange.idle_since();
        if self.framing.in_head() {
            return Some((self.head.1.max(idle_since) + self.patience.header, CutOff::Head));
        }
        if self.exchange.requests() == 0 {
            return Some((idle_since + self.patience.first_byte, CutOff::Head));
        }
        Some((idle_since + self.patience.keep_alive, CutOff::KeepAlive))
    }

    fn follow(&mut self, bytes: &[u8]) {
        self.framing.follow(bytes);
        if self.framing.heads() != self.head.0 {
            self.head = (self.framing.heads(), Instant::now());
        }
        self.exchange.received(self.framing.messages());
    }

    /// An end for a wait on the client's side of a write.
    fn write_deadline(&mut self) -> Instant {
        self.exchange.write_stalled();
        let request = self.exchange.requests();
        let since = match self.held_up {
            Some((held_up, since)) if held_up == request => since,
            _ => Instant::now(),
        };
        self.held_up = Some((request, since));
        since + self.patience.write
    }

    fn give_up_writing(&mut self, cx: &mut Context<'_>) -> Poll<io::Error> {
        let deadline = self.write_deadline();
        ready!(self.writing.poll(deadline, cx));
        self.metrics.http.cut_off(CutOff::Write);
        Poll::Ready(io::ErrorKind::TimedOut.into())
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Paced<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let before = buffer.filled().len();
        if let Poll::Ready(read) = Pin::new(&mut this.stream).poll_read(cx, buffer) {
            this.follow(buffer.filled().get(before..).unwrap_or_default());
            return Poll::Ready(read);
        }
        let Some((deadline, why)) = this.read_deadline() else { return Poll::Pending };
        ready!(this.reading.poll(deadline, cx));
        this.metrics.http.cut_off(why);
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Paced<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match Pin::new(&mut self.stream).poll_write(cx, bytes) {
            Poll::Pending => self.give_up_writing(cx).map(Err),
            written @ Poll::Ready(_) => {
                self.exchange.write_progressed();
                written
            }
        }
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match Pin::new(&mut self.stream).poll_write_vectored(cx, bytes) {
            Poll::Pending => self.give_up_writing(cx).map(Err),
            written @ Poll::Ready(_) => {
                self.exchange.write_progressed();
                written
            }
        }
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        match Pin::new(&mut this.stream).poll_flush(cx) {
            Poll::Pending => return this.give_up_writing(cx).map(Err),
            Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
            Poll::Ready(Ok(())) => this.exchange.flushed(),
        }
        // hyper does not read again when an answer has ended: the wait that begins now needs its timer now.
        if let Some((deadline, _)) = this.read_deadline()
            && this.reading.poll(deadline, cx).is_ready()
        {
            cx.waker().wake_by_ref();
        }
        Poll::Ready(Ok(()))
    }

    /// Says that nothing more comes, and takes what its client still sends for a short time.
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if this.lingering.is_none() {
            match Pin::new(&mut this.stream).poll_shutdown(cx) {
                Poll::Pending => return this.give_up_writing(cx).map(Err),
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Ready(Ok(())) => {}
            }
        }
        let until = *this.lingering.get_or_insert_with(|| Instant::now() + LINGER);
        let mut unwanted = [0; 4_096];
        // A bounded number of reads in a row: the task gives way to others.
        for _ in 0..16 {
            let mut buffer = ReadBuf::new(&mut unwanted);
            match Pin::new(&mut this.stream).poll_read(cx, &mut buffer) {
                Poll::Ready(Ok(())) if !buffer.filled().is_empty() && Instant::now() < until => {
                    this.framing.follow(buffer.filled());
                }
                Poll::Ready(_) => return Poll::Ready(Ok(())),
                // All of it is there.
                Poll::Pending if this.framing.between() => return Poll::Ready(Ok(())),
                Poll::Pending => return this.reading.poll(until, cx).map(Ok),
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}

/// A timer for a deadline that moves.
///
/// Most waits end long before their deadline, and every request has several: a timer that is
/// armed early is only set anew when it rings too early.
#[derive(Debug, Default)]
struct Alarm(Option<Pin<Box<Sleep>>>);

impl Alarm {
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
