//! Serves what an alias on an MLflow server stands for, and switches when it moves.
//!
//! Every place that an alias has led to is dealt with once, whatever became of it: what operators do afterwards, such as a
//! rollback, stays until the alias moves again.

use std::collections::BTreeMap;
use std::time::Duration;

use predictd_metrics::AliasCheckOutcome;

use super::change_context::ChangeContext;
use super::error::RegistryError;
use super::model_commands::NewVersion;
use super::registry_service::RegistryService;
use crate::database::{ChangeError, ChangeOutcome};
use crate::mlflow::client::MlflowVersion;
use crate::mlflow::pull::{PullError, SOURCE_METADATA_KEY};
use crate::mlflow::uri::ModelUri;
use crate::record::{ModelRecord, Origin, RecordError, VersionRecord};
use crate::store::StoreError;
use crate::valid_name::is_valid_name;
use crate::version_name::VersionName;

/// Who makes these changes, in the history.
const SYNC_ACTOR: &str = "follow";
/// Longest pause after something went wrong.
const MAX_RETRY_INTERVAL: Duration = Duration::from_mins(1);
/// Most versions of a model that were pulled and are kept.
const MAX_PULLED_VERSIONS: usize = 32;
/// Longest reason that is told to the MLflow server.
const MAX_REASON_CHARS: usize = 500;

/// An alias that is followed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AliasSubscription {
    /// The model's name here.
    pub local_name: String,
    /// Its name there.
    pub remote_name: String,
    /// The alias.
    pub alias: String,
    /// Time between two looks.
    pub poll_interval: Duration,
}

impl AliasSubscription {
    /// What is to be served as `local`.
    ///
    /// # Errors
    /// One sentence.
    pub fn new(local: &str, uri: &str, interval: Duration) -> Result<Self, String> {
        if !is_valid_name(local) {
            return Err(format!("{local:?} is no name: lower-case letters, digits, '.', '_' and '-'"));
        }
        match uri.parse() {
            Ok(ModelUri::Alias(name, alias)) => {
                Ok(Self { local_name: local.to_owned(), remote_name: name, alias, poll_interval: interval })
            }
            _ => Err(format!("{local}: what is followed is models:/NAME@ALIAS")),
        }
    }

    /// What is remembered of a place that the alias led to.
    fn target_id(&self, version: &MlflowVersion) -> String {
        let MlflowVersion { version, source, .. } = version;
        format!("models:/{}@{} -> {version} ({})", self.remote_name, self.alias, source.as_deref().unwrap_or("-"))
    }
}

