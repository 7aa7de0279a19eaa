//! HTTP: the only place with axum, JSON and status codes.
//!
//! - [`predict`], [`batch`], [`models`], [`probes`], [`docs`]: a handler with its wire types
//! - [`answer`]: the wire form of one prediction, used by both prediction routes
//! - [`body`]: content type, size, JSON, field checks: every refusal before a handler runs
//! - [`deadline`]: the time a client allows
//! - [`observe`]: request id, metrics, the log line, problem details
//! - [`error`]: the one table of errors
//! - [`serve`]: connections and shutdown

#![expect(
    clippy::missing_errors_doc,
    reason = "a handler's comment is its description in the API; `error` lists what can go wrong"
)]

pub mod answer;
pub mod batch;
pub mod body;
pub mod deadline;
pub mod docs;
pub mod error;
pub mod models;
pub mod observe;
pub mod predict;
pub mod probes;
pub mod serve;

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use axum::Router;
use axum::middleware::{from_fn, from_fn_with_state};
use tower_http::catch_panic::CatchPanicLayer;
use utoipa::OpenApi;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::config::Limits;
use crate::engine::Engine;
use crate::experiments::receipts::Receipts;
use crate::metrics::Metrics;
use crate::registry::Registry;
use error::{ApiError, Code};

/// What handlers work with.
#[derive(Debug)]
pub struct App {
    /// Admits texts to models.
    pub engine: Engine,
    /// Knows the models.
    pub registry: Arc<Registry>,
    /// Seals prediction ids.
    pub receipts: Receipts,
    /// Limits of requests.
    pub limits: Limits,
    /// Counts events.
    pub metrics: Arc<Metrics>,
    /// Set when the server was told to stop: it is not ready any more.
    pub draining: AtomicBool,
}

/// Every route.
pub fn router(app: Arc<App>) -> Router {
    let (router, api) = OpenApiRouter::with_openapi(docs::Description::openapi())
        .merge(with_body(&app))
        .routes(routes!(models::list))
        .routes(routes!(models::show))
        .routes(routes!(probes::health))
        .routes(routes!(probes::livez))
        .routes(routes!(probes::readyz))
        .routes(routes!(probes::metrics))
        .split_for_parts();
    let router = router.merge(docs::routes(&api));
    layers(router, app)
}

/// The routes that take a body, behind the check of its head: a refused body is not read.
fn with_body(app: &Arc<App>) -> OpenApiRouter<Arc<App>> {
    OpenApiRouter::new()
        .routes(routes!(predict::predict))
        .routes(routes!(batch::batch_predict))
        .route_layer(from_fn_with_state(Arc::clone(app), body::check_head))
}

/// Every layer over all routes, innermost first.
fn layers(router: Router<Arc<App>>, app: Arc<App>) -> Router {
    router
        .fallback(async || ApiError::new(Code::NotFound, "There is no such route; GET /docs lists them."))
        .method_not_allowed_fallback(async || {
            ApiError::new(
                Code::MethodNotAllowed,
                "This route does not answer to this method; the Allow header lists those it does.",
            )
        })
        // Inside `observe`, so that a panic is counted, logged and answered like any other error.
        .layer(CatchPanicLayer::custom(observe::OnPanic(Arc::clone(&app.metrics))))
        .layer(from_fn_with_state(Arc::clone(&app), observe::observe))
        // Outermost, so that every answer has them, errors too.
        .layer(from_fn(observe::security_headers))
        .with_state(app)
}
