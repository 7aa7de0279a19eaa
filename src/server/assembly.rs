//! The parts of a server, made from its settings.

use std::sync::Arc;

use predictd_engine::{load_context::LoadContext, model_source::ModelSource};
use predictd_http::admin_guard::AdminHosts;
use predictd_http::body_limits::BodyMemory;
use predictd_http::caller_rates::RateLimits;
use predictd_http::process_stall::StallDetector;
use predictd_http::response_budget::ResponseBudget;
use predictd_http::state::{AccessState, LimitState, ModelState};
use predictd_http::watched_keys::WatchedKeys;
use predictd_metrics::Metrics;
use predictd_registry::Registry;

use super::registry_setup;
use crate::config::ServerSettings;
use crate::error::ServerError;
use crate::memory_budget;

/// Which models a server has.
pub(crate) enum ModelSet {
    /// These.
    Fixed(Vec<ModelSource>),
    /// Those that are recorded, to which these are added: the operator's own.
    Registry(Vec<ModelSource>),
}

/// Opens the models of a server; and those that are loaded without a registry runtime.
pub(super) fn open_models(
    settings: &ServerSettings,
    models: ModelSet,
    load_context: &LoadContext,
) -> Result<(ModelState, Vec<ModelSource>), ServerError> {
    match models {
        ModelSet::Fixed(sources) => {
            let registry = Registry::from_sources(&sources, settings.default_model.as_deref())
                .map_err(|error| models_option_error(settings, &error))?;
            Ok((ModelState::new(Arc::new(registry), None), sources))
        }
        ModelSet::Registry(sources) => {
            let runtime = registry_setup::open_registry(settings, load_context.clone(), sources)?;
            let registry = Arc::clone(runtime.services().context.registry());
            Ok((ModelState::new(registry, Some(runtime)), Vec::new()))
        }
    }
}

pub(super) fn access_state(settings: &ServerSettings, keys: WatchedKeys) -> AccessState {
    AccessState {
        keys,
        rate_limits: RateLimits::new(settings.rate_limit),
        admin_hosts: Arc::new(AdminHosts::from_settings(&settings.access)),
        cors_origins: settings.cors_origins.clone(),
        trusted_proxies: settings.trusted_proxies.clone(),
    }
}

pub(super) fn limit_state(settings: &ServerSettings, metrics: &Arc<Metrics>) -> LimitState {
    LimitState {
        requests: settings.limits,
        client_timeouts: settings.client_timeouts,
        body_memory: BodyMemory::new(memory_budget::body_memory(settings)),
        response_budget: ResponseBudget::new(memory_budget::response_memory(settings), metrics),
        stall_detector: StallDetector::default(),
    }
}

pub(crate) fn models_option_error(settings: &ServerSettings, error: &str) -> ServerError {
    ServerError::Configuration(format!("--models {}: {error}", settings.models_dir.display()))
}
