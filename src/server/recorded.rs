//! The models that outlast the process: opened, loaded, and let go.

use std::collections::BTreeSet;
use std::fmt::Display;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use tokio_util::sync::CancellationToken;

use super::RunError;
use crate::ceiling::{self, Bound};
use crate::config::{Follow, Mlflow, Settings};
use crate::engine::loading::{Host, ModelSource};
use crate::registry::data_directory::{self, Anchor};
use crate::registry::database::{ChangeError, Database, OpenError, Records, Unusable, sqlite_url};
use crate::registry::directory::{self, Gone};
use crate::registry::keeper::{Fits, Following, Keeper, Place};
use crate::registry::keeping::{self, Keeping};
use crate::registry::known::{Keepsake, Known};
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
    let wrong = RunError::Configuration;
    let in_data = |error: &dyn Display| wrong(format!("--data-dir {}: {error}", data.display()));
    data_directory::make_private(data).map_err(|error| in_data(&error))?;
    let lock = if shared { None } else { Some(keeping::lock(data).map_err(|error| in_data(&error))?) };
    let store = Store::open(&data.join("store"), !shared).map_err(|error| in_data(&error))?;
    if !shared && is_of_a_network(data) {
        tracing::warn!(
            directory = %data.display(),
            "the data directory is on a file system of a network, where SQLite's locks may not hold: keep it on a disk, or use --database"
        );
    }
    let mlflow = settings.mlflow.server.as_ref().map(Client::new).transpose();
    let mlflow = mlflow.map_err(|error| wrong(format!("--mlflow: {error}")))?;
    let opening = Opening { settings: settings.clone(), sources, host, store, mlflow };
    Keeping::start(lock, move || opening.keeper()).map_err(wrong)
}

/// What a keeper is made of.
struct Opening {
    settings: Settings,
    /// The operator's own models.
    sources: Vec<ModelSource>,
    host: Host,
    store: Store,
    mlflow: Option<Client>,
}

impl Opening {
    /// The database as the operator names it.
    fn named(&self, error: &dyn Display) -> String {
        match self.settings.database {
            Some(_) => format!("--database: {error}"),
            None => format!("{}: {error}", self.file().display()),
        }
    }

    fn file(&self) -> PathBuf {
        self.settings.data_dir.join(backup::FILE)
    }

    fn keepsake(&self) -> Keepsake {
        Keepsake::within(&self.settings.data_dir)
    }

    /// What becomes of models whose directories are gone. An empty directory is one that is not there yet.
    fn gone(&self) -> Gone {
        let stays = self.settings.database.is_some() || self.sources.is_empty();
        if stays { Gone::Stays } else { Gone::Forgotten }
    }

    /// A keeper of what the database has recorded, or of what was known last where it cannot be used.
    async fn keeper(self) -> Result<Keeper, String> {
        if let Some(reason) = self.missing_reason() {
            return self.keeper_without_database(reason);
        }
        if self.settings.database.is_none() {
            data_directory::create_private(&self.file()).map_err(|error| self.named(&error))?;
        }
        let database = self.database()?;
        let opened = async {
            database.begin().await?;
            let records = directory::record(&database, &self.sources, self.gone()).await;
            records.map_err(|error| read_error(&error))
        };
        match opened.await {
            Ok(records) => {
                let registry = self.registry(&records)?;
                let named = self.named(&"");
                let keeper = Keeper::open(self.place(registry, database)).await;
                keeper.map_err(|error| format!("{named}{error}"))
            }
            Err(OpenError::Away(reason)) => self.keeper_until_database_answers(database, &reason),
            Err(OpenError::Damaged(reason)) if self.settings.database.is_none() => {
                self.keeper_without_database(&reason)
            }
            Err(error) => Err(self.named(&error)),
        }
    }

