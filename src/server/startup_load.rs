//! The models that are loaded when a server starts.

use std::sync::Arc;

use predictd_engine::{load_context::LoadContext, model_source::ModelSource};
use predictd_http::App;
use predictd_registry::service::AliasSubscription;
use predictd_registry::{Registry, Snapshot};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::registry_setup;
use crate::config::ServerSettings;
use crate::error::ServerError;
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

/// A load that was started.
pub(super) struct RunningLoad {
    pub(super) task: JoinHandle<()>,
    /// Cancelled however the load ends.
    pub(super) ended: CancellationToken,
    error: oneshot::Receiver<String>,
}

impl RunningLoad {
    /// Why the server cannot go on with the models that were loaded. Waits for ever if it can.
    pub(super) async fn fatal_error(&mut self) -> ServerError {
        match (&mut self.error).await {
            Ok(sentence) => ServerError::Configuration(sentence),
            Err(_) => std::future::pending().await,
        }
    }
}

impl StartupLoad {
    /// Starts a task that loads the models. Must be called where tasks run.
    pub(super) fn start(self) -> RunningLoad {
        let (error_sender, error) = oneshot::channel();
        let ended = CancellationToken::new();
        let end_guard = ended.clone().drop_guard();
        let initial = self.app.models.registry.snapshot();
        let task = tokio::spawn(async move {
            let _end_guard = end_guard;
            self.run(initial, error_sender).await;
        });
        RunningLoad { task, ended, error }
    }

    async fn run(self, initial: Arc<Snapshot>, error_sender: oneshot::Sender<String>) {
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
            error_sender.send(sentence).ok();
        }
    }
}

/// Whether a server can go on with what was loaded. Models registered after `initial` end no server.
fn check_loaded_models(settings: &ServerSettings, initial: &Snapshot, registry: &Registry) -> Result<(), String> {
    let loaded = registry.snapshot();
    loaded.fatal_load_failure(initial).map_or(Ok(()), |sentence| Err(sentence.to_owned()))?;
    memory_budget::check_budget(settings, loaded.ready_models())
}
