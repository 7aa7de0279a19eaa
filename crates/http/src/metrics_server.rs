//! A listener for `/metrics` alone, for commands other than the server.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::routing::get;
use hyper::server::conn::http1;
use hyper_util::rt::TokioIo;
use hyper_util::service::TowerToHyperService;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::time::{sleep, timeout};

/// Connections at a time; others wait.
const MAX_CONNECTIONS: usize = 8;
/// Time of a connection: for one request, its answer included.
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(5);
/// Pause after a failed accept.
const ACCEPT_RETRY_DELAY: Duration = Duration::from_millis(100);

/// Answers `GET /metrics` with what `render` gives, to no end.
pub async fn serve(
    listener: TcpListener,
    render: impl Fn() -> Result<Vec<u8>, prometheus::Error> + Clone + Send + Sync + 'static,
) {
    let answer = move || {
        let text = render();
        let kind = [(CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")];
        async move { text.map(|text| (kind, text)).map_err(|_| StatusCode::INTERNAL_SERVER_ERROR) }
    };
    let routes = Router::new().nest_service("/metrics", get(answer));
    let slots = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    // It is never closed.
    while let Ok(slot) = Arc::clone(&slots).acquire_owned().await {
        let Ok((stream, _)) = listener.accept().await else {
            sleep(ACCEPT_RETRY_DELAY).await;
            continue;
        };
        let service = TowerToHyperService::new(routes.clone());
        _ = tokio::spawn(async move {
            let connection = http1::Builder::new().keep_alive(false).serve_connection(TokioIo::new(stream), service);
            // A silent client must not hold its slot.
            timeout(CONNECTION_TIMEOUT, connection).await.ok();
            drop(slot);
        });
    }
}
