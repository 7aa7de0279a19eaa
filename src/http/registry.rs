//! `/admin/models`: what is recorded of models, and how operators change it.
//!
//! A change of what is there names the revision that it was decided on (`If-Match`); one that is sent twice under one
//! `Idempotency-Key` is made once.

pub mod names;
pub mod order;
pub mod upload;
pub mod wire;

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::header::ETAG;
use axum::response::{AppendHeaders, IntoResponse};

use super::App;
use super::auth::Caller;
use super::body::Checked;
use super::error::{ApiError, Code};
use crate::registry::database::{Of, Outcome};
use crate::registry::keeper::{KeepError, Keeper, NewVersion, Order};
use crate::registry::keeping::Keeping;
use crate::registry::mlflow::uri::{ModelUri, NoModel};
use crate::registry::record::Origin;
use crate::registry::{ResolveError, store};
use names::{OfModel, OfVersion};
use order::Grounds;
use wire::{Activate, Done, Measure, Model, Models, Pin, Register, Revised, RollBack, Why};

/// Most entries of a history that are shown.
pub(super) const HISTORY: i64 = 1_000;

/// With this an answer to who changed or asked for a model begins.
pub(super) type Tagged<T> = (AppendHeaders<[(axum::http::HeaderName, String); 1]>, Json<T>);

pub(super) fn tagged<T>(revision: i64, body: T) -> Tagged<T> {
    (AppendHeaders([(ETAG, format!("\"{revision}\""))]), Json(body))
}

pub(super) fn keeping(app: &App) -> Result<&Keeping, ApiError> {
    let none = || ApiError::new(Code::RegistryUnavailable, "This process has no registry.");
    app.keeping.as_ref().ok_or_else(none)
}

/// Does something with the keeper, to its end, unless the same was asked before.
async fn change<F>(
    app: &App,
    name: String,
    order: Order,
    work: impl FnOnce(Arc<Keeper>, Order) -> F + Send + 'static,
) -> Result<Tagged<Revised>, ApiError>
where
    F: Future<Output = Result<Outcome, KeepError>> + Send + 'static,
{
    let once = |keeper: Arc<Keeper>| async move {
        match keeper.repeated(&order).await? {
            Some(outcome) => Ok(outcome),
            None => work(keeper, order).await,
        }
    };
    let revised = match keeping(app)?.run(once).await? {
        Outcome::Changed(record) => Revised { changed: true, ..Revised::of(name, &record) },
        Outcome::AsItWas(record) => Revised::of(name, &record),
        Outcome::Repeated(answer) => Revised::repeated(name, &answer)?,
    };
    Ok(tagged(revised.revision, revised))
}

/// List what is recorded of all models.
#[utoipa::path(get, path = "/admin/models", tag = "admin", responses((status = 200, body = Models)))]
pub async fn list(State(app): State<Arc<App>>) -> Result<Json<Models>, ApiError> {
    let keeper = keeping(&app)?.keeper();
    let (epoch, records) = keeper.known();
    let snapshot = app.registry.snapshot();
    let models = records.iter().map(|(name, record)| Model::of(name, record, snapshot.models.get(name))).collect();
    Ok(Json(Models { epoch, stale: keeper.stale_for().is_some(), models }))
}

/// Show what is recorded of one model. Its revision is in the `ETag`.
#[utoipa::path(get, path = "/admin/models/{name}", tag = "admin", params(("name" = String, Path)), responses((status = 200, body = Model)))]
pub async fn show(State(app): State<Arc<App>>, OfModel(name): OfModel) -> Result<impl IntoResponse, ApiError> {
    let record = keeping(&app)?.keeper().recorded(&name).ok_or(ResolveError::UnknownModel)?;
    let snapshot = app.registry.snapshot();
    Ok(tagged(record.revision, Model::of(&name, &record, snapshot.models.get(&name))))
}

/// What was done to a model, by whom and why, the last first.
#[utoipa::path(get, path = "/admin/models/{name}/history", tag = "admin", params(("name" = String, Path)), responses((status = 200, body = [Done])))]
pub async fn history(State(app): State<Arc<App>>, OfModel(name): OfModel) -> Result<Json<Vec<Done>>, ApiError> {
    keeping(&app)?.keeper().recorded(&name).ok_or(ResolveError::UnknownModel)?;
    let read = keeping(&app)?.run(|keeper| async move { Ok(keeper.history(Of::Model(&name), HISTORY).await?) });
    Ok(Json(read.await?.into_iter().map(Done::from).collect()))
}

