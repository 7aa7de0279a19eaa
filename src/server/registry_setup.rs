//! The models that outlast the process: opened, loaded, and let go.

use std::collections::BTreeSet;
use std::fmt::Display;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use predictd_engine::{load_context::LoadContext, model_source::ModelSource};
use predictd_registry::Registry;
use predictd_registry::data_directory::{self, DataDirectory};
use predictd_registry::database::{Database, OpenError, StorageFault, sqlite_url};
use predictd_registry::mlflow::client::MlflowClient;
use predictd_registry::models_directory::{self, MissingVersions};
use predictd_registry::record::{ModelRecords, Origin};
use predictd_registry::registry_state::{RegistryState, StateFile};
use predictd_registry::runtime::RegistryRuntime;
use predictd_registry::service::{AliasSubscription, LoadDeps, MemoryCheck, RegistryServices, ServiceDeps};
use predictd_registry::spool::FeedbackSpool;
use predictd_registry::store::Store;
use tokio_util::sync::CancellationToken;

use crate::config::{FollowedAlias, MlflowSettings, ServerSettings};
use crate::error::ServerError;
use crate::memory_budget::{self, MemoryBudget};

/// A loaded model is its files, and as much again of weights in the order that the processor likes.
const LOADED_SIZE_FACTOR: u64 = 2;

/// Opens the database and the store, and records the operator's own models.
pub(super) fn open_registry(
    settings: &ServerSettings,
    load_context: LoadContext,
    sources: Vec<ModelSource>,
) -> Result<RegistryRuntime, ServerError> {
    let data = &settings.data_dir;
    let shared = settings.database_url.is_some();
    data_directory::make_directory_private(data).map_err(|error| data_directory_error(data, error))?;
    let lock = (!shared).then(|| data_directory::lock_data_directory(data)).transpose();
    let lock = lock.map_err(|error| data_directory_error(data, error))?;
    let store = Store::open(&data.join("store"), !shared).map_err(|error| data_directory_error(data, error))?;
    if !shared && is_network_file_system(data) {
        tracing::warn!(
            directory = %data.display(),
            "data directory on a network file system; SQLite locks may fail: use a local disk or --database"
        );
    }
    let mlflow = settings.mlflow.server.as_ref().map(MlflowClient::new).transpose();
    let mlflow = mlflow.map_err(|error| ServerError::Configuration(format!("--mlflow: {error}")))?;
    let opening = RegistrySetup { settings: settings.clone(), sources, load_context, store, mlflow };
    RegistryRuntime::start(lock, opening.open_service()).map_err(ServerError::Configuration)
}

fn data_directory_error(path: &Path, error: impl Display) -> ServerError {
    ServerError::Configuration(format!("--data-dir {}: {error}", path.display()))
}

/// What the registry's services are made of.
struct RegistrySetup {
    settings: ServerSettings,
    /// The operator's own models.
    sources: Vec<ModelSource>,
    load_context: LoadContext,
    store: Store,
    mlflow: Option<MlflowClient>,
}

impl RegistrySetup {
    /// The database as the operator names it.
    fn database_error(&self, error: impl Display) -> String {
        match self.settings.database_url {
            Some(_) => format!("--database: {error}"),
            None => format!("{}: {error}", self.database_path().display()),
        }
    }

    fn database_path(&self) -> PathBuf {
        self.settings.data_dir.join(data_directory::DATABASE_FILE_NAME)
    }

    fn state_file(&self) -> StateFile {
        StateFile::new(&self.settings.data_dir)
    }

    /// What becomes of models whose directories are gone. An empty directory is one that is not there yet.
    fn missing_versions(&self) -> MissingVersions {
        let stays = self.settings.database_url.is_some() || self.sources.is_empty();
        if stays { MissingVersions::Retain } else { MissingVersions::Remove }
    }

