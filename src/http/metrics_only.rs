//! A listener with nothing but `/metrics`, for commands that are no server.

use axum::Router;
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::routing::get;
use tokio::net::TcpListener;

/// Answers `GET /metrics` with what `render` gives, to no end.
///
/// # Errors
/// If the listener cannot be used any more.
pub async fn serve(
    listener: TcpListener,
    render: impl Fn() -> Result<Vec<u8>, prometheus::Error> + Clone + Send + Sync + 'static,
) -> std::io::Result<()> {
    let answer = move || {
        let text = render();
        let kind = [(CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")];
        async move { text.map(|text| (kind, text)).map_err(|_| StatusCode::INTERNAL_SERVER_ERROR) }
    };
    let routes = Router::new().nest_service("/metrics", get(answer));
    axum::serve(listener, routes).await
}
