//! The state that handlers and layers share.

use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use axum::extract::FromRef;
use ipnet::IpNet;
use predictd_inference::InferenceService;
use predictd_inference::feedback_service::FeedbackService;
use predictd_metrics::{Metrics, RefusalReason};
use predictd_registry::Registry;
use predictd_registry::runtime::RegistryRuntime;
use predictd_telemetry::spans::SpanTracer;
use tokio::sync::OwnedSemaphorePermit;

use super::admin_guard::AdminHosts;
use super::body_limits::BodyMemory;
use super::caller_rates::RateLimits;
use super::error::{ApiError, Code};
use super::process_stall::StallDetector;
use super::response_budget::ResponseBudget;
use super::watched_keys::WatchedKeys;
use crate::cors_origins::CorsOrigins;
use crate::settings::{ClientTimeouts, RequestLimits, ServerTimingMode};

/// The state of the router. A handler takes the part that it needs.
#[derive(Clone)]
pub struct App(Arc<AppState>);

/// The parts of the state.
pub struct AppState {
    /// The models.
    pub models: Arc<ModelState>,
    /// Answers requests.
    pub inference: Arc<InferenceService>,
    /// Takes the true labels of answers.
    pub feedback: Arc<FeedbackService>,
    /// Access control and rate limits.
    pub access: Arc<AccessState>,
    /// Limits of requests, and the memory that they share.
    pub limits: Arc<LimitState>,
    /// Metrics and spans of requests.
    pub telemetry: Arc<TelemetryState>,
}

/// The models.
#[derive(Debug)]
pub struct ModelState {
    /// Set when the stop begins: the server is not ready any more.
    pub draining: AtomicBool,
    /// Knows the models.
    pub registry: Arc<Registry>,
    /// Changes the models and their records; absent in commands that only serve models of their own.
    pub registry_runtime: Option<RegistryRuntime>,
}

/// Access control and rate limits.
#[derive(Debug)]
pub struct AccessState {
    /// The API keys in force.
    pub keys: WatchedKeys,
    /// The rate limits of callers.
    pub rate_limits: RateLimits,
    /// The hosts that /admin answers to.
    pub admin_hosts: Arc<AdminHosts>,
    /// The origins of web pages that may use the data listener.
    pub cors_origins: CorsOrigins,
    /// The proxies whose `X-Forwarded-For` counts.
    pub trusted_proxies: Vec<IpNet>,
}

/// Limits of requests, and the memory that they share.
#[derive(Debug)]
pub struct LimitState {
    /// Limits of each request.
    pub requests: RequestLimits,
    /// Time limits of clients.
    pub client_timeouts: ClientTimeouts,
    /// Memory for large bodies.
    pub body_memory: BodyMemory,
    /// Memory for large responses of the data listener.
    pub response_budget: Arc<ResponseBudget>,
    /// Notices when the process stands still.
    pub stall_detector: StallDetector,
}

/// Metrics and spans of requests.
#[derive(Debug)]
pub struct TelemetryState {
    /// Counts events.
    pub metrics: Arc<Metrics>,
    /// Delivers spans of requests, if a collector is configured.
    pub spans: Option<SpanTracer>,
    /// When responses have a `Server-Timing` header.
    pub server_timing: ServerTimingMode,
}

impl From<AppState> for App {
    fn from(state: AppState) -> Self {
        Self(Arc::new(state))
    }
}

impl Deref for App {
    type Target = AppState;

    fn deref(&self) -> &AppState {
        &self.0
    }
}

macro_rules! parts {
    ($($field:ident: $part:ty;)*) => {
        $(impl FromRef<App> for Arc<$part> {
            fn from_ref(app: &App) -> Self {
                Self::clone(&app.$field)
            }
        })*
    };
}

parts! {
    models: ModelState;
    inference: InferenceService;
    feedback: FeedbackService;
    access: AccessState;
    limits: LimitState;
    telemetry: TelemetryState;
}

impl ModelState {
    /// The models of a server that does not stop.
    #[must_use]
    pub fn new(registry: Arc<Registry>, registry_runtime: Option<RegistryRuntime>) -> Self {
        Self { draining: AtomicBool::new(false), registry, registry_runtime }
    }

    /// Marks the server as stopping and ends loads, however the server ends. Callers that ask for models from now on must
    /// not take them for removed.
    pub fn begin_model_shutdown(&self) {
        self.draining.store(true, Ordering::Relaxed);
        if let Some(runtime) = &self.registry_runtime {
            runtime.services().context.stop_loading();
        }
    }

    /// True if requests will be answered: the default model is warm, every other one was tried, and the server does not
    /// stop.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        !self.draining.load(Ordering::Relaxed) && self.registry.snapshot().is_ready()
    }

    /// What changes the registry.
    ///
    /// # Errors
    /// 503 where the process serves models of its own only.
    pub fn require_registry(&self) -> Result<&RegistryRuntime, ApiError> {
        let runtime = self.registry_runtime.as_ref();
        runtime.ok_or_else(|| ApiError::new(Code::RegistryUnavailable, "This process has no registry."))
    }
}

impl AppState {
    /// Takes memory for a body of `length` bytes, beyond what it holds.
    pub(super) fn reserve_body_memory(
        &self,
        held: &mut Option<OwnedSemaphorePermit>,
        length: usize,
    ) -> Result<(), ApiError> {
        self.limits
            .body_memory
            .reserve(held, length)
            .inspect_err(|_| self.telemetry.metrics.http.record_refusal(RefusalReason::Overload))
            .map_err(ApiError::from)
    }
}