    /// Services with the state of the database, or with the last known one where it cannot be used.
    async fn open_service(self) -> Result<RegistryServices, String> {
        if let Some(reason) = self.missing_database_reason() {
            return self.service_without_database(reason);
        }
        if self.settings.database_url.is_none() {
            data_directory::create_private_file(&self.database_path()).map_err(|error| self.database_error(error))?;
        }
        let database = self.connect_database()?;
        let opened = async {
            database.initialize().await?;
            Ok(models_directory::sync_to_database(&database, &self.sources, self.missing_versions()).await?)
        };
        match opened.await {
            Ok(records) => {
                let registry = self.build_registry(&records)?;
                let named = self.database_error("");
                let services = RegistryServices::open(self.service_deps(registry, database)).await;
                services.map_err(|error| format!("{named}{error}"))
            }
            Err(OpenError::Unavailable(reason)) => self.service_from_state_file(database, &reason),
            Err(OpenError::Damaged(reason)) if self.settings.database_url.is_none() => {
                self.service_without_database(&reason)
            }
            Err(error) => Err(self.database_error(error)),
        }
    }

    /// The database, not asked yet. A file of its own is used as long as it and its directory are what they are now.
    fn connect_database(&self) -> Result<Database, String> {
        let data = &self.settings.data_dir;
        let directory = DataDirectory::open(data).map_err(|error| format!("--data-dir {}: {error}", data.display()))?;
        let url = match &self.settings.database_url {
            Some(url) => url.clone(),
            None => sqlite_url(&self.database_path()).map_err(|error| self.database_error(error))?,
        };
        let database = Database::connect_lazy(&url).map_err(|error| self.database_error(error))?;
        Ok(database.with_data_directory(directory))
    }

    /// Why the file of the database cannot be the one that was there, where it is empty or missing: what it had recorded is
    /// there.
    fn missing_database_reason(&self) -> Option<&'static str> {
        if self.settings.database_url.is_some() {
            return None;
        }
        let file = std::fs::metadata(self.database_path());
        if file.as_ref().is_ok_and(|found| found.len() > 0) {
            return None;
        }
        let has_versions = self.store.has_versions().unwrap_or(false);
        match file {
            Ok(_) if has_versions || self.state_file().read().is_some_and(|state| state.epoch > 0) => {
                Some("the file is empty")
            }
            Err(_) if has_versions => Some("the file is not there, and the store beside it holds versions"),
            // Without versions it is a new directory.
            _ => None,
        }
    }

    /// Serves what was known last, until the database answers.
    fn service_from_state_file(self, database: Database, reason: &str) -> Result<RegistryServices, String> {
        let state = self.state_file().read().ok_or_else(|| self.database_error(reason))?;
        tracing::error!(reason, "database unavailable; serving the last known state");
        let registry = self.build_registry(&state.records)?;
        let sources = self.sources.clone();
        Ok(RegistryServices::new(self.service_deps(registry, database), state, sources))
    }

    /// Serves what was known last and what is in the models directory. The file is left as it is: what is in it may be all
    /// that there is.
    fn service_without_database(self, reason: &str) -> Result<RegistryServices, String> {
        let state = self.state_file().read();
        tracing::error!(
            file = %self.database_path().display(),
            reason,
            state_file_found = state.is_some(),
            remedy = %StorageFault::DatabaseDamaged,
            "database unusable; serving the last known state, refusing feedback and changes"
        );
        let state = state.unwrap_or_default();
        let records = models_directory::sync_in_memory(&state.records, &self.sources, self.missing_versions());
        let registry = self.build_registry(&records)?;
        let database = self.connect_database()?.with_damage();
        Ok(RegistryServices::new(self.service_deps(registry, database), RegistryState { records, ..state }, Vec::new()))
    }

    fn build_registry(&self, records: &ModelRecords) -> Result<Arc<Registry>, String> {
        let coming: Vec<&str> =
            self.settings.mlflow.followed_aliases.iter().map(|follow| follow.local_name.as_str()).collect();
        // What is recorded of the operator's directory cannot be served from an empty one.
        let mut versions = records.values().flat_map(|record| record.versions.values());
        let only_own = versions.all(|version| version.origin == Origin::Directory);
        let none = ModelRecords::new();
        let records = if self.sources.is_empty() && only_own { &none } else { records };
        let registry = Registry::from_records(records, self.settings.default_model.as_deref(), &coming);
        registry.map(Arc::new).map_err(|error| format!("--models {}: {error}", self.settings.models_dir.display()))
    }

    fn service_deps(self, registry: Arc<Registry>, database: Database) -> ServiceDeps {
        ServiceDeps {
            registry,
            database,
            state_file: self.state_file(),
            spool: FeedbackSpool::new(&self.settings.data_dir),
            feedback_retention: self.settings.feedback_retention,
            store: self.store,
            load: LoadDeps {
                memory_check: memory_check(&self.settings),
                models_directory: self.settings.models_dir,
                load_context: self.load_context,
                mlflow: self.mlflow,
            },
        }
    }
}