    /// The database, not asked yet. A file of its own is used as long as it and its directory are what they are now.
    fn database(&self) -> Result<Database, String> {
        let data = &self.settings.data_dir;
        let later = |url: &str| Database::later(url).map_err(|error| self.named(&error));
        let anchor = Anchor::open(data).map_err(|error| format!("--data-dir {}: {error}", data.display()))?;
        if let Some(url) = &self.settings.database {
            return Ok(later(url)?.beside(anchor));
        }
        Ok(later(&sqlite_url(&self.file()).map_err(|error| self.named(&error))?)?.kept_in(anchor))
    }

    /// Why the file of the database cannot be the one that was there, where it is empty or missing: what it had recorded is
    /// there.
    fn missing_reason(&self) -> Option<&'static str> {
        if self.settings.database.is_some() {
            return None;
        }
        let is_empty = match std::fs::metadata(self.file()) {
            Ok(found) if found.len() > 0 => return None,
            found => found.is_ok(),
        };
        let has_versions = self.store.holds().unwrap_or(false);
        match (is_empty, has_versions) {
            (true, _) if has_versions || self.keepsake().read().is_some_and(|known| known.epoch > 0) => {
                Some("the file is empty")
            }
            // Without versions it is a new directory.
            (false, true) => Some("the file is not there, and the store beside it holds versions"),
            _ => None,
        }
    }

    /// Serves what was known last, until the database answers.
    fn keeper_until_database_answers(self, database: Database, reason: &str) -> Result<Keeper, String> {
        let known = self.keepsake().read().ok_or_else(|| self.named(&reason))?;
        tracing::error!(reason, "the database does not answer: what was known last is served");
        let registry = self.registry(&known.records)?;
        let sources = self.sources.clone();
        Ok(Keeper::new(self.place(registry, database), known, sources))
    }

    /// Serves what was known last and what is in the models directory. The file is left as it is: what is in it may be all
    /// that there is.
    fn keeper_without_database(self, reason: &str) -> Result<Keeper, String> {
        let known = self.keepsake().read();
        tracing::error!(
            file = %self.file().display(),
            reason,
            known = known.is_some(),
            cure = %Unusable::Damaged,
            "the database cannot be used: what was known last is served, feedback and changes are refused"
        );
        let known = known.unwrap_or_default();
        let records = directory::lined_up(&known.records, &self.sources, self.gone());
        let registry = self.registry(&records)?;
        let database = self.database()?.marked_damaged();
        Ok(Keeper::new(self.place(registry, database), Known { records, ..known }, Vec::new()))
    }

    fn registry(&self, records: &Records) -> Result<Arc<Registry>, String> {
        let coming: Vec<&str> = self.settings.mlflow.follows.iter().map(|follow| follow.local.as_str()).collect();
        let own = |record: &VersionRecord| record.origin == Origin::Directory;
        // What is recorded of the operator's directory cannot be served from an empty one.
        let only_own = records.values().flat_map(|record| record.versions.values()).all(own);
        let none = Records::new();
        let records = if self.sources.is_empty() && only_own { &none } else { records };
        let registry = Registry::recorded(records, self.settings.default_model.as_deref(), &coming);
        registry.map(Arc::new).map_err(|error| format!("--models {}: {error}", self.settings.models.display()))
    }

    fn place(self, registry: Arc<Registry>, database: Database) -> Place {
        Place {
            registry,
            database,
            fits: fits(&self.settings),
            keepsake: self.keepsake(),
            spool: Spool::within(&self.settings.data_dir),
            retention: self.settings.feedback_retention,
            models: self.settings.models,
            store: self.store,
            host: self.host,
            mlflow: self.mlflow,
        }
    }
}

/// What is wrong with a database that was opened and cannot be read.
fn read_error(error: &ChangeError) -> OpenError {
    match error {
        ChangeError::Database(sqlx::Error::ColumnDecode { .. } | sqlx::Error::Decode(_)) => {
            OpenError::Damaged("what is recorded cannot be read".to_owned())
        }
        ChangeError::Database(error) | ChangeError::Unknown(error) => OpenError::from(error),
        error => OpenError::Wrong(error.to_string()),
    }
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
    keeping.watch();
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