impl RegistryService {
    /// Follows an alias until it is told to stop.
    pub async fn follow_alias(&self, following: &AliasSubscription) {
        let mut pause = following.poll_interval;
        let mut told = None;
        let mut pulled = None;
        self.deps.load_context.metrics.init_alias_checks(&following.local_name);
        loop {
            match self.sync_alias(following, &mut pulled).await {
                Ok(outcome) => {
                    self.deps.load_context.metrics.record_alias_check(&following.local_name, outcome);
                    pause = following.poll_interval;
                    told = None;
                }
                Err(error) => {
                    self.deps.load_context.metrics.record_alias_check(&following.local_name, AliasCheckOutcome::Failed);
                    let sentence = error.to_string();
                    // The same again and again is no news.
                    if told.as_ref() != Some(&sentence) {
                        tracing::error!(model = following.local_name, alias = following.alias, error = %sentence, "alias could not be followed; retrying");
                        told = Some(sentence);
                    }
                    pause = (pause * 2).min(MAX_RETRY_INTERVAL.max(following.poll_interval));
                }
            }
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = self.stop.cancelled() => return,
            }
        }
    }

    /// Looks where an alias leads, and goes there if it is somewhere else than before.
    ///
    /// What was pulled is kept for the next look: something else may have been in the way.
    async fn sync_alias(
        &self,
        following: &AliasSubscription,
        pulled: &mut Option<(String, NewVersion)>,
    ) -> Result<AliasCheckOutcome, RegistryError> {
        let version = self
            .mlflow_client()?
            .version_by_alias(&following.remote_name, &following.alias)
            .await
            .map_err(PullError::from)?;
        let target = following.target_id(&version);
        if self.model_record_or_default(&following.local_name).alias_target.as_ref() == Some(&target) {
            return Ok(AliasCheckOutcome::Unchanged);
        }
        // Another replica may have been there.
        self.refresh_state().await?;
        if self.model_record_or_default(&following.local_name).alias_target.as_ref() == Some(&target) {
            return Ok(AliasCheckOutcome::Unchanged);
        }
        tracing::info!(model = following.local_name, alias = following.alias, version = version.version, "alias moved");
        let order = ChangeContext {
            actor: SYNC_ACTOR.to_owned(),
            reason: Some(format!(
                "models:/{}@{} is version {}",
                following.remote_name, following.alias, version.version
            )),
            ..ChangeContext::default()
        };
        let before = self.active_mlflow_version(following);
        match self.activate_alias_target(following, &version, &target, &order, pulled).await {
            // Another replica was faster.
            Ok(false) => Ok(AliasCheckOutcome::Unchanged),
            Ok(true) => {
                *pulled = None;
                tracing::info!(model = following.local_name, version = version.version, "alias version activated");
                self.report_version_state(following, &version.version, "active", "").await;
                if let Some(before) = before.filter(|before| *before != version.version) {
                    self.report_version_state(following, &before, "replaced", "").await;
                }
                Ok(AliasCheckOutcome::Switched)
            }
            Err(error) if is_permanent_error(&error) => {
                let sentence: String = error.to_string().chars().take(MAX_REASON_CHARS).collect();
                tracing::error!(model = following.local_name, alias = following.alias, version = version.version, error = %sentence, "alias version rejected; active version unchanged");
                let order = ChangeContext { reason: Some(sentence.clone()), ..order };
                let local = following.local_name.as_str();
                let refused = version.version.as_str();
                let apply = |record: &mut ModelRecord| Ok(record.set_alias_target(&target));
                let refusal = self.commit_change(local, "refuse", Some(refused), &order, apply).await?;
                if !matches!(refusal, ChangeOutcome::Changed(_)) {
                    return Ok(AliasCheckOutcome::Unchanged);
                }
                self.report_version_state(following, &version.version, "refused", &sentence).await;
                Ok(AliasCheckOutcome::Unservable)
            }
            Err(error) => Err(error),
        }
    }

    /// Registers a version, if it is not, and makes it the active one. False if that was done already.
    async fn activate_alias_target(
        &self,
        following: &AliasSubscription,
        version: &MlflowVersion,
        target: &str,
        order: &ChangeContext,
        pulled: &mut Option<(String, NewVersion)>,
    ) -> Result<bool, RegistryError> {
        let local = following.local_name.as_str();
        let number = version.version.as_str();
        let uri = ModelUri::Version(version.name.clone(), number.to_owned());
        let known = self.model_record_or_default(local);
        match known.versions.get(&VersionName::new(number)) {
            Some(known) if known.origin == Origin::Mlflow(uri.to_string()) && has_same_source(known, version) => {}
            // It has the number of another one.
            Some(_) => return Err(RecordError::VersionExists(number.to_owned()).into()),
            None => {
                let added = match pulled.take() {
                    Some((of, added)) if of == target => added,
                    _ => self.pull_version(&uri, BTreeMap::new()).await?,
                };
                *pulled = Some((target.to_owned(), added.clone()));
                self.register(local, number, added, order).await?;
            }
        }
        let _alone = self.change_lock.lock().await;
        let experiments = self.experiments();
        let apply = |record: &mut ModelRecord| {
            // Another replica was here, and what an operator did since stays.
            if !record.set_alias_target(target) {
                return Ok(false);
            }
            record.activate(number)?;
            record.prune_pulled(MAX_PULLED_VERSIONS, |version| {
                experiments.values().any(|experiment| experiment.is_open() && experiment.uses_version(local, version))
            });
            Ok(true)
        };
        let outcome = self.load_and_commit(local, "activate", number, order, apply).await?;
        Ok(matches!(outcome, ChangeOutcome::Changed(_)))
    }

    /// The version that is active and was pulled from the model that is followed.
    fn active_mlflow_version(&self, following: &AliasSubscription) -> Option<String> {
        let record = self.model_record_or_default(&following.local_name);
        let active = record.active.clone()?;
        let Origin::Mlflow(uri) = &record.versions.get(&VersionName::new(&active))?.origin else { return None };
        match uri.parse() {
            Ok(ModelUri::Version(name, version)) if name == following.remote_name => Some(version),
            _ => None,
        }
    }

    /// Tells the MLflow server what became of a version.
    async fn report_version_state(&self, following: &AliasSubscription, version: &str, state: &str, reason: &str) {
        let Ok(mlflow) = self.mlflow_client() else { return };
        for (key, value) in [("predictd.reason", reason), ("predictd.state", state)] {
            if let Err(error) = mlflow.set_version_tag(&following.remote_name, version, key, value).await {
                // What is served does not depend on it.
                tracing::warn!(model = following.local_name, version, %error, "version state could not be reported to MLflow");
                return;
            }
        }
    }
}

/// True if a version was made of what the server says; where it does not, that is believed.
fn has_same_source(known: &VersionRecord, version: &MlflowVersion) -> bool {
    match (known.metadata.get(SOURCE_METADATA_KEY), &version.source) {
        (Some(known), Some(now)) => known == now,
        _ => true,
    }
}

/// True if the same version would be refused again.
fn is_permanent_error(error: &RegistryError) -> bool {
    match error {
        RegistryError::BrokenVersion(..)
        | RegistryError::Change(ChangeError::Record(_))
        | RegistryError::Pull(PullError::InvalidModel(_)) => true,
        RegistryError::Store(error) | RegistryError::Pull(PullError::Store(error)) => {
            !matches!(error, StoreError::Disk(_))
        }
        RegistryError::Pull(PullError::Mlflow(_))
        | RegistryError::Change(_)
        | RegistryError::InsufficientMemory(..)
        | RegistryError::LoadInterrupted(..)
        | RegistryError::MlflowNotConfigured
        | RegistryError::Busy
        | RegistryError::Spool(_)
        | RegistryError::Storage(_)
        | RegistryError::IncompatibleArms(_)
        | RegistryError::TaskFailure(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn alias_subscription_other_uri_is_refused() {
        let of = |local: &str, uri: &str| AliasSubscription::new(local, uri, Duration::from_secs(1));
        let followed = of("m", "models:/My model@champion").unwrap();
        let version =
            MlflowVersion { name: "My model".to_owned(), version: "3".to_owned(), run_id: None, source: None };
        assert_eq!(followed.target_id(&version), "models:/My model@champion -> 3 (-)");
        for (local, uri) in [
            ("m", "models:/M/1"),
            ("m", "models:/m-1"),
            ("m", "runs:/a/b"),
            ("m", "x"),
            ("../m", "models:/M@x"),
            ("", "models:/M@x"),
        ] {
            assert!(of(local, uri).is_err(), "{local} {uri}");
        }
    }
}
