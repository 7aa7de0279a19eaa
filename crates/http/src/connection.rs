//! One connection: handshake, requests, and its end when the server stops.

use std::convert::Infallible;
use std::io;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::header::CONNECTION;
use axum::http::{HeaderValue, Request, Response};
use hyper::body::{Body as _, Incoming};
use hyper::server::conn::http1;
use hyper::service::{HttpService, service_fn};
use hyper_util::rt::TokioIo;
use predictd_metrics::{Metrics, TimeoutStage};
use predictd_platform::clock;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::sync::Notify;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_util::either::Either;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;

use super::buffer_sizes::MAX_BUFFER_BYTES;
use super::client_timeouts::TimeoutStream;
use super::connection_state::{ConnectionState, RequestGuard, TrackedBody};
use super::response_budget::ResponseBudget;
use super::response_reservation::ReservationHandle;
use super::state::App;
use super::tls::WatchedTlsConfig;
use crate::listeners::ClientStream;

/// Time for an answer to leave a connection that is being closed.
const FLUSH_TIMEOUT: Duration = Duration::from_millis(100);
/// A connection that is idle for longer than this ends when clients wait for a slot.
const EVICTABLE_IDLE_TIME: Duration = Duration::from_secs(1);

/// What the connections of one listener have in common.
#[derive(Clone)]
pub struct ConnectionHandler {
    /// Which listener, for the log.
    pub name: &'static str,
    /// The routes.
    pub router: Router,
    /// The server's state.
    pub app: App,
    /// The certificate, if the listener speaks TLS.
    pub tls: Option<WatchedTlsConfig>,
    /// Complete requests that have no answer.
    pub unanswered_requests: Arc<AtomicUsize>,
    /// Memory for the responses of this listener.
    pub budget: Arc<ResponseBudget>,
    /// Cancelled when connections must end.
    pub shutdown: CancellationToken,
    /// Notified when clients wait for a connection: idle ones end then.
    pub slot_pressure: Arc<Notify>,
}

/// Counts an open connection.
struct ConnectionCountGuard(Arc<Metrics>);

impl Drop for ConnectionCountGuard {
    fn drop(&mut self) {
        self.0.http.record_disconnect();
    }
}

impl ConnectionHandler {
    /// The handler of a listener without connections.
    #[must_use]
    pub fn new(name: &'static str, router: Router, app: &App, tls: Option<WatchedTlsConfig>) -> Self {
        Self {
            name,
            router,
            budget: Arc::clone(&app.limits.response_budget),
            app: app.clone(),
            tls,
            unanswered_requests: Arc::default(),
            shutdown: CancellationToken::new(),
            slot_pressure: Arc::default(),
        }
    }

    /// Serves a connection to its end, after a handshake if the listener speaks TLS.
    pub async fn serve(self, stream: ClientStream, peer: IpAddr) {
        let metrics = Arc::clone(&self.app.telemetry.metrics);
        metrics.http.record_connect();
        let _counted = ConnectionCountGuard(metrics);
        // Small answers must not wait for an acknowledgement of the one before.
        if let Either::Left(tcp) = &stream {
            tcp.set_nodelay(true).inspect_err(|error| tracing::debug!(%error, "TCP_NODELAY could not be set")).ok();
        }
        let served = match &self.tls {
            None => self.serve_http(stream, peer).await,
            Some(tls) => match self.handshake(tls, stream).await {
                Ok(stream) => self.serve_http(stream, peer).await,
                Err(error) => {
                    self.app.telemetry.metrics.http.record_timeout(TimeoutStage::Handshake);
                    tracing::debug!(%error, "TLS handshake failed");
                    return;
                }
            },
        };
        if let Err(error) = served {
            // The client disconnected or sent no valid HTTP.
            tracing::debug!(%error, "connection ended early");
        }
    }

    async fn handshake(&self, tls: &WatchedTlsConfig, stream: ClientStream) -> io::Result<TlsStream<ClientStream>> {
        let accepted = TlsAcceptor::from(tls.current()).accept(stream);
        tokio::select! {
            accepted = tokio::time::timeout(self.app.limits.client_timeouts.header, accepted) => accepted?,
            () = self.shutdown.cancelled() => Err(io::ErrorKind::ConnectionAborted.into()),
        }
    }

