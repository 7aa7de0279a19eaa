//! The state that handlers and layers share.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use ipnet::IpNet;
use tokio::sync::OwnedSemaphorePermit;

use super::admin_guard::AdminHosts;
use super::api_keys::ApiKeys;
use super::body_limits::BodyMemory;
use super::caller_rates::RateLimits;
use super::error::{ApiError, Code};
use super::process_stall::StallDetector;
use super::response_budget::ResponseBudget;
use super::shadow_queue::ShadowQueue;
use crate::config::{ClientTimeouts, CorsOrigins, RequestLimits, ServerTimingMode};
use crate::engine::Engine;
use crate::experiments::receipts::ReceiptKeyring;
use crate::metrics::{Metrics, RefusalReason};
use crate::registry::Registry;
use crate::registry::runtime::RegistryRuntime;
use crate::telemetry::spans::SpanTracer;
use crate::text::policy::TextPolicy;

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
    pub admin_hosts: Arc<AdminHosts>,
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

    /// What changes the registry.
    ///
    /// # Errors
    /// 503 where the process serves models of its own only.
    pub fn require_registry(&self) -> Result<&RegistryRuntime, ApiError> {
        self.registry_runtime
            .as_ref()
            .ok_or_else(|| ApiError::new(Code::RegistryUnavailable, "This process has no registry."))
    }

    /// Takes memory for a body of `length` bytes, beyond what it holds.
    pub(super) fn reserve_body_memory(
        &self,
        held: &mut Option<OwnedSemaphorePermit>,
        length: usize,
    ) -> Result<(), ApiError> {
        self.body_memory
            .reserve(held, length)
            .inspect_err(|_| self.metrics.http.record_refusal(RefusalReason::Overload))
            .map_err(ApiError::from)
    }
}
