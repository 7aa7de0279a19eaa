//! Keeps the store free of files that no version needs.

use std::sync::Arc;
use std::time::Duration;

use super::error::RegistryError;
use super::model_service::ModelService;
use super::polling::Poller;

const RETRY_INTERVAL: Duration = Duration::from_millis(500);
const CLEANUP_INTERVAL: Duration = Duration::from_hours(1);

/// Cleans the store while the database answers.
pub(super) struct StoreCleanup {
    pub(super) models: Arc<ModelService>,
    /// The first poll cleans nothing: the server has just started, and has requests to answer.
    pub(super) has_polled: bool,
}

impl Poller for StoreCleanup {
    async fn poll(&mut self) -> Duration {
        if !std::mem::replace(&mut self.has_polled, true) || self.models.context.database_downtime().is_some() {
            return RETRY_INTERVAL;
        }
        match self.models.clean_store().await {
            Ok(0) => {}
            Ok(deleted) => tracing::info!(deleted, "unreferenced files deleted from the store"),
            Err(RegistryError::TaskFailure(error)) => tracing::error!(%error, "store cleanup aborted"),
            Err(error) => tracing::warn!(%error, "store cleanup failed"),
        }
        CLEANUP_INTERVAL
    }
}
