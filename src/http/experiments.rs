//! `/admin/experiments`: what is compared on live traffic, and what that shows.
//!
//! As with models, a change names the revision that it was decided on (`If-Match`), and one that is sent twice under one
//! `Idempotency-Key` is made once.

pub mod results;
pub mod wire;

use std::sync::Arc;

use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{FromRequestParts, Path, Query, State};
use axum::http::request::Parts;
use axum::response::IntoResponse;
use serde::Deserialize;
use utoipa::IntoParams;

use super::App;
use super::auth::Caller;
use super::body::Checked;
use super::error::{ApiError, Code};
use super::registry::order::Grounds;
use super::registry::wire::{Done, Why};
use super::registry::{HISTORY, Tagged, keeping, tagged};
use crate::experiments::experiment::Experiment;
use crate::registry::database::{Of, Outcome};
use crate::registry::is_name;
use crate::registry::keeper::{KeepError, Keeper, Order};
use results::Results;
use wire::{Changed, Design, Experiments, OfArm, Reason, Shown};

/// An experiment in a path. What cannot be a name is nobody's.
#[derive(Debug)]
pub struct OfExperiment(pub String);

impl<S: Send + Sync> FromRequestParts<S> for OfExperiment {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let path = Path::<String>::from_request_parts(parts, state).await;
        let Path(name) = path.map_err(|_| none())?;
        if is_name(&name) { Ok(Self(name)) } else { Err(none()) }
    }
}

fn none() -> ApiError {
    ApiError::new(Code::ExperimentNotFound, "There is no experiment of this name; GET /admin/experiments lists them.")
}

/// Which results are asked for.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
pub struct Which {
    /// The phase: a time with the same weights, from 1. The present one if none is named.
    pub phase: Option<u32>,
    /// Also every class, mistake and bin.
    #[serde(default)]
    pub details: bool,
}

/// Does something to an experiment, to its end, unless the same was asked before.
async fn change<F>(
    app: &App,
    name: &str,
    order: Order,
    work: impl FnOnce(Arc<Keeper>, Order) -> F + Send + 'static,
) -> Result<Tagged<Changed>, ApiError>
where
    F: Future<Output = Result<Outcome<Option<Experiment>>, KeepError>> + Send + 'static,
{
    let once = |keeper: Arc<Keeper>| async move {
        match keeper.repeated(&order).await? {
            Some(outcome) => Ok(outcome),
            None => work(keeper, order).await,
        }
    };
    let (experiment, changed) = match keeping(app)?.run(once).await? {
        Outcome::Changed(experiment) => (experiment, true),
        Outcome::AsItWas(experiment) => (experiment, false),
        Outcome::Repeated(answer) => {
            let broken = |_| ApiError::new(Code::Internal, "The answer to the same request cannot be read any more.");
            (serde_json::from_str(&answer).map_err(broken)?, true)
        }
    };
    let revision = experiment.as_ref().map_or(0, |experiment| experiment.revision);
    Ok(tagged(revision, Changed { changed, experiment: experiment.map(|experiment| Shown::of(name, &experiment)) }))
}

/// List all experiments.
#[utoipa::path(get, path = "/admin/experiments", tag = "admin", responses((status = 200, body = Experiments)))]
pub async fn list(State(app): State<Arc<App>>) -> Result<Json<Experiments>, ApiError> {
    let keeper = keeping(&app)?.keeper();
    let experiments = keeper.experiments().iter().map(|(name, experiment)| Shown::of(name, experiment)).collect();
    Ok(Json(Experiments { stale: keeper.stale_for().is_some(), experiments }))
}

/// Show an experiment. Its revision is in the `ETag`.
#[utoipa::path(get, path = "/admin/experiments/{name}", tag = "admin", params(("name" = String, Path)), responses((status = 200, body = Shown)))]
pub async fn show(
    State(app): State<Arc<App>>,
    OfExperiment(name): OfExperiment,
) -> Result<impl IntoResponse, ApiError> {
    let found = keeping(&app)?.keeper().experiments().remove(&name).ok_or_else(none)?;
    Ok(tagged(found.revision, Shown::of(&name, &found)))
}

/// What was done to an experiment, by whom and why, the last first.
#[utoipa::path(get, path = "/admin/experiments/{name}/history", tag = "admin", params(("name" = String, Path)), responses((status = 200, body = [Done])))]
pub async fn history(
    State(app): State<Arc<App>>,
    OfExperiment(name): OfExperiment,
) -> Result<Json<Vec<Done>>, ApiError> {
    let read = keeping(&app)?.run(|keeper| async move { Ok(keeper.history(Of::Experiment(&name), HISTORY).await?) });
    let done = read.await?;
    if done.is_empty() { Err(none()) } else { Ok(Json(done.into_iter().map(Done::from).collect())) }
}

/// What an experiment shows so far, summed over all replicas.
#[utoipa::path(
    get, path = "/admin/experiments/{name}/results", tag = "admin", params(("name" = String, Path), Which),
    responses((status = 200, body = Results))
)]
pub async fn results(
    State(app): State<Arc<App>>,
    OfExperiment(name): OfExperiment,
    which: Result<Query<Which>, QueryRejection>,
) -> Result<Json<Results>, ApiError> {
    let Query(Which { phase, details }) =
        which.map_err(|_| ApiError::at("", "the query can have `phase`, a number, and `details`, true or false"))?;
    let named = name.clone();
    let read = keeping(&app)?.run(move |keeper| async move { keeper.results(&named, phase, details).await });
    let (experiment, phase, found) = read.await?;
    Ok(Json(Results::of(&name, &experiment, phase, &found, details)))
}

