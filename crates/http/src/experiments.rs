//! `/admin/experiments`: what is compared on live traffic, and what that shows.
//!
//! As with models, a change names the revision that it was decided on (`If-Match`), and one that is sent twice under one
//! `Idempotency-Key` is made once.

mod results;
mod view;
mod wire;

use std::sync::Arc;

use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use predictd_api::experiment_results::ExperimentResultsView;
use predictd_api::experiments::{
    ExperimentChangeResponse, ExperimentDesignBody, ExperimentListView, ExperimentView, PromoteRequest,
};
use predictd_api::models::AuditEntryView;
use predictd_api::reason::ReasonBody;
use predictd_registry::RegistryError;
use predictd_registry::database::HistoryFilter;
use predictd_registry::database::experiments::{ExperimentChangeOutcome, ResultDetail};
use predictd_registry::service::{ChangeContext, RegistryServices};
use serde::Deserialize;

use super::body::ValidatedJson;
use super::error::ApiError;
use super::registry::etag::{EtagJson, with_etag};
use super::registry::path_params::{ExperimentPath, unknown_experiment};
use super::registry::preconditions::ChangeOrder;
use super::registry::wire::{ChangeBody, EmptyBody, MAX_HISTORY_ENTRIES, audit_entry};
use super::state::ModelState;

/// Which results are asked for.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ResultsQuery {
    /// The phase: a time with the same weights, from 1. The present one if none is named.
    pub phase: Option<u32>,
    /// Also every class, mistake and bin.
    #[serde(default)]
    pub details: bool,
}

type ExperimentChangeAnswer = Result<EtagJson<ExperimentChangeResponse>, ApiError>;

/// Makes a change, and shows the experiment afterwards.
async fn apply_change<B: ChangeBody, F>(
    order: ChangeOrder<ExperimentPath, B>,
    action: &str,
    work: impl FnOnce(Arc<RegistryServices>, String, B, ChangeContext) -> F + Send + 'static,
) -> ExperimentChangeAnswer
where
    F: Future<Output = Result<ExperimentChangeOutcome, RegistryError>> + Send + 'static,
{
    let context = order.context(action, &order.path.0)?;
    let ChangeOrder { models, path: ExperimentPath([name]), body: ValidatedJson(request, _memory), .. } = order;
    let named = name.clone();
    let work = |services, context| work(services, named, request, context);
    Ok(to_change_response(name, models.require_registry()?.change(context, work).await?))
}

/// What became of an experiment, or had become of it when the same was asked before.
fn to_change_response(name: String, outcome: ExperimentChangeOutcome) -> EtagJson<ExperimentChangeResponse> {
    let (experiment, changed) = outcome.into_answer();
    let revision = experiment.as_ref().map_or(0, |experiment| experiment.revision);
    let experiment = experiment.map(|experiment| view::experiment_view(name, experiment));
    with_etag(revision, ExperimentChangeResponse { changed, experiment })
}

/// List all experiments.
#[utoipa::path(get, path = "/admin/experiments")]
pub async fn list(State(models): State<Arc<ModelState>>) -> Result<Json<ExperimentListView>, ApiError> {
    let registry = &models.require_registry()?.services().context;
    let experiments = registry.experiments().into_iter();
    let experiments = experiments.map(|(name, experiment)| view::experiment_view(name, experiment)).collect();
    Ok(Json(ExperimentListView { stale: registry.database_downtime().is_some(), experiments }))
}

/// Show an experiment. Its revision is in the `ETag`.
#[utoipa::path(get, path = "/admin/experiments/{name}")]
pub async fn show(
    State(models): State<Arc<ModelState>>,
    ExperimentPath([name]): ExperimentPath,
) -> Result<EtagJson<ExperimentView>, ApiError> {
    let mut experiments = models.require_registry()?.services().context.experiments();
    let found = experiments.remove(&name).ok_or_else(unknown_experiment)?;
    Ok(with_etag(found.revision, view::experiment_view(name, found)))
}