/// Add a version, whose files were uploaded before, or are with the MLflow server. It is checked as a load checks it, and does not answer yet.
#[utoipa::path(
    post, path = "/admin/models/{name}/versions", tag = "admin", params(("name" = String, Path)),
    request_body = Register, responses((status = 200, body = Revised))
)]
pub async fn register(
    State(app): State<Arc<App>>,
    OfModel(name): OfModel,
    caller: Caller,
    grounds: Grounds,
    Checked(wanted, _memory): Checked<Register>,
) -> Result<impl IntoResponse, ApiError> {
    let order = grounds.order(&caller, &["register", &name], &wanted, wanted.reason.clone());
    let Register { version, files, source, metadata, .. } = wanted;
    let source: Option<ModelUri> = source.map(|source| source.parse()).transpose().map_err(|error: NoModel| {
        // It was checked.
        ApiError::at("/source", error.to_string())
    })?;
    let model = name.clone();
    let register = |keeper: Arc<Keeper>, order: Order| async move {
        let added = match source {
            Some(uri) => keeper.pull(&uri, metadata).await?,
            None => NewVersion { origin: Origin::Upload, files, metadata },
        };
        keeper.register(&model, &version, added, &order).await
    };
    change(&app, name, order, register).await
}

/// Make a version the one that answers, once it was found to serve.
#[utoipa::path(
    post, path = "/admin/models/{name}/activate", tag = "admin", params(("name" = String, Path)),
    request_body = Activate, responses((status = 200, body = Revised))
)]
pub async fn activate(
    State(app): State<Arc<App>>,
    OfModel(name): OfModel,
    caller: Caller,
    grounds: Grounds,
    Checked(wanted, _memory): Checked<Activate>,
) -> Result<impl IntoResponse, ApiError> {
    let order = grounds.seen(&caller, &["activate", &name], &wanted, wanted.reason.clone())?;
    let model = name.clone();
    change(&app, name, order, |keeper, order| async move { keeper.activate(&model, &wanted.version, &order).await })
        .await
}

/// Make the version the one that answers that did so before.
#[utoipa::path(
    post, path = "/admin/models/{name}/rollback", tag = "admin", params(("name" = String, Path)),
    request_body = RollBack, responses((status = 200, body = Revised))
)]
pub async fn roll_back(
    State(app): State<Arc<App>>,
    OfModel(name): OfModel,
    caller: Caller,
    grounds: Grounds,
    Checked(wanted, _memory): Checked<RollBack>,
) -> Result<impl IntoResponse, ApiError> {
    let order = grounds.seen(&caller, &["rollback", &name], &wanted, wanted.reason.clone())?;
    let model = name.clone();
    change(&app, name, order, |keeper, order| async move { keeper.roll_back(&model, &order).await }).await
}

/// Add figures to those of a version: how good it was found to be.
#[utoipa::path(
    put, path = "/admin/models/{name}/versions/{version}/metrics", tag = "admin",
    params(("name" = String, Path), ("version" = String, Path)), request_body = Measure, responses((status = 200, body = Revised))
)]
pub async fn measure(
    State(app): State<Arc<App>>,
    OfVersion(name, version): OfVersion,
    caller: Caller,
    grounds: Grounds,
    Checked(wanted, _memory): Checked<Measure>,
) -> Result<impl IntoResponse, ApiError> {
    let order = grounds.seen(&caller, &["measure", &name, &version], &wanted, None)?;
    let (model, metrics): (_, BTreeMap<_, _>) = (name.clone(), wanted.metrics);
    change(&app, name, order, |keeper, order| async move { keeper.measure(&model, &version, metrics, &order).await })
        .await
}

/// Keep a version loaded although it is not active, or no longer.
#[utoipa::path(
    put, path = "/admin/models/{name}/versions/{version}/pin", tag = "admin",
    params(("name" = String, Path), ("version" = String, Path)), request_body = Pin, responses((status = 200, body = Revised))
)]
pub async fn pin(
    State(app): State<Arc<App>>,
    OfVersion(name, version): OfVersion,
    caller: Caller,
    grounds: Grounds,
    Checked(wanted, _memory): Checked<Pin>,
) -> Result<impl IntoResponse, ApiError> {
    let order = grounds.seen(&caller, &["pin", &name, &version], &wanted, None)?;
    let model = name.clone();
    let pinned = wanted.pinned;
    change(&app, name, order, move |keeper, order| async move { keeper.pin(&model, &version, pinned, &order).await })
        .await
}

/// Forget a version, which must not be active.
#[utoipa::path(
    delete, path = "/admin/models/{name}/versions/{version}", tag = "admin",
    params(("name" = String, Path), ("version" = String, Path)), responses((status = 200, body = Revised))
)]
pub async fn remove(
    State(app): State<Arc<App>>,
    OfVersion(name, version): OfVersion,
    caller: Caller,
    grounds: Grounds,
) -> Result<impl IntoResponse, ApiError> {
    let order: Order = grounds.seen(&caller, &["remove", &name, &version], &Why::default(), None)?;
    let model = name.clone();
    change(&app, name, order, |keeper, order| async move { keeper.remove(&model, &version, &order).await }).await
}

/// What is wrong with a list of files.
fn check_files(files: &[crate::registry::record::FileRecord]) -> Result<(), ApiError> {
    store::check(files).map_err(|reason| ApiError::at("/files", reason))
}
