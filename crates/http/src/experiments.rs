//! `/admin/experiments`: what is compared on live traffic, and what that shows.
//!
//! As with models, a change names the revision that it was decided on (`If-Match`), and one that is sent twice under one
//! `Idempotency-Key` is made once.

pub mod results;
pub mod view;
pub mod wire;

use std::sync::Arc;

use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{FromRequestParts, Path, Query, State};
use axum::http::request::Parts;
use axum::response::IntoResponse;
use predictd_api::experiment_results::ExperimentResultsView;
use predictd_api::experiments::{
    ExperimentChangeResponse, ExperimentDesignBody, ExperimentListView, ExperimentView, PromoteRequest,
    StateChangeRequest,
};
use predictd_api::models::AuditEntryView;
use predictd_experiments::experiment::Experiment;
use predictd_registry::database::experiments::ResultDetail;
use predictd_registry::database::{ChangeOutcome, HistoryFilter};
use predictd_registry::is_valid_name;
use predictd_registry::service::{ChangeContext, RegistryError, RegistryServices};
use serde::Deserialize;
use utoipa::IntoParams;

use super::body::ValidatedJson;
use super::caller::Caller;
use super::error::{ApiError, Code};
use super::registry::etag::{EtagJson, with_etag};
use super::registry::preconditions::{self, Preconditions};
use super::registry::wire::{EmptyBody, MAX_HISTORY_ENTRIES, audit_entry};
use super::state::App;

/// An experiment in a path. What cannot be a name is nobody's.
#[derive(Debug)]
pub struct ExperimentPath(pub String);

impl<S: Send + Sync> FromRequestParts<S> for ExperimentPath {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let path = Path::<String>::from_request_parts(parts, state).await;
        let Path(name) = path.map_err(|_| unknown_experiment())?;
        if is_valid_name(&name) { Ok(Self(name)) } else { Err(unknown_experiment()) }
    }
}

fn unknown_experiment() -> ApiError {
    ApiError::new(Code::ExperimentNotFound, "There is no experiment of this name; GET /admin/experiments lists them.")
}

/// Which results are asked for.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
pub struct ResultsQuery {
    /// The phase: a time with the same weights, from 1. The present one if none is named.
    pub phase: Option<u32>,
    /// Also every class, mistake and bin.
    #[serde(default)]
    pub details: bool,
}

/// Makes a change, and shows the experiment afterwards.
async fn apply_change<F>(
    app: &App,
    name: &str,
    order: ChangeContext,
    work: impl FnOnce(Arc<RegistryServices>, ChangeContext) -> F + Send + 'static,
) -> Result<EtagJson<ExperimentChangeResponse>, ApiError>
where
    F: Future<Output = Result<ChangeOutcome<Option<Experiment>>, RegistryError>> + Send + 'static,
{
    to_change_response(name, app.require_registry()?.change(order, work).await?)
}

/// What became of an experiment, or had become of it when the same was asked before.
fn to_change_response(
    name: &str,
    outcome: ChangeOutcome<Option<Experiment>>,
) -> Result<EtagJson<ExperimentChangeResponse>, ApiError> {
    let (experiment, changed) = match outcome {
        ChangeOutcome::Changed(experiment) => (experiment, true),
        ChangeOutcome::Unchanged(experiment) => (experiment, false),
        ChangeOutcome::Repeated(answer) => {
            let broken = |_| ApiError::new(Code::Internal, "The answer to the same request cannot be read any more.");
            (serde_json::from_str(&answer).map_err(broken)?, true)
        }
    };
    let revision = experiment.as_ref().map_or(0, |experiment| experiment.revision);
    Ok(with_etag(
        revision,
        ExperimentChangeResponse {
            changed,
            experiment: experiment.map(|experiment| view::experiment_view(name, &experiment)),
        },
    ))
}

/// List all experiments.
#[utoipa::path(get, path = "/admin/experiments", tag = "admin", responses((status = 200, body = ExperimentListView)))]
pub async fn list(State(app): State<Arc<App>>) -> Result<Json<ExperimentListView>, ApiError> {
    let registry = &app.require_registry()?.services().context;
    let experiments =
        registry.experiments().iter().map(|(name, experiment)| view::experiment_view(name, experiment)).collect();
    Ok(Json(ExperimentListView { stale: registry.database_downtime().is_some(), experiments }))
}

