//! The routes of both listeners, and the layers over them.

use std::any::Any;
use std::sync::Arc;

use axum::Router;
use axum::middleware::{from_fn, from_fn_with_state};
use axum::response::IntoResponse;
use predictd_metrics::PanicSite;
use tower::util::option_layer;
use tower_http::catch_panic::CatchPanicLayer;
use tower_http::cors::CorsLayer;
use utoipa_axum::routes;

use super::error::{ApiError, Code};
use super::response_budget::{self, ResponseBudget};
use super::route_table::RouteTable;
use super::state::App;
use super::{
    batch, cors, drift, experiments, feedback, health, log_filter, models, observability, predict, registry,
    request_limits,
};
use crate::api_keys::Scope;

/// Every route of the data listener.
pub fn router(app: App) -> Router {
    let routes = RouteTable::new(&app)
        .predictions([routes!(predict::predict), routes!(batch::batch_predict)])
        .feedback(routes!(feedback::feedback))
        .scoped(Scope::Predict, [routes!(models::list), routes!(models::show)])
        .scoped(Scope::Metrics, [routes!(health::metrics)])
        .public([routes!(health::health), routes!(health::livez), routes!(health::readyz)]);
    apply_layers(routes.with_description(), app)
}

/// Every route of the admin listener, whose responses share `budget`.
pub fn admin_router(app: App, budget: Arc<ResponseBudget>) -> Router {
    let routes = admin_routes(&app);
    apply_layers_with_budget(routes.without_description(), app, budget, None)
}

/// The routes of the admin listener.
#[must_use]
pub fn admin_routes(app: &App) -> RouteTable {
    let routes = RouteTable::new(app)
        .scoped(Scope::Admin, [routes!(log_filter::show, log_filter::update), routes!(feedback::export::export)])
        .scoped(Scope::Metrics, [routes!(drift::show), routes!(health::metrics)])
        .public([routes!(health::health), routes!(health::livez), routes!(health::readyz)]);
    add_experiment_routes(add_registry_routes(routes))
}

fn add_registry_routes(routes: RouteTable) -> RouteTable {
    routes.scoped(
        Scope::Admin,
        [
            routes!(registry::list),
            routes!(registry::show),
            routes!(registry::history),
            routes!(registry::register),
            routes!(registry::activate),
            routes!(registry::roll_back),
            routes!(registry::add_metrics),
            routes!(registry::pin),
            routes!(registry::remove),
            routes!(registry::upload::exists, registry::upload::upload),
        ],
    )
}

fn add_experiment_routes(routes: RouteTable) -> RouteTable {
    routes.scoped(
        Scope::Admin,
        [
            routes!(experiments::list),
            routes!(experiments::show, experiments::define, experiments::delete),
            routes!(experiments::history),
            routes!(experiments::results),
            routes!(experiments::start),
            routes!(experiments::pause),
            routes!(experiments::end),
            routes!(experiments::promote),
        ],
    )
}

/// Every layer over all routes of the data listener.
pub fn apply_layers(router: Router<App>, app: App) -> Router {
    let budget = Arc::clone(&app.limits.response_budget);
    let cors = cors::layer(&app.access.cors_origins);
    apply_layers_with_budget(router, app, budget, cors)
}

/// Every layer over all routes, innermost first. Large responses share `budget`.
fn apply_layers_with_budget(
    router: Router<App>,
    app: App,
    budget: Arc<ResponseBudget>,
    cors: Option<CorsLayer>,
) -> Router {
    let metrics = Arc::clone(&app.telemetry.metrics);
    // The message of a panic may hold anything: it is not logged here.
    let answer_panic = move |_: Box<dyn Any + Send>| {
        metrics.record_panic(PanicSite::Handler);
        ApiError::new(Code::Internal, "The request met a bug of the server and was given up.").into_response()
    };
    router
        .fallback(async || ApiError::new(Code::NotFound, "There is no such route; GET /docs lists them."))
        .method_not_allowed_fallback(async || {
            ApiError::new(
                Code::MethodNotAllowed,
                "This route does not answer to this method; the Allow header lists those it does.",
            )
        })
        .layer(from_fn_with_state(budget, response_budget::reserve_response_memory))
        .layer(from_fn_with_state(app.limits.requests, request_limits::check_request))
        // Inside `observe`, so that a panic is counted, logged and answered like any other error.
        .layer(CatchPanicLayer::custom(answer_panic))
        // Outside of what refuses, so that pages can read why.
        .layer(option_layer(cors))
        .layer(from_fn_with_state(app.clone(), observability::observe))
        // Outermost, so that every answer has them, errors too.
        .layer(from_fn(observability::add_security_headers))
        .with_state(app)
}
