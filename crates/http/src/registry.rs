//! `/admin/models`: what is recorded of models, and how operators change it.
//!
//! A change of what is there names the revision that it was decided on (`If-Match`); one that is sent twice under one
//! `Idempotency-Key` is made once.

pub mod etag;
pub mod path_params;
pub mod preconditions;
pub mod upload;
pub mod wire;

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::response::IntoResponse;
use predictd_api::models::{
    ActivateRequest, AuditEntryView, MetricsRequest, ModelChangeView, PinRequest, RegisterRequest, RegisteredModel,
    RegisteredModelList, RollbackRequest,
};
use predictd_registry::ResolveError;
use predictd_registry::database::{ChangeOutcome, HistoryFilter};
use predictd_registry::mlflow::pull::PullRequest;
use predictd_registry::mlflow::uri::{ModelUri, ModelUriError};
use predictd_registry::record::{Origin, VersionRecord};
use predictd_registry::service::{ChangeContext, RegistryError, RegistryServices};

use super::body::ValidatedJson;
use super::caller::Caller;
use super::error::ApiError;
use super::state::App;
use etag::{EtagJson, with_etag};
use path_params::{ModelPath, ModelVersionPath};
use preconditions::Preconditions;
use wire::{EmptyBody, MAX_HISTORY_ENTRIES};

/// Makes a change, and shows the model afterwards.
async fn apply_change<F>(
    app: &App,
    name: String,
    order: ChangeContext,
    work: impl FnOnce(Arc<RegistryServices>, ChangeContext) -> F + Send + 'static,
) -> Result<EtagJson<ModelChangeView>, ApiError>
where
    F: Future<Output = Result<ChangeOutcome, RegistryError>> + Send + 'static,
{
    let experiment =
        app.models.registry.snapshot().experiments.get(&name).map(|running| running.experiment_name.clone());
    let revised = match app.require_registry()?.change(order, work).await? {
        ChangeOutcome::Changed(record) => wire::model_change(name, &record, true),
        ChangeOutcome::Unchanged(record) => wire::model_change(name, &record, false),
        ChangeOutcome::Repeated(answer) => wire::repeated_model_change(name, &answer)?,
    };
    Ok(with_etag(revised.revision, ModelChangeView { experiment, ..revised }))
}

/// List what is recorded of all models.
#[utoipa::path(get, path = "/admin/models", tag = "admin", responses((status = 200, body = RegisteredModelList)))]
pub async fn list(State(app): State<Arc<App>>) -> Result<Json<RegisteredModelList>, ApiError> {
    let registry = &app.require_registry()?.services().context;
    let (epoch, records) = registry.recorded_models();
    let snapshot = app.models.registry.snapshot();
    let models =
        records.iter().map(|(name, record)| wire::registered_model(name, record, snapshot.models.get(name))).collect();
    Ok(Json(RegisteredModelList { epoch, stale: registry.database_downtime().is_some(), models }))
}

/// Show what is recorded of one model. Its revision is in the `ETag`.
#[utoipa::path(get, path = "/admin/models/{name}", tag = "admin", params(("name" = String, Path)), responses((status = 200, body = RegisteredModel)))]
pub async fn show(State(app): State<Arc<App>>, ModelPath(name): ModelPath) -> Result<impl IntoResponse, ApiError> {
    let record = app.require_registry()?.services().context.model_record(&name).ok_or(ResolveError::UnknownModel)?;
    let snapshot = app.models.registry.snapshot();
    Ok(with_etag(record.revision, wire::registered_model(&name, &record, snapshot.models.get(&name))))
}

/// What was done to a model, by whom and why, the last first.
#[utoipa::path(get, path = "/admin/models/{name}/history", tag = "admin", params(("name" = String, Path)), responses((status = 200, body = [AuditEntryView])))]
pub async fn history(
    State(app): State<Arc<App>>,
    ModelPath(name): ModelPath,
) -> Result<Json<Vec<AuditEntryView>>, ApiError> {
    app.require_registry()?.services().context.model_record(&name).ok_or(ResolveError::UnknownModel)?;
    let read = app.require_registry()?.run(|services| async move {
        Ok(services.context.history(HistoryFilter::Model(&name), MAX_HISTORY_ENTRIES).await?)
    });
    Ok(Json(read.await?.into_iter().map(wire::audit_entry).collect()))
}

