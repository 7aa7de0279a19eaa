//! One connection: handshake, requests, and its end when the server stops.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::header::CONNECTION;
use axum::http::{HeaderValue, Request, Response};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper_util::rt::TokioIo;
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;

use super::App;
use super::exchange::{Answer, Exchange};
use super::paced::Paced;
use super::tls::Tls;
use crate::metrics::CutOff;

/// Time for an answer to leave a connection that is being closed.
const FLUSH_TIME: Duration = Duration::from_millis(100);
/// Bytes of one connection that wait to be read or written: room for the largest head that is refused politely.
const BUFFER: usize = 64 << 10;

/// What the connections of one listener have in common.
#[derive(Debug, Clone)]
pub struct Front {
    /// Which listener, for the log.
    pub name: &'static str,
    /// The routes.
    pub router: Router,
    /// The server's state.
    pub app: Arc<App>,
    /// The certificate, if the listener speaks TLS.
    pub tls: Option<Tls>,
    /// Complete requests that have no answer.
    pub working: Arc<AtomicUsize>,
    /// Told when connections shall end.
    pub close: CancellationToken,
}

impl Front {
    /// The front of a listener that nobody has connected to.
    #[must_use]
    pub fn new(name: &'static str, router: Router, app: &Arc<App>, tls: Option<Tls>) -> Self {
        Self { name, router, app: Arc::clone(app), tls, working: Arc::default(), close: CancellationToken::new() }
    }

    /// Serves a connection to its end.
    pub async fn serve(self, stream: TcpStream, peer: SocketAddr) {
        let metrics = Arc::clone(&self.app.metrics);
        metrics.connected();
        // Small answers must not wait for an acknowledgement of the one before.
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "a connection keeps Nagle's delay");
        }
        let served = match self.tls.clone() {
            None => self.talk(stream, peer).await,
            Some(tls) => match self.handshake(&tls, stream).await {
                Ok(stream) => self.talk(stream, peer).await,
                Err(error) => {
                    metrics.cut_off(CutOff::Handshake);
                    tracing::debug!(%error, "a TLS handshake failed");
                    Ok(())
                }
            },
        };
        if let Err(error) = served {
            // A client that leaves or talks nonsense: its business.
            tracing::debug!(%error, "a connection ended early");
        }
        metrics.disconnected();
    }

    async fn handshake(&self, tls: &Tls, stream: TcpStream) -> io::Result<impl AsyncRead + AsyncWrite + Unpin + use<>> {
        let accepted = TlsAcceptor::from(tls.current()).accept(stream);
        tokio::select! {
            accepted = tokio::time::timeout(self.app.patience.header, accepted) => accepted?,
            () = self.close.cancelled() => Err(io::ErrorKind::ConnectionAborted.into()),
        }
    }

    async fn talk(self, stream: impl AsyncRead + AsyncWrite + Unpin, peer: SocketAddr) -> hyper::Result<()> {
        let Self { router, app, working, close, .. } = self;
        let exchange = Exchange::new(peer, working);
        let paced = Paced::new(stream, app.patience, Arc::clone(&exchange), Arc::clone(&app.metrics));
        let service = {
            let exchange = Arc::clone(&exchange);
            tower::service_fn(move |request| answer(router.clone(), Arc::clone(&app), Arc::clone(&exchange), request))
        };
        let connection = http1::Builder::new()
            .max_buf_size(BUFFER)
            .serve_connection(TokioIo::new(paced), TowerToHyperService::new(service));
        let mut connection = std::pin::pin!(connection);
        tokio::select! {
            served = &mut connection => return served,
            () = close.cancelled() => connection.as_mut().graceful_shutdown(),
        }
        loop {
            tokio::select! {
                served = &mut connection => return served,
                // A client that has not sent a whole head waits for nothing.
                () = tokio::time::sleep(FLUSH_TIME), if !exchange.is_busy() => return Ok(()),
                // Looks again: a request may have been answered meanwhile.
                () = tokio::time::sleep(2 * FLUSH_TIME) => {}
            }
        }
    }
}

async fn answer(
    router: Router,
    app: Arc<App>,
    exchange: Arc<Exchange>,
    mut request: Request<Incoming>,
) -> Result<Response<Answer>, std::convert::Infallible> {
    let turn = exchange.begin();
    request.extensions_mut().insert(exchange);
    let mut response: Response<Body> = router.oneshot(request).await?;
    if app.draining.load(Ordering::Relaxed) {
        // The next request of this client goes to somebody who stays.
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    }
    Ok(response.map(|body| turn.answer(body)))
}
