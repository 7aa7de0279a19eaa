//! HTTP: the only place with axum, JSON and status codes.
//!
//! - [`accept_loop`], [`connection`], [`tls`]: listeners and connections
//! - [`timeout_stream`], [`framing`], [`connection_state`]: time limits of a connection
//! - [`response_budget`], [`response_size`], [`response_stream`]: memory for large responses
//! - [`mod@route_table`]: how routes are listed, each with who may use it
//! - [`observability`]: request id, metrics, the log line, problem details; [`request_summary`]: what handlers tell for it;
//!   [`log_sampler`]: how many of them are logged; [`mod@trace_context`]: its span
//! - [`request_limits`], [`auth`], [`rate_limit`], [`body`]: layers that refuse: head, key, rate, body
//! - [`admin_guard`], [`cors`]: which web pages may use the listeners
//! - [`content_encoding`], [`charset`]: compressed bodies, bodies that are not UTF-8
//! - [`client_address`]: whose request it is
//! - [`json`], [`validation`]: JSON to types, rules for fields
//! - [`deadline`], [`process_stall`]: the time a client allows, and since when
//! - [`cache_control`]: what a client wants of the result cache
//! - [`predict`], [`batch`], [`feedback`], [`models`], [`health`], [`docs`]: a handler with its wire types
//! - [`metrics_server`]: a listener for commands that are no server
//! - [`drift`]: whether texts and answers are still like before, for operators
//! - [`log_filter`]: what is logged, changed by operators
//! - [`mod@registry`], [`experiments`]: models and versions, and what is compared, changed by operators
//! - [`arm_router`]: which version answers; [`user_id`]: whom; [`shadow_traffic`]: which others see the text
//! - [`zero_shot`]: labels in a request instead of the model's own
//! - [`prediction`]: the wire form of one prediction, used by both prediction routes
//! - [`error`]: the one table of errors

#![expect(
    clippy::missing_errors_doc,
    reason = "a handler's comment is its description in the API; `error` lists what can go wrong"
)]

pub mod accept_loop;
pub mod admin_guard;
pub mod arm_router;
pub mod auth;
pub mod batch;
pub mod body;
pub mod cache_control;
pub mod charset;
pub mod client_address;
pub mod connection;
pub mod connection_state;
pub mod content_encoding;
pub mod cors;
pub mod deadline;
pub mod docs;
pub mod drift;
pub mod error;
pub mod experiments;
pub mod feedback;
pub mod framing;
pub mod health;
pub mod json;
pub mod log_filter;
pub mod log_sampler;
pub mod metrics_server;
pub mod models;
pub mod observability;
pub mod predict;
pub mod prediction;
pub mod process_stall;
pub mod rate_limit;
pub mod registry;
pub mod request_limits;
pub mod request_summary;
pub mod response_budget;
pub mod response_size;
pub mod response_stream;
pub mod route_table;
pub mod shadow_traffic;
pub mod timeout_stream;
pub mod tls;
pub mod trace_context;
pub mod user_id;
pub mod validation;
pub mod zero_shot;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use axum::Router;
use axum::middleware::{from_fn, from_fn_with_state};
use ipnet::IpNet;
use tower::util::option_layer;
use tower_http::catch_panic::CatchPanicLayer;
use tower_http::cors::CorsLayer;
use utoipa_axum::routes;

use crate::api_keys::Scope;
use crate::config::{ClientTimeouts, CorsOrigins, RequestLimits, ServerTimingMode};
use crate::engine::Engine;
use crate::experiments::receipts::ReceiptKeyring;
use crate::metrics::Metrics;
use crate::registry::Registry;
use crate::registry::runtime::RegistryRuntime;
use crate::telemetry::spans::SpanTracer;
use crate::text::policy::TextPolicy;
use admin_guard::AdminHosts;
use auth::ApiKeys;
use body::BodyMemory;
use error::{ApiError, Code};
use process_stall::StallDetector;
use rate_limit::RateLimits;
use response_budget::ResponseBudget;
use route_table::RouteTable;
use shadow_traffic::ShadowQueue;

/// What handlers work with.
#[derive(Debug)]
pub struct App {
    /// Admits texts to models.
    pub engine: Engine,
    /// Knows the models.
    pub registry: Arc<Registry>,
    /// Changes them, and what is recorded of them; none for commands that serve models of their own only.
    pub registry_runtime: Option<RegistryRuntime>,
    /// Texts that arms may see, and nobody waits for.
    pub shadow_queue: ShadowQueue,
    /// Seals prediction ids.
    pub receipts: ReceiptKeyring,
    /// Who may use what.
    pub keys: ApiKeys,
    /// How much of it.
    pub rate_limits: RateLimits,
    /// Hosts that /admin answers to.
    pub admin_hosts: AdminHosts,
    /// Origins of web pages that may use the data listener.
    pub cors_origins: CorsOrigins,
    /// Proxies whose forwarded addresses are believed.
    pub trusted_proxies: Vec<IpNet>,
    /// Limits of requests.
    pub limits: RequestLimits,
    /// What a text may hold that belongs to no model that is loaded.
    pub text_policy: TextPolicy,
    /// Memory for large bodies.
    pub body_memory: BodyMemory,
    /// Memory for large responses of the data listener.
    pub response_budget: Arc<ResponseBudget>,
    /// How long clients may keep the server waiting.
    pub client_timeouts: ClientTimeouts,
    /// Counts events.
    pub metrics: Arc<Metrics>,
    /// Set when the server was told to stop: it is not ready any more.
    pub draining: AtomicBool,
    /// Who is told where the time of a request went.
    pub server_timing: ServerTimingMode,
    /// Delivers spans of requests, if somebody collects them.
    pub spans: Option<SpanTracer>,
    /// Notices when the process stands still.
    pub stall_detector: StallDetector,
}