/// Make an experiment, or change it. Once it has begun only weights can change, which begins a new phase.
#[utoipa::path(
    put, path = "/admin/experiments/{name}", tag = "admin", params(("name" = String, Path)),
    request_body = Design, responses((status = 200, body = Changed))
)]
pub async fn design(
    State(app): State<Arc<App>>,
    OfExperiment(name): OfExperiment,
    caller: Caller,
    grounds: Grounds,
    Checked(wanted, _memory): Checked<Design>,
) -> Result<impl IntoResponse, ApiError> {
    let known = keeping(&app)?.keeper().experiments().contains_key(&name);
    let reason = wanted.reason.clone();
    let what = ["experiment", name.as_str()];
    // What is new was never seen.
    let order = if known {
        grounds.seen(&caller, &what, &wanted, reason)?
    } else {
        let order = grounds.order(&caller, &what, &wanted, reason);
        Order { revision: order.revision.or(Some(0)), ..order }
    };
    let default_model = app.registry.snapshot().default_model.clone();
    let design = wanted.design(&name, &default_model).map_err(wire::refused)?;
    let named = name.clone();
    change(&app, &name, order, |keeper, order| async move { keeper.design(&named, design, &order).await }).await
}

/// Start an experiment, or go on with it.
#[utoipa::path(
    post, path = "/admin/experiments/{name}/start", tag = "admin", params(("name" = String, Path)),
    request_body = Reason, responses((status = 200, body = Changed))
)]
pub async fn start(
    State(app): State<Arc<App>>,
    OfExperiment(name): OfExperiment,
    caller: Caller,
    grounds: Grounds,
    Checked(wanted, _memory): Checked<Reason>,
) -> Result<impl IntoResponse, ApiError> {
    let order = grounds.seen(&caller, &["start", &name], &wanted, wanted.reason.clone())?;
    let named = name.clone();
    change(&app, &name, order, |keeper, order| async move { keeper.start(&named, &order).await }).await
}

/// Pause an experiment: everybody gets the active version.
#[utoipa::path(
    post, path = "/admin/experiments/{name}/pause", tag = "admin", params(("name" = String, Path)),
    request_body = Reason, responses((status = 200, body = Changed))
)]
pub async fn pause(
    State(app): State<Arc<App>>,
    OfExperiment(name): OfExperiment,
    caller: Caller,
    grounds: Grounds,
    Checked(wanted, _memory): Checked<Reason>,
) -> Result<impl IntoResponse, ApiError> {
    let order = grounds.seen(&caller, &["pause", &name], &wanted, wanted.reason.clone())?;
    let named = name.clone();
    change(&app, &name, order, |keeper, order| async move { keeper.pause(&named, &order).await }).await
}

/// End an experiment for good: everybody gets the active version.
#[utoipa::path(
    post, path = "/admin/experiments/{name}/end", tag = "admin", params(("name" = String, Path)),
    request_body = Reason, responses((status = 200, body = Changed))
)]
pub async fn end(
    State(app): State<Arc<App>>,
    OfExperiment(name): OfExperiment,
    caller: Caller,
    grounds: Grounds,
    Checked(wanted, _memory): Checked<Reason>,
) -> Result<impl IntoResponse, ApiError> {
    let order = grounds.seen(&caller, &["end", &name], &wanted, wanted.reason.clone())?;
    let (named, outcome) = (name.clone(), wanted.reason);
    change(&app, &name, order, |keeper, order| async move { keeper.end(&named, outcome, &order).await }).await
}

/// Make the version of an arm the active one, and end the experiment.
#[utoipa::path(
    post, path = "/admin/experiments/{name}/promote", tag = "admin", params(("name" = String, Path)),
    request_body = OfArm, responses((status = 200, body = Changed))
)]
pub async fn promote(
    State(app): State<Arc<App>>,
    OfExperiment(name): OfExperiment,
    caller: Caller,
    grounds: Grounds,
    Checked(wanted, _memory): Checked<OfArm>,
) -> Result<impl IntoResponse, ApiError> {
    let order = grounds.seen(&caller, &["promote", &name], &wanted, wanted.reason.clone())?;
    let named = name.clone();
    change(&app, &name, order, |keeper, order| async move { keeper.promote(&named, &wanted.arm, &order).await }).await
}

/// Forget an experiment that has not begun, or ended more than 31 days ago.
#[utoipa::path(
    delete, path = "/admin/experiments/{name}", tag = "admin", params(("name" = String, Path)),
    responses((status = 200, body = Changed))
)]
pub async fn forget(
    State(app): State<Arc<App>>,
    OfExperiment(name): OfExperiment,
    caller: Caller,
    grounds: Grounds,
) -> Result<impl IntoResponse, ApiError> {
    let order = grounds.seen(&caller, &["forget", &name], &Why::default(), None)?;
    let named = name.clone();
    change(&app, &name, order, |keeper, order| async move { keeper.forget_experiment(&named, &order).await }).await
}
