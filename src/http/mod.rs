//! HTTP: the only place with axum, JSON and status codes.
//!
//! - [`serve`], [`connection`], [`tls`]: listeners and connections
//! - [`paced`], [`framing`], [`exchange`]: time limits of a connection
//! - [`response_budget`], [`response_size`], [`response_stream`]: memory for large responses
//! - [`mod@routes`]: how routes are listed, each with who may use it
//! - [`observe`]: request id, metrics, the log line, problem details; [`story`]: what handlers tell for it;
//!   [`refusals`]: how many of them are logged; [`mod@trace`]: its span
//! - [`head`], [`auth`], [`rate_limit`], [`body`]: layers that refuse: head, key, rate, body
//! - [`admin_guard`], [`cors`]: which web pages may use the listeners
//! - [`content_encoding`], [`charset`]: compressed bodies, bodies that are not UTF-8
//! - [`client_address`]: whose request it is
//! - [`json`], [`checks`]: JSON to types, rules for fields
//! - [`deadline`], [`standstill`]: the time a client allows, and since when
//! - [`cache_control`]: what a client wants of the result cache
//! - [`predict`], [`batch`], [`feedback`], [`models`], [`probes`], [`docs`]: a handler with its wire types
//! - [`metrics_only`]: a listener for commands that are no server
//! - [`drift`]: whether texts and answers are still like before, for operators
//! - [`logs`]: what is logged, changed by operators
//! - [`mod@registry`], [`experiments`]: models and versions, and what is compared, changed by operators
//! - [`arms`]: which version answers; [`user`]: whom; [`shadow`]: which others see the text
//! - [`zero_shot`]: labels in a request instead of the model's own
//! - [`answer`]: the wire form of one prediction, used by both prediction routes
//! - [`error`]: the one table of errors

#![expect(
    clippy::missing_errors_doc,
    reason = "a handler's comment is its description in the API; `error` lists what can go wrong"
)]

pub mod admin_guard;
pub mod answer;
pub mod arms;
pub mod auth;
pub mod batch;
pub mod body;
pub mod cache_control;
pub mod charset;
pub mod checks;
pub mod client_address;
pub mod connection;
pub mod content_encoding;
pub mod cors;
pub mod deadline;
pub mod docs;
pub mod drift;
pub mod error;
pub mod exchange;
pub mod experiments;
pub mod feedback;
pub mod framing;
pub mod head;
pub mod json;
pub mod logs;
pub mod metrics_only;
pub mod models;
pub mod observe;
pub mod paced;
pub mod predict;
pub mod probes;
pub mod rate_limit;
pub mod refusals;
pub mod registry;
pub mod response_budget;
pub mod response_size;
pub mod response_stream;
pub mod routes;
pub mod serve;
pub mod shadow;
pub mod standstill;
pub mod story;
pub mod tls;
pub mod trace;
pub mod user;
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

use crate::config::{CorsOrigins, Limits, Patience, ServerTiming};
use crate::engine::Engine;
use crate::experiments::receipts::Receipts;
use crate::keys::Scope;
use crate::metrics::Metrics;
use crate::registry::Registry;
use crate::registry::keeping::Keeping;
use crate::telemetry::spans::Spans;
use crate::text::policy::TextPolicy;
use admin_guard::AdminHosts;
use auth::Keys;
use body::BodyMemory;
use error::{ApiError, Code};
use rate_limit::RateLimits;
use response_budget::ResponseBudget;
use routes::Routes;
use shadow::Shadows;
use standstill::Standstill;

/// What handlers work with.
#[derive(Debug)]
pub struct App {
    /// Admits texts to models.
    pub engine: Engine,
    /// Knows the models.
    pub registry: Arc<Registry>,
    /// Changes them, and what is recorded of them; none for commands that serve models of their own only.
    pub keeping: Option<Keeping>,
    /// Texts that arms may see, and nobody waits for.
    pub shadows: Shadows,
    /// Seals prediction ids.
    pub receipts: Receipts,
    /// Who may use what.
    pub keys: Keys,
    /// How much of it.
    pub rate_limits: RateLimits,
    /// Hosts that /admin answers to.
    pub admin_hosts: AdminHosts,
    /// Origins of web pages that may use the data listener.
    pub cors_origins: CorsOrigins,
    /// Proxies whose forwarded addresses are believed.
    pub trusted_proxies: Vec<IpNet>,
    /// Limits of requests.
    pub limits: Limits,
    /// What a text may hold that belongs to no model that is loaded.
    pub text_policy: TextPolicy,
    /// Memory for large bodies.
    pub body_memory: BodyMemory,
    /// Memory for large responses of the data listener.
    pub responses: Arc<ResponseBudget>,
    /// How long clients may keep the server waiting.
    pub patience: Patience,
    /// Counts events.
    pub metrics: Arc<Metrics>,
    /// Set when the server was told to stop: it is not ready any more.
    pub draining: AtomicBool,
    /// Who is told where the time of a request went.
    pub server_timing: ServerTiming,
    /// Delivers spans of requests, if somebody collects them.
    pub spans: Option<Spans>,
    /// Notices when the process stands still.
    pub standstill: Standstill,
}