/// Show an experiment. Its revision is in the `ETag`.
#[utoipa::path(get, path = "/admin/experiments/{name}", tag = "admin", params(("name" = String, Path)), responses((status = 200, body = ExperimentView)))]
pub async fn show(
    State(app): State<Arc<App>>,
    ExperimentPath(name): ExperimentPath,
) -> Result<impl IntoResponse, ApiError> {
    let found =
        app.require_registry()?.services().context.experiments().remove(&name).ok_or_else(unknown_experiment)?;
    Ok(with_etag(found.revision, view::experiment_view(&name, &found)))
}

/// What was done to an experiment, by whom and why, the last first.
#[utoipa::path(get, path = "/admin/experiments/{name}/history", tag = "admin", params(("name" = String, Path)), responses((status = 200, body = [AuditEntryView])))]
pub async fn history(
    State(app): State<Arc<App>>,
    ExperimentPath(name): ExperimentPath,
) -> Result<Json<Vec<AuditEntryView>>, ApiError> {
    let read = app.require_registry()?.run(|services| async move {
        Ok(services.context.history(HistoryFilter::Experiment(&name), MAX_HISTORY_ENTRIES).await?)
    });
    let done = read.await?;
    if done.is_empty() { Err(unknown_experiment()) } else { Ok(Json(done.into_iter().map(audit_entry).collect())) }
}

/// What an experiment shows so far, summed over all replicas.
#[utoipa::path(
    get, path = "/admin/experiments/{name}/results", tag = "admin", params(("name" = String, Path), ResultsQuery),
    responses((status = 200, body = ExperimentResultsView))
)]
pub async fn results(
    State(app): State<Arc<App>>,
    ExperimentPath(name): ExperimentPath,
    which: Result<Query<ResultsQuery>, QueryRejection>,
) -> Result<Json<ExperimentResultsView>, ApiError> {
    let Query(ResultsQuery { phase, details }) = which
        .map_err(|_| ApiError::at_pointer("", "the query can have `phase`, a number, and `details`, true or false"))?;
    let named = name.clone();
    let with = if details { ResultDetail::Pairs } else { ResultDetail::Labels };
    let read = app
        .require_registry()?
        .run(move |services| async move { services.experiments.results(&named, phase, with).await });
    let (experiment, phase, found) = read.await?;
    Ok(Json(results::results_view(&name, &experiment, phase, &found, details)))
}

/// Make an experiment, or change it. Once it has begun only weights can change, which begins a new phase.
#[utoipa::path(
    put, path = "/admin/experiments/{name}", tag = "admin", params(("name" = String, Path)),
    request_body = ExperimentDesignBody, responses((status = 200, body = ExperimentChangeResponse))
)]
pub async fn define(
    State(app): State<Arc<App>>,
    ExperimentPath(name): ExperimentPath,
    caller: Caller,
    grounds: Preconditions,
    ValidatedJson(request, _memory): ValidatedJson<ExperimentDesignBody>,
) -> Result<impl IntoResponse, ApiError> {
    let known = app.require_registry()?.services().context.experiments().contains_key(&name);
    let order = grounds.into_change_context(&caller, &["experiment", &name], &request, request.reason.clone());
    if known && order.expected_revision.is_none() {
        // Unless it was this request that made it.
        let context = order.clone();
        let repeated =
            app.require_registry()?.run(|services| async move { Ok(services.context.find_repeated(&context).await?) });
        let outcome = repeated.await?.ok_or_else(preconditions::missing_precondition_error)?;
        return to_change_response(&name, outcome);
    }
    // What is new was never seen.
    let order = ChangeContext { expected_revision: order.expected_revision.or(Some(0)), ..order };
    let default_model = app.models.registry.snapshot().default_model.clone();
    let design = wire::into_design(request, &name, &default_model).map_err(wire::design_error)?;
    let named = name.clone();
    apply_change(&app, &name, order, |services, order| async move {
        services.experiments.define(&named, design, &order).await
    })
    .await
}