/// True for NFS, SMB, CIFS, SMB2, AFS, Ceph, Coda and 9P, by their numbers in `linux/magic.h`.
#[cfg(target_os = "linux")]
fn is_network_file_system(path: &Path) -> bool {
    const NETWORK_FS_MAGICS: [u32; 8] =
        [0x6969, 0x517b, 0xff53_4d42, 0xfe53_4d42, 0x5346_414f, 0x00c3_6400, 0x7375_7245, 0x0102_1997];
    let number = rustix::fs::statfs(path).map(|found| found.f_type);
    // The field is wider than the number.
    number
        .is_ok_and(|number| u32::try_from(number & 0xffff_ffff).is_ok_and(|number| NETWORK_FS_MAGICS.contains(&number)))
}

/// The system does not tell.
#[cfg(not(target_os = "linux"))]
fn is_network_file_system(_: &Path) -> bool {
    false
}

/// Whether there is room for one more model.
fn memory_check(settings: &ServerSettings) -> MemoryCheck {
    let settings = settings.clone();
    Arc::new(move |registry, bytes| {
        let budget = memory_budget::compute_budget(&settings, registry.snapshot().ready_models());
        let Some(MemoryBudget { estimate, limit: Some(limit) }) = budget else { return Ok(()) };
        let needed = estimate.total().saturating_add(bytes.saturating_mul(LOADED_SIZE_FACTOR));
        if needed <= limit {
            return Ok(());
        }
        Err(format!(
            "with it the server may need {} MiB of memory, and {} MiB are allowed: {estimate}",
            needed >> 20,
            limit >> 20
        ))
    })
}

/// The aliases that are to be followed.
pub(super) fn alias_subscriptions(mlflow: &MlflowSettings) -> Result<Vec<AliasSubscription>, ServerError> {
    let all = mlflow.followed_aliases.iter().map(|FollowedAlias { local_name, uri }| {
        AliasSubscription::new(local_name, uri, mlflow.follow_interval).map_err(follow_option_error)
    });
    let all = all.collect::<Result<Vec<_>, _>>()?;
    let mut seen = BTreeSet::new();
    match all.iter().find(|following| !seen.insert(following.local_name.as_str())) {
        Some(twice) => Err(follow_option_error(format!("{} cannot follow two aliases", twice.local_name))),
        None => Ok(all),
    }
}

fn follow_option_error(reason: impl Display) -> ServerError {
    ServerError::Configuration(format!("--follow: {reason}"))
}

/// Loads what is recorded, and follows what others change from then on.
pub(super) async fn load_models(runtime: &RegistryRuntime, followed: Vec<AliasSubscription>, stop: &CancellationToken) {
    let work = runtime.run(|services| async move { services.start(followed).await });
    tokio::pin!(work);
    let loaded = tokio::select! {
        loaded = &mut work => loaded,
        () = stop.cancelled() => {
            runtime.services().context.stop_loading();
            work.await
        }
    };
    if let Err(error) = loaded {
        tracing::error!(%error, "loading of models failed");
    }
}

/// Ends what is still going on, until `rest` at the latest.
pub(super) async fn stop_registry(runtime: &RegistryRuntime, rest: Instant) {
    runtime.services().context.stop_loading();
    let close = runtime.run(|services| async move {
        services.context.close().await;
        Ok(())
    });
    // What is not closed by then is closed by the end of the process: nothing that was acknowledged is lost.
    tokio::time::timeout_at(rest.into(), close).await.ok();
}