    async fn serve_http(self, stream: impl AsyncRead + AsyncWrite + Unpin, peer: IpAddr) -> hyper::Result<()> {
        let connection_state = ConnectionState::new(peer, Arc::clone(&self.unanswered_requests));
        let metrics = Arc::clone(&self.app.telemetry.metrics);
        let mut stream =
            TimeoutStream::new(stream, self.app.limits.client_timeouts, Arc::clone(&connection_state), metrics);
        // Not tower's: hyper calls this as soon as a head is complete.
        let service = service_fn(|request| handle_request(&self, connection_state.begin_request(), request));
        let served = {
            // A server without a clock sends no date (RFC 9110, section 6.6.1). hyper renders one all the same: crates/httpdate
            // has any time, where `HttpDate::from` of the registry's crate panics before 1970 and behind 9999.
            let mut builder = http1::Builder::new();
            builder.max_buf_size(MAX_BUFFER_BYTES).auto_date_header(clock::is_set());
            let connection = builder.serve_connection(TokioIo::new(&mut stream), service);
            self.drive(std::pin::pin!(connection), &connection_state).await
        };
        if served.as_ref().is_some_and(Result::is_ok) {
            // hyper does not close a connection whose client asked for an upgrade.
            stream.shutdown().await.ok();
        }
        served.unwrap_or(Ok(()))
    }

    /// Serves a connection until it ends. There is no outcome if the server ends it.
    async fn drive<I, S>(
        &self,
        mut connection: Pin<&mut http1::Connection<I, S>>,
        connection_state: &ConnectionState,
    ) -> Option<hyper::Result<()>>
    where
        I: hyper::rt::Read + hyper::rt::Write + Unpin,
        S: HttpService<Incoming, ResBody = TrackedBody, Error = Infallible>,
    {
        loop {
            tokio::select! {
                served = &mut connection => return Some(served),
                () = self.shutdown.cancelled() => break,
                () = self.slot_pressure.notified() => {
                    if connection_state.idle_duration() > EVICTABLE_IDLE_TIME {
                        return None;
                    }
                }
                () = connection_state.eviction.cancelled() => return self.record_eviction(),
            }
        }
        if connection_state.request_count() == 0 {
            // Its first request may be on its way, sent before the stop.
            tokio::select! {
                served = &mut connection => return Some(served),
                () = tokio::time::sleep(FLUSH_TIMEOUT) => {}
            }
        }
        connection.as_mut().graceful_shutdown();
        loop {
            tokio::select! {
                served = &mut connection => return Some(served),
                () = connection_state.eviction.cancelled() => return self.record_eviction(),
                () = tokio::time::sleep(FLUSH_TIMEOUT) => {}
            }
            if !connection_state.is_busy() {
                // A client that has not sent a whole head waits for nothing.
                return None;
            }
        }
    }

    /// The end of a connection whose memory others need: it has no outcome.
    fn record_eviction<T>(&self) -> Option<T> {
        self.app.telemetry.metrics.http.record_timeout(TimeoutStage::Write);
        None
    }
}

async fn handle_request(
    handler: &ConnectionHandler,
    guard: RequestGuard,
    mut request: Request<Incoming>,
) -> Result<Response<TrackedBody>, Infallible> {
    let has_body = !request.body().is_end_stream();
    // hyper reads a body of known length even if it is refused, but only one chunk.
    let has_known_length = request.body().size_hint().exact().is_some();
    let connection_state = Arc::clone(&guard.0);
    request.extensions_mut().insert(Arc::clone(&connection_state));
    connection_state.wait_until_flushed().await;
    let mut response: Response<Body> = handler.router.clone().oneshot(request).await?;
    // The next request of this client goes to another replica. Bytes after an unread body are no request.
    if handler.app.models.draining.load(Ordering::Relaxed)
        || (has_body && !connection_state.has_received_request(has_known_length))
    {
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    }
    let size = response.body().size_hint().exact();
    let reserved = response.extensions_mut().remove::<ReservationHandle>();
    let reservation = reserved.and_then(|reserved| reserved.shrink_to(size));
    if reservation.is_some() {
        handler.budget.register(&connection_state);
    }
    Ok(response.map(|body| guard.into_tracked_body(body, reservation)))
}
