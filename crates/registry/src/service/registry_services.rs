//! The services of the registry, put together.

use std::sync::Arc;

use predictd_engine::model_source::ModelSource;
use predictd_metrics::drift::AccuracyStatus;
use tokio_util::sync::CancellationToken;

use super::accuracy_monitor::{Accuracies, AccuracyMonitor, MonitorState};
use super::database_watch::DatabaseWatch;
use super::experiment_evaluator::ExperimentEvaluator;
use super::experiment_service::ExperimentService;
use super::mlflow_sync::{AliasSubscription, MlflowSync};
use super::model_service::ModelService;
use super::reconcile_loop::ReconcileLoop;
use super::reconciler::Reconciler;
use super::registry_context::RegistryContext;
use super::rollout_controller::RolloutController;
use super::snapshot_publisher::SnapshotPublisher;
use super::state_cache::StateCache;
use super::store_cleanup::StoreCleanup;
use super::version_loader::LoadDeps;
use crate::database::{ChangeError, Database};
use crate::error::RegistryError;
use crate::feedback::store::FeedbackStore;
use crate::polling::{Poller, poll_until};
use crate::registry_state::{RegistryState, StateFile};
use crate::snapshot::Registry;
use crate::store::Store;

/// What the services are made of.
pub struct ServiceDeps {
    /// What is served.
    pub registry: Arc<Registry>,
    /// The records.
    pub database: Database,
    /// The copy of the state, for a start without the database.
    pub state_file: StateFile,
    /// The files of registered versions.
    pub store: Store,
    /// What versions are loaded from, and with.
    pub load: LoadDeps,
    /// The feedback of the same database.
    pub feedback: Arc<FeedbackStore>,
}

/// The services of the registry.
pub struct RegistryServices {
    /// What they share: the records, their state, what is published.
    pub context: Arc<RegistryContext>,
    /// Changes models.
    pub models: Arc<ModelService>,
    /// Changes experiments.
    pub experiments: Arc<ExperimentService>,
    /// Reads the results of experiments.
    pub evaluator: Arc<ExperimentEvaluator>,
    /// The feedback that the accuracies are of.
    pub feedback: Arc<FeedbackStore>,
    accuracies: Accuracies,
    reconciler: Arc<Reconciler>,
    /// The operator's own models that are not recorded yet.
    unrecorded_sources: Vec<ModelSource>,
}

impl RegistryServices {
    /// Services with the last known state, until the database answers; `unrecorded_sources` are recorded then.
    #[must_use]
    pub fn new(deps: ServiceDeps, state: RegistryState, unrecorded_sources: Vec<ModelSource>) -> Self {
        if !deps.database.is_initialized() {
            deps.database.mark_down();
        }
        let context = Arc::new(RegistryContext {
            database: deps.database,
            state: StateCache::new(state, deps.state_file),
            publisher: SnapshotPublisher::new(deps.registry),
            store: deps.store,
            metrics: Arc::clone(&deps.load.load_context.metrics),
            stop: CancellationToken::new(),
        });
        let reconciler = Arc::new(Reconciler::new(Arc::clone(&context), deps.load));
        Self {
            models: Arc::new(ModelService::new(Arc::clone(&context), Arc::clone(&reconciler))),
            experiments: Arc::new(ExperimentService::new(Arc::clone(&context), Arc::clone(&reconciler))),
            evaluator: Arc::new(ExperimentEvaluator { context: Arc::clone(&context) }),
            feedback: deps.feedback,
            accuracies: Accuracies::default(),
            reconciler,
            unrecorded_sources,
            context,
        }
    }

    /// Services with the state that the database has.
    ///
    /// # Errors
    /// If the database does not answer.
    pub async fn open(deps: ServiceDeps) -> Result<Self, ChangeError> {
        let services = Self::new(deps, RegistryState::default(), Vec::new());
        services.context.state.refresh(&services.context.database).await?;
        Ok(services)
    }

    /// The accuracies of versions that have feedback or an expected accuracy, at the last update.
    #[must_use]
    pub fn accuracies(&self) -> Vec<AccuracyStatus> {
        self.accuracies.lock().clone()
    }

    /// Loads what is recorded, and follows it until the server stops. Must be called where tasks run.
    ///
    /// # Errors
    /// If the load panics; what is recorded is followed all the same.
    pub async fn start(&self, aliases: Vec<AliasSubscription>) -> Result<(), RegistryError> {
        self.spawn(DatabaseWatch::new(Arc::clone(&self.context), self.unrecorded_sources.clone()));
        self.spawn(RolloutController {
            context: Arc::clone(&self.context),
            experiments: Arc::clone(&self.experiments),
            evaluator: Arc::clone(&self.evaluator),
            evaluations: 0,
        });
        let reconciler = Arc::clone(&self.reconciler);
        let loaded = tokio::spawn(async move { reconciler.load_at_startup().await }).await;
        // What follows waits for the loads.
        self.spawn(ReconcileLoop::new(Arc::clone(&self.reconciler)));
        self.spawn(StoreCleanup { models: Arc::clone(&self.models), has_polled: false });
        self.spawn(AccuracyMonitor {
            context: Arc::clone(&self.context),
            feedback: Arc::clone(&self.feedback),
            accuracies: Arc::clone(&self.accuracies),
            state: MonitorState::default(),
        });
        for subscription in aliases {
            self.spawn(MlflowSync::new(Arc::clone(&self.models), subscription));
        }
        Ok(loaded?)
    }

    /// Polls until the server stops.
    fn spawn(&self, poller: impl Poller + Send + 'static) {
        tokio::spawn(poll_until(self.context.stop.clone(), poller));
    }
}