/// Start an experiment, or go on with it.
#[utoipa::path(
    post, path = "/admin/experiments/{name}/start", tag = "admin", params(("name" = String, Path)),
    request_body = StateChangeRequest, responses((status = 200, body = ExperimentChangeResponse))
)]
pub async fn start(
    State(app): State<Arc<App>>,
    ExperimentPath(name): ExperimentPath,
    caller: Caller,
    grounds: Preconditions,
    ValidatedJson(request, _memory): ValidatedJson<StateChangeRequest>,
) -> Result<impl IntoResponse, ApiError> {
    let order = grounds.require_change_context(&caller, &["start", &name], &request, request.reason.clone())?;
    let named = name.clone();
    apply_change(&app, &name, order, |services, order| async move { services.experiments.start(&named, &order).await })
        .await
}

/// Pause an experiment: everybody gets the active version.
#[utoipa::path(
    post, path = "/admin/experiments/{name}/pause", tag = "admin", params(("name" = String, Path)),
    request_body = StateChangeRequest, responses((status = 200, body = ExperimentChangeResponse))
)]
pub async fn pause(
    State(app): State<Arc<App>>,
    ExperimentPath(name): ExperimentPath,
    caller: Caller,
    grounds: Preconditions,
    ValidatedJson(request, _memory): ValidatedJson<StateChangeRequest>,
) -> Result<impl IntoResponse, ApiError> {
    let order = grounds.require_change_context(&caller, &["pause", &name], &request, request.reason.clone())?;
    let named = name.clone();
    apply_change(&app, &name, order, |services, order| async move { services.experiments.pause(&named, &order).await })
        .await
}

/// End an experiment for good: everybody gets the active version.
#[utoipa::path(
    post, path = "/admin/experiments/{name}/end", tag = "admin", params(("name" = String, Path)),
    request_body = StateChangeRequest, responses((status = 200, body = ExperimentChangeResponse))
)]
pub async fn end(
    State(app): State<Arc<App>>,
    ExperimentPath(name): ExperimentPath,
    caller: Caller,
    grounds: Preconditions,
    ValidatedJson(request, _memory): ValidatedJson<StateChangeRequest>,
) -> Result<impl IntoResponse, ApiError> {
    let order = grounds.require_change_context(&caller, &["end", &name], &request, request.reason.clone())?;
    let named = name.clone();
    let outcome = request.reason;
    apply_change(&app, &name, order, |services, order| async move {
        services.experiments.end(&named, outcome, &order).await
    })
    .await
}

/// Make the version of an arm the active one, and end the experiment.
#[utoipa::path(
    post, path = "/admin/experiments/{name}/promote", tag = "admin", params(("name" = String, Path)),
    request_body = PromoteRequest, responses((status = 200, body = ExperimentChangeResponse))
)]
pub async fn promote(
    State(app): State<Arc<App>>,
    ExperimentPath(name): ExperimentPath,
    caller: Caller,
    grounds: Preconditions,
    ValidatedJson(request, _memory): ValidatedJson<PromoteRequest>,
) -> Result<impl IntoResponse, ApiError> {
    let order = grounds.require_change_context(&caller, &["promote", &name], &request, request.reason.clone())?;
    let named = name.clone();
    apply_change(&app, &name, order, |services, order| async move {
        services.experiments.promote(&named, &request.arm, &order).await
    })
    .await
}

/// Forget an experiment that has not begun, or ended more than 31 days ago.
#[utoipa::path(
    delete, path = "/admin/experiments/{name}", tag = "admin", params(("name" = String, Path)),
    responses((status = 200, body = ExperimentChangeResponse))
)]
pub async fn delete(
    State(app): State<Arc<App>>,
    ExperimentPath(name): ExperimentPath,
    caller: Caller,
    grounds: Preconditions,
) -> Result<impl IntoResponse, ApiError> {
    let order = grounds.require_change_context(&caller, &["forget", &name], &EmptyBody::default(), None)?;
    let named = name.clone();
    apply_change(&app, &name, order, |services, order| async move { services.experiments.delete(&named, &order).await })
        .await
}
