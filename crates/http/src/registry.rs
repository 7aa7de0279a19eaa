//! `/admin/models`: what is recorded of models, and how operators change it.
//!
//! A change of what is there names the revision that it was decided on (`If-Match`); one that is sent twice under one
//! `Idempotency-Key` is made once.
//!
//! The API description leaves out the routes of operators: their attributes say method and path only.

pub mod etag;
pub mod path_params;
pub mod preconditions;
pub mod upload;
pub mod wire;

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use predictd_api::models::{
    ActivateRequest, AuditEntryView, MetricsRequest, ModelChangeView, PinRequest, RegisterRequest, RegisteredModel,
    RegisteredModelList,
};
use predictd_api::reason::ReasonBody;
use predictd_registry::database::{ChangeOutcome, HistoryFilter};
use predictd_registry::mlflow::pull::PullRequest;
use predictd_registry::record::{ModelChangeSummary, Origin, VersionRecord};
use predictd_registry::service::{ChangeContext, RegistryServices};
use predictd_registry::{RegistryError, ResolveError};

use super::body::ValidatedJson;
use super::error::ApiError;
use super::state::ModelState;
use etag::{EtagJson, with_etag};
use path_params::ModelPath;
use preconditions::ChangeOrder;
use wire::{ChangeBody, EmptyBody, MAX_HISTORY_ENTRIES};

type ModelChangeAnswer = Result<EtagJson<ModelChangeView>, ApiError>;

/// Makes a change, and shows the model afterwards.
async fn apply_change<const N: usize, B: ChangeBody, F>(
    order: ChangeOrder<ModelPath<N>, B>,
    action: &str,
    work: impl FnOnce(Arc<RegistryServices>, [String; N], B, ChangeContext) -> F + Send + 'static,
) -> ModelChangeAnswer
where
    F: Future<Output = Result<ChangeOutcome, RegistryError>> + Send + 'static,
{
    let context = order.context(action, &order.path.0)?;
    let ChangeOrder { models, path: ModelPath(names), body: ValidatedJson(request, _memory), .. } = order;
    let name = names.first().cloned().unwrap_or_default();
    let experiment = models.registry.snapshot().experiments.get(&name).map(|running| running.experiment_name.clone());
    let work = |services, context| work(services, names, request, context);
    let outcome = models.require_registry()?.change(context, work).await?;
    let (ModelChangeSummary { revision, active, previous }, changed) = outcome.into_answer();
    Ok(with_etag(revision, ModelChangeView { name, revision, active, previous, changed, experiment }))
}

/// List what is recorded of all models.
#[utoipa::path(get, path = "/admin/models")]
pub async fn list(State(models): State<Arc<ModelState>>) -> Result<Json<RegisteredModelList>, ApiError> {
    let registry = &models.require_registry()?.services().context;
    let (epoch, records) = registry.recorded_models();
    let served = &models.registry.snapshot().models;
    let registered = records.into_iter().map(|(name, record)| {
        let served = served.get(&name);
        wire::registered_model(name, record, served)
    });
    let stale = registry.database_downtime().is_some();
    Ok(Json(RegisteredModelList { epoch, stale, models: registered.collect() }))
}

/// Show what is recorded of one model. Its revision is in the `ETag`.
#[utoipa::path(get, path = "/admin/models/{name}")]
pub async fn show(
    State(models): State<Arc<ModelState>>,
    ModelPath([name]): ModelPath,
) -> Result<EtagJson<RegisteredModel>, ApiError> {
    let record = models.require_registry()?.services().context.model_record(&name).ok_or(ResolveError::UnknownModel)?;
    let snapshot = models.registry.snapshot();
    let served = snapshot.models.get(&name);
    Ok(with_etag(record.revision, wire::registered_model(name, record, served)))
}

/// What was done to a model, by whom and why, the last first.
#[utoipa::path(get, path = "/admin/models/{name}/history")]
pub async fn history(
    State(models): State<Arc<ModelState>>,
    ModelPath([name]): ModelPath,
) -> Result<Json<Vec<AuditEntryView>>, ApiError> {
    let registry = models.require_registry()?;
    registry.services().context.model_record(&name).ok_or(ResolveError::UnknownModel)?;
    let read = registry.run(|services| async move {
        Ok(services.context.history(HistoryFilter::Model(&name), MAX_HISTORY_ENTRIES).await?)
    });
    Ok(Json(read.await?.into_iter().map(wire::audit_entry).collect()))
}

/// Add a version, whose files were uploaded before, or are with the MLflow server. It is checked as a load checks it, and does not answer yet.
#[utoipa::path(post, path = "/admin/models/{name}/versions")]
pub async fn register(order: ChangeOrder<ModelPath, RegisterRequest>) -> ModelChangeAnswer {
    let source = order.body.0.source.as_deref().map(wire::parse_source).transpose()?;
    apply_change(order, "register", |services, [name], request, context| async move {
        let RegisterRequest { version, files, metadata, .. } = request;
        if let Some(uri) = source {
            return services.models.register_pulled(&name, &version, PullRequest { uri, metadata }, &context).await;
        }
        let added = VersionRecord::new(Origin::Upload, wire::file_records(&files), metadata);
        services.models.register(&name, &version, added, &context).await
    })
    .await
}

/// Make a version the one that answers, once it was found to serve.
#[utoipa::path(post, path = "/admin/models/{name}/activate")]
pub async fn activate(order: ChangeOrder<ModelPath, ActivateRequest>) -> ModelChangeAnswer {
    apply_change(order, "activate", |services, [name], request, context| async move {
        services.models.activate(&name, &request.version, &context).await
    })
    .await
}

/// Make the version the one that answers that did so before.
#[utoipa::path(post, path = "/admin/models/{name}/rollback")]
pub async fn roll_back(order: ChangeOrder<ModelPath, ReasonBody>) -> ModelChangeAnswer {
    apply_change(order, "rollback", |services, [name], _, context| async move {
        services.models.roll_back(&name, &context).await
    })
    .await
}

/// Add figures to those of a version: how good it was found to be.
#[utoipa::path(put, path = "/admin/models/{name}/versions/{version}/metrics")]
pub async fn add_metrics(order: ChangeOrder<ModelPath<2>, MetricsRequest>) -> ModelChangeAnswer {
    apply_change(order, "measure", |services, [name, version], request, context| async move {
        services.models.add_metrics(&name, &version, request.metrics, &context).await
    })
    .await
}

/// Keep a version loaded although it is not active, or no longer.
#[utoipa::path(put, path = "/admin/models/{name}/versions/{version}/pin")]
pub async fn pin(order: ChangeOrder<ModelPath<2>, PinRequest>) -> ModelChangeAnswer {
    apply_change(order, "pin", |services, [name, version], request, context| async move {
        services.models.set_pinned(&name, &version, request.pinned, &context).await
    })
    .await
}

/// Forget a version, which must not be active.
#[utoipa::path(delete, path = "/admin/models/{name}/versions/{version}")]
pub async fn remove(order: ChangeOrder<ModelPath<2>, EmptyBody>) -> ModelChangeAnswer {
    apply_change(order, "remove", |services, [name, version], _, context| async move {
        services.models.remove(&name, &version, &context).await
    })
    .await
}