/// Add a version, whose files were uploaded before, or are with the MLflow server. It is checked as a load checks it, and does not answer yet.
#[utoipa::path(
    post, path = "/admin/models/{name}/versions", tag = "admin", params(("name" = String, Path)),
    request_body = RegisterRequest, responses((status = 200, body = ModelChangeView))
)]
pub async fn register(
    State(app): State<Arc<App>>,
    ModelPath(name): ModelPath,
    caller: Caller,
    grounds: Preconditions,
    ValidatedJson(request, _memory): ValidatedJson<RegisterRequest>,
) -> Result<impl IntoResponse, ApiError> {
    let order = grounds.into_change_context(&caller, &["register", &name], &request, request.reason.clone());
    let RegisterRequest { version, files, source, metadata, .. } = request;
    let source: Option<ModelUri> =
        source.map(|source| source.parse()).transpose().map_err(|error: ModelUriError| {
            // It was checked.
            ApiError::at_pointer("/source", error.to_string())
        })?;
    let model = name.clone();
    let register = |services: Arc<RegistryServices>, order: ChangeContext| async move {
        if let Some(uri) = source {
            return services.models.register_pulled(&model, &version, PullRequest { uri, metadata }, &order).await;
        }
        let added = VersionRecord::new(Origin::Upload, wire::file_records(&files), metadata);
        services.models.register(&model, &version, added, &order).await
    };
    apply_change(&app, name, order, register).await
}

/// Make a version the one that answers, once it was found to serve.
#[utoipa::path(
    post, path = "/admin/models/{name}/activate", tag = "admin", params(("name" = String, Path)),
    request_body = ActivateRequest, responses((status = 200, body = ModelChangeView))
)]
pub async fn activate(
    State(app): State<Arc<App>>,
    ModelPath(name): ModelPath,
    caller: Caller,
    grounds: Preconditions,
    ValidatedJson(request, _memory): ValidatedJson<ActivateRequest>,
) -> Result<impl IntoResponse, ApiError> {
    let order = grounds.require_change_context(&caller, &["activate", &name], &request, request.reason.clone())?;
    let model = name.clone();
    apply_change(&app, name, order, |services, order| async move {
        services.models.activate(&model, &request.version, &order).await
    })
    .await
}

/// Make the version the one that answers that did so before.
#[utoipa::path(
    post, path = "/admin/models/{name}/rollback", tag = "admin", params(("name" = String, Path)),
    request_body = RollbackRequest, responses((status = 200, body = ModelChangeView))
)]
pub async fn roll_back(
    State(app): State<Arc<App>>,
    ModelPath(name): ModelPath,
    caller: Caller,
    grounds: Preconditions,
    ValidatedJson(request, _memory): ValidatedJson<RollbackRequest>,
) -> Result<impl IntoResponse, ApiError> {
    let order = grounds.require_change_context(&caller, &["rollback", &name], &request, request.reason.clone())?;
    let model = name.clone();
    apply_change(&app, name, order, |services, order| async move { services.models.roll_back(&model, &order).await })
        .await
}

/// Add figures to those of a version: how good it was found to be.
#[utoipa::path(
    put, path = "/admin/models/{name}/versions/{version}/metrics", tag = "admin",
    params(("name" = String, Path), ("version" = String, Path)), request_body = MetricsRequest, responses((status = 200, body = ModelChangeView))
)]
pub async fn add_metrics(
    State(app): State<Arc<App>>,
    ModelVersionPath(name, version): ModelVersionPath,
    caller: Caller,
    grounds: Preconditions,
    ValidatedJson(request, _memory): ValidatedJson<MetricsRequest>,
) -> Result<impl IntoResponse, ApiError> {
    let order = grounds.require_change_context(&caller, &["measure", &name, &version], &request, None)?;
    let model = name.clone();
    let metrics: BTreeMap<_, _> = request.metrics;
    apply_change(&app, name, order, |services, order| async move {
        services.models.add_metrics(&model, &version, metrics, &order).await
    })
    .await
}

/// Keep a version loaded although it is not active, or no longer.
#[utoipa::path(
    put, path = "/admin/models/{name}/versions/{version}/pin", tag = "admin",
    params(("name" = String, Path), ("version" = String, Path)), request_body = PinRequest, responses((status = 200, body = ModelChangeView))
)]
pub async fn pin(
    State(app): State<Arc<App>>,
    ModelVersionPath(name, version): ModelVersionPath,
    caller: Caller,
    grounds: Preconditions,
    ValidatedJson(request, _memory): ValidatedJson<PinRequest>,
) -> Result<impl IntoResponse, ApiError> {
    let order = grounds.require_change_context(&caller, &["pin", &name, &version], &request, None)?;
    let model = name.clone();
    let pinned = request.pinned;
    apply_change(&app, name, order, move |services, order| async move {
        services.models.set_pinned(&model, &version, pinned, &order).await
    })
    .await
}

/// Forget a version, which must not be active.
#[utoipa::path(
    delete, path = "/admin/models/{name}/versions/{version}", tag = "admin",
    params(("name" = String, Path), ("version" = String, Path)), responses((status = 200, body = ModelChangeView))
)]
pub async fn remove(
    State(app): State<Arc<App>>,
    ModelVersionPath(name, version): ModelVersionPath,
    caller: Caller,
    grounds: Preconditions,
) -> Result<impl IntoResponse, ApiError> {
    let order: ChangeContext =
        grounds.require_change_context(&caller, &["remove", &name, &version], &EmptyBody::default(), None)?;
    let model = name.clone();
    apply_change(
        &app,
        name,
        order,
        |services, order| async move { services.models.remove(&model, &version, &order).await },
    )
    .await
}