impl App {
    /// Models go from now on, however the server came to its end. Who asks for them must not take them for removed.
    pub fn begin_model_shutdown(&self) {
        self.draining.store(true, Ordering::Relaxed);
        if let Some(keeping) = &self.registry_runtime {
            keeping.service().stop_loading();
        }
    }
}

/// Every route of the data listener.
pub fn router(app: Arc<App>) -> Router {
    let routes = RouteTable::new(&app)
        .predictions(routes!(predict::predict))
        .predictions(routes!(batch::batch_predict))
        .feedback(routes!(feedback::feedback))
        .scoped(Scope::Predict, routes!(models::list))
        .scoped(Scope::Predict, routes!(models::show))
        .scoped(Scope::Metrics, routes!(health::metrics))
        .public(routes!(health::health))
        .public(routes!(health::livez))
        .public(routes!(health::readyz));
    apply_layers(routes.with_description(), app)
}

/// Every route of the admin listener, whose responses share `budget`.
pub fn admin_router(app: Arc<App>, budget: Arc<ResponseBudget>) -> Router {
    let routes = admin_routes(&app);
    apply_layers_with_budget(routes.without_description(), app, budget, None)
}

/// The routes of the admin listener.
#[must_use]
pub fn admin_routes(app: &Arc<App>) -> RouteTable {
    RouteTable::new(app)
        .scoped(Scope::Admin, routes!(log_filter::show, log_filter::update))
        .scoped(Scope::Admin, routes!(registry::list))
        .scoped(Scope::Admin, routes!(registry::show))
        .scoped(Scope::Admin, routes!(registry::history))
        .scoped(Scope::Admin, routes!(registry::register))
        .scoped(Scope::Admin, routes!(registry::activate))
        .scoped(Scope::Admin, routes!(registry::roll_back))
        .scoped(Scope::Admin, routes!(registry::add_metrics))
        .scoped(Scope::Admin, routes!(registry::pin))
        .scoped(Scope::Admin, routes!(registry::remove))
        .scoped(Scope::Admin, routes!(feedback::export::export))
        .scoped(Scope::Admin, routes!(experiments::list))
        .scoped(Scope::Admin, routes!(experiments::show, experiments::define, experiments::delete))
        .scoped(Scope::Admin, routes!(experiments::history))
        .scoped(Scope::Admin, routes!(experiments::results))
        .scoped(Scope::Admin, routes!(experiments::start))
        .scoped(Scope::Admin, routes!(experiments::pause))
        .scoped(Scope::Admin, routes!(experiments::end))
        .scoped(Scope::Admin, routes!(experiments::promote))
        .scoped(Scope::Admin, routes!(registry::upload::exists, registry::upload::upload))
        .scoped(Scope::Metrics, routes!(drift::show))
        .scoped(Scope::Metrics, routes!(health::metrics))
        .public(routes!(health::health))
        .public(routes!(health::livez))
        .public(routes!(health::readyz))
}

/// Every layer over all routes of the data listener.
pub fn apply_layers(router: Router<Arc<App>>, app: Arc<App>) -> Router {
    let budget = Arc::clone(&app.response_budget);
    let cors = cors::layer(&app.cors_origins);
    apply_layers_with_budget(router, app, budget, cors)
}

/// Every layer over all routes, innermost first. Large responses share `budget`.
fn apply_layers_with_budget(
    router: Router<Arc<App>>,
    app: Arc<App>,
    budget: Arc<ResponseBudget>,
    cors: Option<CorsLayer>,
) -> Router {
    router
        .fallback(async || ApiError::new(Code::NotFound, "There is no such route; GET /docs lists them."))
        .method_not_allowed_fallback(async || {
            ApiError::new(
                Code::MethodNotAllowed,
                "This route does not answer to this method; the Allow header lists those it does.",
            )
        })
        .layer(from_fn_with_state(budget, response_budget::reserve_response_memory))
        .layer(from_fn_with_state(Arc::clone(&app), request_limits::check_request))
        // Inside `observe`, so that a panic is counted, logged and answered like any other error.
        .layer(CatchPanicLayer::custom(observability::PanicResponder(Arc::clone(&app.metrics))))
        // Outside of what refuses, so that pages can read why.
        .layer(option_layer(cors))
        .layer(from_fn_with_state(Arc::clone(&app), observability::observe))
        // Outermost, so that every answer has them, errors too.
        .layer(from_fn(observability::add_security_headers))
        .with_state(app)
}
