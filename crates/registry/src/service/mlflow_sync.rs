//! Serves what an alias on an MLflow server stands for, and switches when it moves.
//!
//! Every place that an alias has led to is dealt with once, whatever became of it: what operators do afterwards, such as a
//! rollback, stays until the alias moves again.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use predictd_metrics::AliasCheckOutcome;

use super::change_context::ChangeContext;
use super::commit;
use super::model_service::ModelService;
use crate::database::{ChangeError, ChangeOutcome};
use crate::error::RegistryError;
use crate::mlflow::client::MlflowVersion;
use crate::mlflow::pull::{PullError, PullRequest, SOURCE_METADATA_KEY};
use crate::mlflow::uri::ModelUri;
use crate::polling::Poller;
use crate::record::{Origin, RecordError, VersionRecord};
use crate::store::StoreError;
use crate::valid_name::is_valid_name;

/// Who makes these changes, in the history.
const SYNC_ACTOR: &str = "follow";
/// Longest pause after something went wrong.
const MAX_RETRY_INTERVAL: Duration = Duration::from_mins(1);
/// Longest reason that is sent to the MLflow server.
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
    pub fn new(local: &str, uri: &str, poll_interval: Duration) -> Result<Self, String> {
        if !is_valid_name(local) {
            return Err(format!("{local:?} is no name: lower-case letters, digits, '.', '_' and '-'"));
        }
        match uri.parse() {
            Ok(ModelUri::Alias(remote_name, alias)) => {
                Ok(Self { local_name: local.to_owned(), remote_name, alias, poll_interval })
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

/// Follows an alias.
pub(super) struct MlflowSync {
    models: Arc<ModelService>,
    subscription: AliasSubscription,
    pause: Duration,
    /// The error that was logged last.
    logged: Option<String>,
    /// A target that was pulled and is not active yet: the next poll does not pull it again.
    pulled: Option<(String, VersionRecord)>,
}

impl Poller for MlflowSync {
    async fn poll(&mut self) -> Duration {
        let synced = self.sync().await;
        let AliasSubscription { local_name: model, alias, poll_interval, .. } = &self.subscription;
        match synced {
            Ok(outcome) => {
                self.models.context.metrics.record_alias_check(model, outcome);
                self.pause = *poll_interval;
                self.logged = None;
            }
            Err(error) => {
                self.models.context.metrics.record_alias_check(model, AliasCheckOutcome::Failed);
                let sentence = Some(error.to_string());
                // The same error again is no news.
                if self.logged != sentence {
                    tracing::error!(model, alias, %error, "alias could not be followed; retrying");
                    self.logged = sentence;
                }
                self.pause = (self.pause * 2).min(MAX_RETRY_INTERVAL.max(*poll_interval));
            }
        }
        self.pause
    }
}

impl MlflowSync {
    pub(super) fn new(models: Arc<ModelService>, subscription: AliasSubscription) -> Self {
        models.context.metrics.init_alias_checks(&subscription.local_name);
        Self { models, pause: subscription.poll_interval, subscription, logged: None, pulled: None }
    }

    /// Activates the target of the alias, if it is another than before.
    async fn sync(&mut self) -> Result<AliasCheckOutcome, RegistryError> {
        let AliasSubscription { local_name: model, remote_name, alias, .. } = &self.subscription.clone();
        let client = self.models.mlflow_client()?;
        let version = client.version_by_alias(remote_name, alias).await.map_err(PullError::from)?;
        let target = self.subscription.target_id(&version);
        if self.is_known_target(&target) {
            return Ok(AliasCheckOutcome::Unchanged);
        }
        // Another replica may have been there.
        self.models.context.refresh().await?;
        if self.is_known_target(&target) {
            return Ok(AliasCheckOutcome::Unchanged);
        }
        let number = &version.version;
        tracing::info!(model, alias, version = number, "alias moved");
        let change_context = ChangeContext {
            actor: SYNC_ACTOR.to_owned(),
            reason: Some(format!("models:/{remote_name}@{alias} is version {number}")),
            ..ChangeContext::default()
        };
        let before = self.active_mlflow_version();
        match self.activate_target(&version, &target, &change_context).await {
            Ok(ChangeOutcome::Changed(_)) => {
                self.pulled = None;
                tracing::info!(model, version = number, "alias version activated");
                self.report_version_state(number, "active", "").await;
                if let Some(before) = before.filter(|before| before != number) {
                    self.report_version_state(&before, "replaced", "").await;
                }
                Ok(AliasCheckOutcome::Switched)
            }
            // Another replica was faster.
            Ok(_) => Ok(AliasCheckOutcome::Unchanged),
            Err(error) if is_permanent_error(&error) => {
                self.refuse_target(number, &target, change_context, &error).await
            }
            Err(error) => Err(error),
        }
    }

    fn is_known_target(&self, target: &str) -> bool {
        let record = self.models.context.model_record_or_default(&self.subscription.local_name);
        record.alias_target.as_deref() == Some(target)
    }

    /// Remembers a target that cannot be served: it is not tried again.
    async fn refuse_target(
        &self,
        version: &str,
        target: &str,
        change_context: ChangeContext,
        error: &RegistryError,
    ) -> Result<AliasCheckOutcome, RegistryError> {
        let AliasSubscription { local_name: model, alias, .. } = &self.subscription;
        let sentence: String = error.to_string().chars().take(MAX_REASON_CHARS).collect();
        tracing::error!(model, alias, version, error = %sentence, "alias version rejected; active version unchanged");
        let change_context = ChangeContext { reason: Some(sentence.clone()), ..change_context };
        let change = change_context.request(model, "refuse", Some(version));
        let refused = commit::change_model(&self.models.context, change, |record| Ok(record.set_alias_target(target)));
        if !matches!(refused.await?, ChangeOutcome::Changed(_)) {
            return Ok(AliasCheckOutcome::Unchanged);
        }
        self.report_version_state(version, "refused", &sentence).await;
        Ok(AliasCheckOutcome::Unservable)
    }

    /// Registers a version, if it is not, and makes it the active one.
    async fn activate_target(
        &mut self,
        version: &MlflowVersion,
        target: &str,
        change_context: &ChangeContext,
    ) -> Result<ChangeOutcome, RegistryError> {
        let model = &self.subscription.local_name;
        let number = &version.version;
        let uri = ModelUri::Version(version.name.clone(), number.clone());
        match self.models.context.model_record_or_default(model).version(number) {
            Ok(record) if record.origin == Origin::Mlflow(uri.to_string()) && has_same_source(record, version) => {}
            // It has the number of another one.
            Ok(_) => return Err(RecordError::VersionExists(number.clone()).into()),
            Err(_) => {
                let added = match self.pulled.take() {
                    Some((of, added)) if of == target => added,
                    _ => self.models.pull_version(PullRequest { uri, metadata: BTreeMap::new() }).await?,
                };
                self.pulled = Some((target.to_owned(), added.clone()));
                self.models.register(model, number, added, change_context).await?;
            }
        }
        self.models.activate_alias_target(model, number, target, change_context).await
    }

    /// The version at the MLflow server of the active version, if that was pulled from the model that is followed.
    fn active_mlflow_version(&self) -> Option<String> {
        let record = self.models.context.model_record_or_default(&self.subscription.local_name);
        let Origin::Mlflow(uri) = &record.version(record.active.as_deref()?).ok()?.origin else { return None };
        match uri.parse() {
            Ok(ModelUri::Version(name, version)) if name == self.subscription.remote_name => Some(version),
            _ => None,
        }
    }

    /// Tells the MLflow server what became of a version.
    async fn report_version_state(&self, version: &str, state: &str, reason: &str) {
        let Ok(client) = self.models.mlflow_client() else { return };
        for (key, value) in [("predictd.reason", reason), ("predictd.state", state)] {
            if let Err(error) = client.set_version_tag(&self.subscription.remote_name, version, key, value).await {
                // What is served does not depend on it.
                let model = &self.subscription.local_name;
                tracing::warn!(model, version, %error, "version state could not be reported to MLflow");
                return;
            }
        }
    }
}

/// True if a version was made of what the server says; where it does not, that is believed.
fn has_same_source(record: &VersionRecord, version: &MlflowVersion) -> bool {
    let recorded = record.metadata.get(SOURCE_METADATA_KEY);
    recorded.zip(version.source.as_ref()).is_none_or(|(recorded, source)| recorded == source)
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
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn subscription(local: &str, uri: &str) -> Result<AliasSubscription, String> {
        AliasSubscription::new(local, uri, Duration::from_secs(1))
    }

    #[test]
    fn alias_subscription_other_uri_is_refused() {
        let followed = subscription("m", "models:/My model@champion").unwrap();
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
            assert!(subscription(local, uri).is_err(), "{local} {uri}");
        }
    }
}
