//! The models that are loaded when a server starts.

use std::sync::Arc;

use predictd_engine::{load_context::LoadContext, model_source::ModelSource};
use predictd_http::App;
use predictd_registry::service::AliasSubscription;
use predictd_registry::{Registry, Snapshot};
use tokio::sync::oneshot;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::registry_setup;
use crate::config::ServerSettings;
use crate::memory_budget;

/// What the models of a server are loaded with.
pub(super) struct StartupLoad {
    pub(super) app: Arc<App>,
    /// The models of a server without a registry runtime.
    pub(super) sources: Vec<ModelSource>,
    pub(super) subscriptions: Vec<AliasSubscription>,
    pub(super) load_context: LoadContext,
    pub(super) settings: ServerSettings,
    /// Ends the loading.
    pub(super) stop: CancellationToken,
}

impl StartupLoad {
    /// Loads the models. Sends a sentence if the server cannot go on with those that were loaded; `loaded` is dropped
    /// however the loading ends.
    pub(super) async fn run(
        self,
        initial: Arc<Snapshot>,
        loaded: DropGuard,
        startup_error_sender: oneshot::Sender<String>,
    ) {
        let _loaded = loaded;
        let registry = Arc::clone(&self.app.models.registry);
        if let Some(runtime) = &self.app.models.registry_runtime {
            registry_setup::load_models(runtime, self.subscriptions, &self.stop).await;
        } else {
            let Self { sources, load_context, stop, .. } = self;
            tokio::task::spawn_blocking(move || {
                for source in sources.iter().filter(|_| !stop.is_cancelled()) {
                    // Why one is not loaded is in the log and in its state.
                    _ = registry.load(source, &load_context);
                }
            })
            .await
            .ok();
        }
        if let Err(sentence) = check_loaded_models(&self.settings, &initial, &self.app.models.registry) {
            // The receiver is gone if the server has stopped meanwhile.
            startup_error_sender.send(sentence).ok();
        }
    }
}

/// Whether a server can go on with what was loaded. What came meanwhile ends no server.
fn check_loaded_models(settings: &ServerSettings, begun_with: &Snapshot, registry: &Registry) -> Result<(), String> {
    let loaded = registry.snapshot();
    loaded.fatal_load_failure(begun_with).map_or(Ok(()), |sentence| Err(sentence.to_owned()))?;
    memory_budget::check_budget(settings, loaded.ready_models())
}
