//! The models that are loaded when a server starts.

use std::sync::Arc;

use predictd_engine::{load_context::LoadContext, model_source::ModelSource};
use predictd_http::App;
use predictd_registry::service::AliasSubscription;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::registry_setup;
use crate::config::ServerSettings;
use crate::error::ServerError;
use crate::memory_budget;

/// What the models of a server are loaded with.
pub(super) struct StartupLoad {
    /// The models of a server without a registry runtime.
    pub(super) sources: Vec<ModelSource>,
    pub(super) subscriptions: Vec<AliasSubscription>,
    pub(super) load_context: LoadContext,
    pub(super) settings: ServerSettings,
}

/// A load that was started.
pub(super) struct RunningLoad {
    pub(super) task: JoinHandle<Result<(), String>>,
    /// Cancelled however the load ends.
    pub(super) ended: CancellationToken,
}

impl RunningLoad {
    /// Why the server cannot go on with the models that were loaded. Waits for ever if it can.
    pub(super) async fn fatal_error(&mut self) -> ServerError {
        match (&mut self.task).await {
            Ok(Err(sentence)) => ServerError::Configuration(sentence),
            _ => std::future::pending().await,
        }
    }
}

impl StartupLoad {
    /// Starts a task that loads the models, until `stop`. Must be called where tasks run.
    pub(super) fn start(self, app: &App, stop: CancellationToken) -> RunningLoad {
        let ended = CancellationToken::new();
        let end_guard = ended.clone().drop_guard();
        let app = app.clone();
        let initial = app.models.registry.snapshot();
        let task = tokio::spawn(async move {
            let _end_guard = end_guard;
            let settings = self.settings.clone();
            self.load(&app, stop).await;
            // Models registered after the start end no server.
            let loaded = app.models.registry.snapshot();
            if let Some(sentence) = loaded.device_refusal(&initial) {
                return Err(format!("--device {}: {sentence}", settings.onnx_runtime.devices.device));
            }
            memory_budget::check_budget(&settings, loaded.ready_models())
        });
        RunningLoad { task, ended }
    }

    async fn load(self, app: &App, stop: CancellationToken) {
        if let Some(runtime) = &app.models.registry_runtime {
            return registry_setup::load_models(runtime, self.subscriptions, &stop).await;
        }
        let registry = Arc::clone(&app.models.registry);
        let load = move || {
            for source in self.sources.iter().filter(|_| !stop.is_cancelled()) {
                // Why one is not loaded is in the log and in its state.
                _ = registry.load(source, &self.load_context);
            }
        };
        tokio::task::spawn_blocking(load).await.ok();
    }
}
