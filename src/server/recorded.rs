//! The models that outlast the process: opened, loaded, and let go.

use std::collections::BTreeSet;
use std::fs::DirBuilder;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use tokio_util::sync::CancellationToken;

use super::RunError;
use crate::ceiling::{self, Bound};
use crate::config::{Follow, Mlflow, Settings};
use crate::engine::loading::{Host, ModelSource};
use crate::registry::database::{Database, OpenError, Records, sqlite_url};
use crate::registry::directory::{self, Gone};
use crate::registry::keeper::{Fits, Following, Keeper, Place};
use crate::registry::keeping::{self, Keeping};
use crate::registry::known::Keepsake;
use crate::registry::mlflow::client::Client;
use crate::registry::record::{Origin, VersionRecord};
use crate::registry::spool::Spool;
use crate::registry::store::Store;
use crate::registry::{Registry, backup};

/// A loaded model is its files, and as much again of weights in the order that the processor likes.
const LOADED_SIZE: u64 = 2;

/// Opens the database and the store, and records the operator's own models.
pub(super) fn open(settings: &Settings, host: Host, sources: Vec<ModelSource>) -> Result<Keeping, RunError> {
    let (data, shared) = (&settings.data_dir, settings.database.is_some());
    let in_data = |error: &dyn std::fmt::Display| format!("--data-dir {}: {error}", data.display());
    let wrong = RunError::Configuration;
    DirBuilder::new().recursive(true).mode(0o700).create(data).map_err(|error| wrong(in_data(&error)))?;
    let lock = if shared { None } else { Some(keeping::lock(data).map_err(|error| wrong(in_data(&error)))?) };
    let store = Store::open(&data.join("store"), !shared).map_err(|error| wrong(in_data(&error)))?;
    let file = data.join(backup::FILE);
    if !shared && !has_content(&file) && store.holds().map_err(|error| wrong(in_data(&error)))? {
        return Err(wrong(format!(
            "{}: it is not there, or empty, and the store beside it holds versions: put a backup in its place (predictd database restore), or move the store away",
            file.display()
        )));
    }
    if !shared && is_of_a_network(data) {
        tracing::warn!(
            directory = %data.display(),
            "the data directory is on a file system of a network, where SQLite's locks may not hold: keep it on a disk, or use --database"
        );
    }
    let (named, url) = match &settings.database {
        Some(url) => ("--database".to_owned(), url.clone()),
        None => (file.display().to_string(), sqlite_url(&file).map_err(|error| wrong(in_data(&error)))?),
    };
    let (models, default, fits) = (settings.models.clone(), settings.default_model.clone(), fits(settings));
    let mlflow = settings.mlflow.server.as_ref().map(Client::new).transpose();
    let mlflow = mlflow.map_err(|error| wrong(format!("--mlflow: {error}")))?;
    let coming: Vec<String> = settings.mlflow.follows.iter().map(|follow| follow.local.clone()).collect();
    let keepsake = shared.then(|| Keepsake::within(data));
    let spool = Spool::within(data);
    // An empty directory is one that is not there yet.
    let gone = if shared || sources.is_empty() { Gone::Stays } else { Gone::Forgotten };
    let open = move || async move {
        let at = |error: &dyn std::fmt::Display| format!("{named}: {error}");
        let registry = |records: &Records| {
            let coming: Vec<&str> = coming.iter().map(String::as_str).collect();
            let own = |record: &VersionRecord| record.origin == Origin::Directory;
            // What is recorded of the operator's directory cannot be served from an empty one.
            let only_own = records.values().flat_map(|record| record.versions.values()).all(own);
            let none = Records::new();
            let records = if sources.is_empty() && only_own { &none } else { records };
            let registry = Registry::recorded(records, default.as_deref(), &coming);
            registry.map(Arc::new).map_err(|error| format!("--models {}: {error}", models.display()))
        };
        let opened = async {
            let database = Database::open(&url).await?;
            let records = directory::record(&database, &sources, gone).await.map_err(OpenError::from)?;
            Ok((database, records))
        };
        match opened.await {
            Ok((database, records)) => {
                let registry = registry(&records)?;
                let place = Place { registry, database, store, models, host, fits, spool, mlflow, keepsake };
                Keeper::open(place).await.map_err(|error| at(&error))
            }
            Err(OpenError::Away(reason)) => {
                let known = keepsake.as_ref().and_then(Keepsake::read).ok_or_else(|| at(&reason))?;
                tracing::error!(reason, "the database does not answer: what was known last is served");
                let (registry, database) =
                    (registry(&known.records)?, Database::later(&url).map_err(|error| at(&error))?);
                let place = Place { registry, database, store, models, host, fits, spool, mlflow, keepsake };
                Ok(Keeper::new(place, known, sources))
            }
            Err(error) => Err(at(&error)),
        }
    };
    Keeping::start(lock, open).map_err(wrong)
}