/// What was done to an experiment, by whom and why, the last first.
#[utoipa::path(get, path = "/admin/experiments/{name}/history")]
pub async fn history(
    State(models): State<Arc<ModelState>>,
    ExperimentPath([name]): ExperimentPath,
) -> Result<Json<Vec<AuditEntryView>>, ApiError> {
    let read = models.require_registry()?.run(|services| async move {
        Ok(services.context.history(HistoryFilter::Experiment(&name), MAX_HISTORY_ENTRIES).await?)
    });
    let done = read.await?;
    if done.is_empty() { Err(unknown_experiment()) } else { Ok(Json(done.into_iter().map(audit_entry).collect())) }
}

/// What an experiment shows so far, summed over all replicas.
#[utoipa::path(get, path = "/admin/experiments/{name}/results")]
pub async fn results(
    State(models): State<Arc<ModelState>>,
    ExperimentPath([name]): ExperimentPath,
    which: Result<Query<ResultsQuery>, QueryRejection>,
) -> Result<Json<ExperimentResultsView>, ApiError> {
    let Query(ResultsQuery { phase, details }) = which
        .map_err(|_| ApiError::at_pointer("", "the query can have `phase`, a number, and `details`, true or false"))?;
    let named = name.clone();
    let with = if details { ResultDetail::Pairs } else { ResultDetail::Labels };
    let read = models
        .require_registry()?
        .run(move |services| async move { services.evaluator.results(&named, phase, with).await });
    Ok(Json(results::results_view(name, read.await?, details)))
}

/// Make an experiment, or change it. Once it has begun only weights can change, which begins a new phase.
#[utoipa::path(put, path = "/admin/experiments/{name}")]
pub async fn define(order: ChangeOrder<ExperimentPath, ExperimentDesignBody>) -> ExperimentChangeAnswer {
    let context = order.context("experiment", &order.path.0)?;
    let ChangeOrder { models, path: ExperimentPath([name]), body: ValidatedJson(request, _memory), .. } = order;
    let registry = models.require_registry()?;
    let is_known = registry.services().context.experiments().contains_key(&name);
    let design = if is_known && context.expected_revision.is_none() {
        Err(RegistryError::RevisionRequired)
    } else {
        Ok(wire::into_design(request, &name, &models.registry.snapshot().default_model)?)
    };
    let named = name.clone();
    let change = registry.change(context, |services, context| async move {
        services.experiments.define(&named, design?, &context).await
    });
    Ok(to_change_response(name, change.await?))
}

/// Start an experiment, or go on with it.
#[utoipa::path(post, path = "/admin/experiments/{name}/start")]
pub async fn start(order: ChangeOrder<ExperimentPath, ReasonBody>) -> ExperimentChangeAnswer {
    apply_change(order, "start", |services, name, _, context| async move {
        services.experiments.start(&name, &context).await
    })
    .await
}

/// Pause an experiment: all users get the active version.
#[utoipa::path(post, path = "/admin/experiments/{name}/pause")]
pub async fn pause(order: ChangeOrder<ExperimentPath, ReasonBody>) -> ExperimentChangeAnswer {
    apply_change(order, "pause", |services, name, _, context| async move {
        services.experiments.pause(&name, &context).await
    })
    .await
}

/// End an experiment for good: all users get the active version.
#[utoipa::path(post, path = "/admin/experiments/{name}/end")]
pub async fn end(order: ChangeOrder<ExperimentPath, ReasonBody>) -> ExperimentChangeAnswer {
    apply_change(order, "end", |services, name, request, context| async move {
        services.experiments.end(&name, request.reason, &context).await
    })
    .await
}

/// Make the version of an arm the active one, and end the experiment.
#[utoipa::path(post, path = "/admin/experiments/{name}/promote")]
pub async fn promote(order: ChangeOrder<ExperimentPath, PromoteRequest>) -> ExperimentChangeAnswer {
    apply_change(order, "promote", |services, name, request, context| async move {
        services.experiments.promote(&name, &request.arm, &context).await
    })
    .await
}

/// Forget an experiment that has not begun, or ended more than 31 days ago.
#[utoipa::path(delete, path = "/admin/experiments/{name}")]
pub async fn delete(order: ChangeOrder<ExperimentPath, EmptyBody>) -> ExperimentChangeAnswer {
    apply_change(order, "forget", |services, name, _, context| async move {
        services.experiments.delete(&name, &context).await
    })
    .await
}