impl App {
    /// Models go from now on, however the server came to its end. Who asks for them must not take them for removed.
    pub fn let_models_go(&self) {
        self.draining.store(true, Ordering::Relaxed);
        if let Some(keeping) = &self.keeping {
            keeping.keeper().stop();
        }
    }
}

/// Every route of the data listener.
pub fn router(app: Arc<App>) -> Router {
    let routes = Routes::new(&app)
        .predictions(routes!(predict::predict))
        .predictions(routes!(batch::batch_predict))
        .feedback(routes!(feedback::feedback))
        .scoped(Scope::Predict, routes!(models::list))
        .scoped(Scope::Predict, routes!(models::show))
        .scoped(Scope::Metrics, routes!(probes::metrics))
        .public(routes!(probes::health))
        .public(routes!(probes::livez))
        .public(routes!(probes::readyz));
    layers(routes.with_description(), app)
}

/// Every route of the admin listener, whose responses share `budget`.
pub fn admin_router(app: Arc<App>, budget: Arc<ResponseBudget>) -> Router {
    let routes = admin_routes(&app);
    layers_within(routes.without_description(), app, budget, None)
}

/// The routes of the admin listener.
#[must_use]
pub fn admin_routes(app: &Arc<App>) -> Routes {
    Routes::new(app)
        .scoped(Scope::Admin, routes!(logs::show, logs::change))
        .scoped(Scope::Admin, routes!(registry::list))
        .scoped(Scope::Admin, routes!(registry::show))
        .scoped(Scope::Admin, routes!(registry::history))
        .scoped(Scope::Admin, routes!(registry::register))
        .scoped(Scope::Admin, routes!(registry::activate))
        .scoped(Scope::Admin, routes!(registry::roll_back))
        .scoped(Scope::Admin, routes!(registry::measure))
        .scoped(Scope::Admin, routes!(registry::pin))
        .scoped(Scope::Admin, routes!(registry::remove))
        .scoped(Scope::Admin, routes!(feedback::export::export))
        .scoped(Scope::Admin, routes!(experiments::list))
        .scoped(Scope::Admin, routes!(experiments::show, experiments::design, experiments::forget))
        .scoped(Scope::Admin, routes!(experiments::history))
        .scoped(Scope::Admin, routes!(experiments::results))
        .scoped(Scope::Admin, routes!(experiments::start))
        .scoped(Scope::Admin, routes!(experiments::pause))
        .scoped(Scope::Admin, routes!(experiments::end))
        .scoped(Scope::Admin, routes!(experiments::promote))
        .scoped(Scope::Admin, routes!(registry::upload::is_there, registry::upload::upload))
        .scoped(Scope::Metrics, routes!(drift::show))
        .scoped(Scope::Metrics, routes!(probes::metrics))
        .public(routes!(probes::health))
        .public(routes!(probes::livez))
        .public(routes!(probes::readyz))
}

/// Every layer over all routes of the data listener.
pub fn layers(router: Router<Arc<App>>, app: Arc<App>) -> Router {
    let budget = Arc::clone(&app.responses);
    let cors = cors::layer(&app.cors_origins);
    layers_within(router, app, budget, cors)
}

/// Every layer over all routes, innermost first. Large responses share `budget`.
fn layers_within(
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
        .layer(from_fn_with_state(budget, response_budget::bound))
        .layer(from_fn_with_state(Arc::clone(&app), head::check))
        // Inside `observe`, so that a panic is counted, logged and answered like any other error.
        .layer(CatchPanicLayer::custom(observe::OnPanic(Arc::clone(&app.metrics))))
        // Outside of what refuses, so that pages can read why.
        .layer(option_layer(cors))
        .layer(from_fn_with_state(Arc::clone(&app), observe::observe))
        // Outermost, so that every answer has them, errors too.
        .layer(from_fn(observe::security_headers))
        .with_state(app)
}