/// True if a file is there and not empty.
fn has_content(path: &Path) -> bool {
    std::fs::metadata(path).is_ok_and(|metadata| metadata.len() > 0)
}

/// True for NFS, SMB, CIFS, SMB2, AFS, Ceph, Coda and 9P, by their numbers in `linux/magic.h`.
#[cfg(target_os = "linux")]
fn is_of_a_network(path: &Path) -> bool {
    const NETWORKS: [u32; 8] =
        [0x6969, 0x517b, 0xff53_4d42, 0xfe53_4d42, 0x5346_414f, 0x00c3_6400, 0x7375_7245, 0x0102_1997];
    let number = rustix::fs::statfs(path).map(|found| found.f_type);
    // The field is wider than the number.
    number.is_ok_and(|number| u32::try_from(number & 0xffff_ffff).is_ok_and(|number| NETWORKS.contains(&number)))
}

/// Nobody tells.
#[cfg(not(target_os = "linux"))]
fn is_of_a_network(_: &Path) -> bool {
    false
}

/// Whether there is room for one more model.
fn fits(settings: &Settings) -> Fits {
    let settings = settings.clone();
    Arc::new(move |registry, bytes| {
        let bound = ceiling::bound(&settings, registry.snapshot().loaded());
        let Some(Bound { ceiling, limit: Some(limit) }) = bound else { return Ok(()) };
        let (most, mib) = (ceiling.total().saturating_add(bytes.saturating_mul(LOADED_SIZE)), |bytes: u64| bytes >> 20);
        if most <= limit {
            return Ok(());
        }
        Err(format!(
            "with it the server may need {} MiB of memory, and {} MiB are allowed: {ceiling}",
            mib(most),
            mib(limit)
        ))
    })
}

/// The aliases that are to be followed.
pub(super) fn followed(mlflow: &Mlflow) -> Result<Vec<Following>, RunError> {
    let following = |follow: &Follow| Following::new(&follow.local, &follow.uri, mlflow.interval);
    let all: Vec<_> = mlflow.follows.iter().map(following).collect::<Result<_, _>>().map_err(told)?;
    let mut seen = BTreeSet::new();
    match all.iter().find(|following| !seen.insert(following.local.as_str())) {
        Some(twice) => Err(told(format!("{} cannot follow two aliases", twice.local))),
        None => Ok(all),
    }
}

fn told(reason: impl std::fmt::Display) -> RunError {
    RunError::Configuration(format!("--follow: {reason}"))
}

/// Loads what is recorded, and follows what others change from then on.
pub(super) async fn load(keeping: &Keeping, followed: Vec<Following>, stop: &CancellationToken) {
    let work = keeping.run(|keeper| async move {
        keeper.begin().await;
        Ok(())
    });
    tokio::pin!(work);
    let loaded = tokio::select! {
        loaded = &mut work => loaded,
        () = stop.cancelled() => {
            keeping.keeper().stop();
            work.await
        }
    };
    if let Err(error) = loaded {
        tracing::error!(%error, "the models were not loaded");
    }
    keeping.follow(followed);
}

/// Ends what is still going on, until `rest` at the latest.
pub(super) async fn end(keeping: &Keeping, rest: Instant) {
    keeping.keeper().stop();
    let close = keeping.run(|keeper| async move {
        keeper.keep_counts().await;
        keeper.close().await;
        Ok(())
    });
    // What is not closed by then is closed by the end of the process: nothing that was acknowledged is lost.
    tokio::time::timeout_at(rest.into(), close).await.ok();
}
