//! Serves what an alias on an MLflow server stands for, and switches when it moves.
//!
//! Every place that an alias has led to is dealt with once, whatever became of it: what operators do afterwards, such as a
//! rollback, stays until the alias moves again.

use std::collections::BTreeMap;
use std::time::Duration;

use super::{KeepError, Keeper, NewVersion, Order};
use crate::metrics::Followed;
use crate::registry::database::{ChangeError, Outcome};
use crate::registry::mlflow::client::ModelVersion;
use crate::registry::mlflow::pull::{PullError, SOURCE};
use crate::registry::mlflow::uri::ModelUri;
use crate::registry::record::{ModelRecord, Origin, Refusal, VersionRecord};
use crate::registry::store::StoreError;
use crate::registry::version::Version;

/// Who makes these changes, in the history.
const WHO: &str = "follow";
/// Longest pause after something went wrong.
const LONGEST_PAUSE: Duration = Duration::from_mins(1);
/// Most versions of a model that were pulled and are kept.
const MOST_PULLED: usize = 32;
/// Longest reason that is told to the MLflow server.
const MAX_REASON: usize = 500;

/// An alias that is followed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Following {
    /// The model's name here.
    pub local: String,
    /// Its name there.
    pub name: String,
    /// The alias.
    pub alias: String,
    /// Time between two looks.
    pub interval: Duration,
}

impl Following {
    /// What is to be served as `local`.
    ///
    /// # Errors
    /// One sentence.
    pub fn new(local: &str, uri: &str, interval: Duration) -> Result<Self, String> {
        if !crate::registry::is_name(local) {
            return Err(format!("{local:?} is no name: lower-case letters, digits, '.', '_' and '-'"));
        }
        match uri.parse() {
            Ok(ModelUri::Alias(name, alias)) => Ok(Self { local: local.to_owned(), name, alias, interval }),
            _ => Err(format!("{local}: what is followed is models:/NAME@ALIAS")),
        }
    }

    /// What is remembered of a place that the alias led to.
    fn target(&self, version: &ModelVersion) -> String {
        let ModelVersion { version, source, .. } = version;
        format!("models:/{}@{} -> {version} ({})", self.name, self.alias, source.as_deref().unwrap_or("-"))
    }
}

impl Keeper {
    /// Follows an alias until it is told to stop.
    pub async fn follow_alias(&self, following: &Following) {
        let mut pause = following.interval;
        let (mut told, mut pulled) = (None, None);
        self.place.host.metrics.follows(&following.local);
        loop {
            match self.look(following, &mut pulled).await {
                Ok(outcome) => {
                    self.place.host.metrics.followed(&following.local, outcome);
                    (pause, told) = (following.interval, None);
                }
                Err(error) => {
                    self.place.host.metrics.followed(&following.local, Followed::Failed);
                    let sentence = error.to_string();
                    // The same again and again is no news.
                    if told.as_ref() != Some(&sentence) {
                        tracing::error!(model = following.local, alias = following.alias, error = %sentence, "an alias cannot be followed: it is tried again");
                        told = Some(sentence);
                    }
                    pause = (pause * 2).min(LONGEST_PAUSE.max(following.interval));
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
    async fn look(
        &self,
        following: &Following,
        pulled: &mut Option<(String, NewVersion)>,
    ) -> Result<Followed, KeepError> {
        let version = self.mlflow()?.alias(&following.name, &following.alias).await.map_err(PullError::from)?;
        let target = following.target(&version);
        if self.record(&following.local).followed.as_ref() == Some(&target) {
            return Ok(Followed::Unchanged);
        }
        // Another replica may have been there.
        self.read().await?;
        if self.record(&following.local).followed.as_ref() == Some(&target) {
            return Ok(Followed::Unchanged);
        }
        tracing::info!(
            model = following.local,
            alias = following.alias,
            version = version.version,
            "the alias has moved"
        );
        let order = Order {
            who: WHO.to_owned(),
            reason: Some(format!("models:/{}@{} is version {}", following.name, following.alias, version.version)),
            ..Order::default()
        };
        let before = self.active_from_mlflow(following);
        match self.take(following, &version, &target, &order, pulled).await {
            // Another replica was faster.
            Ok(false) => Ok(Followed::Unchanged),
            Ok(true) => {
                *pulled = None;
                tracing::info!(
                    model = following.local,
                    version = version.version,
                    "what the alias stands for is active"
                );
                self.report(following, &version.version, "active", "").await;
                if let Some(before) = before.filter(|before| *before != version.version) {
                    self.report(following, &before, "replaced", "").await;
                }
                Ok(Followed::Switched)
            }
            Err(error) if is_final(&error) => {
                let sentence: String = error.to_string().chars().take(MAX_REASON).collect();
                tracing::error!(model = following.local, alias = following.alias, version = version.version, error = %sentence, "the version that the alias stands for is refused: the old one stays");
                let order = Order { reason: Some(sentence.clone()), ..order };
                let (local, refused) = (following.local.as_str(), version.version.as_str());
                let apply = |record: &mut ModelRecord| Ok(record.follow(&target));
                let refusal = self.change(local, "refuse", Some(refused), &order, apply).await?;
                if !matches!(refusal, Outcome::Changed(_)) {
                    return Ok(Followed::Unchanged);
                }
                self.report(following, &version.version, "refused", &sentence).await;
                Ok(Followed::Refused)
            }
            Err(error) => Err(error),
        }
    }

    /// Registers a version, if it is not, and makes it the active one. False if that was done already.
    async fn take(
        &self,
        following: &Following,
        version: &ModelVersion,
        target: &str,
        order: &Order,
        pulled: &mut Option<(String, NewVersion)>,
    ) -> Result<bool, KeepError> {
        let (local, number) = (following.local.as_str(), version.version.as_str());
        let uri = ModelUri::Version(version.name.clone(), number.to_owned());
        let known = self.record(local);
        match known.versions.get(&Version::new(number)) {
            Some(known) if known.origin == Origin::Mlflow(uri.to_string()) && is_made_of(known, version) => {}
            // It has the number of another one.
            Some(_) => return Err(Refusal::Taken(number.to_owned()).into()),
            None => {
                let added = match pulled.take() {
                    Some((of, added)) if of == target => added,
                    _ => self.pull(&uri, BTreeMap::new()).await?,
                };
                *pulled = Some((target.to_owned(), added.clone()));
                self.register(local, number, added, order).await?;
            }
        }
        let _alone = self.changing.lock().await;
        let experiments = self.experiments();
        let apply = |record: &mut ModelRecord| {
            // Another replica was here, and what an operator did since stays.
            if !record.follow(target) {
                return Ok(false);
            }
            record.activate(number)?;
            record.forget_pulled(MOST_PULLED, |version| {
                experiments.values().any(|experiment| experiment.is_open() && experiment.uses(local, version))
            });
            Ok(true)
        };
        let outcome = self.switch(local, "activate", number, order, apply).await?;
        Ok(matches!(outcome, Outcome::Changed(_)))
    }

    /// The version that is active and was pulled from the model that is followed.
    fn active_from_mlflow(&self, following: &Following) -> Option<String> {
        let record = self.record(&following.local);
        let active = record.active.clone()?;
        let Origin::Mlflow(uri) = &record.versions.get(&Version::new(&active))?.origin else { return None };
        match uri.parse() {
            Ok(ModelUri::Version(name, version)) if name == following.name => Some(version),
            _ => None,
        }
    }

    /// Tells the MLflow server what became of a version.
    async fn report(&self, following: &Following, version: &str, state: &str, reason: &str) {
        let Ok(mlflow) = self.mlflow() else { return };
        for (key, value) in [("predictd.reason", reason), ("predictd.state", state)] {
            if let Err(error) = mlflow.tag(&following.name, version, key, value).await {
                // What is served does not depend on it.
                tracing::warn!(model = following.local, version, %error, "the MLflow server could not be told what became of a version");
                return;
            }
        }
    }
}

/// True if a version was made of what the server says; where it does not, that is believed.
fn is_made_of(known: &VersionRecord, version: &ModelVersion) -> bool {
    match (known.metadata.get(SOURCE), &version.source) {
        (Some(known), Some(now)) => known == now,
        _ => true,
    }
}

/// True if the same version would be refused again.
fn is_final(error: &KeepError) -> bool {
    match error {
        KeepError::Broken(..)
        | KeepError::Change(ChangeError::Refused(_))
        | KeepError::Pull(PullError::Unusable(_)) => true,
        KeepError::Store(error) | KeepError::Pull(PullError::Store(error)) => !matches!(error, StoreError::Disk(_)),
        KeepError::Pull(PullError::Ask(_))
        | KeepError::Change(_)
        | KeepError::NoRoom(..)
        | KeepError::Hindered(..)
        | KeepError::NoMlflow
        | KeepError::Busy
        | KeepError::Spool(_)
        | KeepError::Unusable(_)
        | KeepError::Unfit(_)
        | KeepError::GivenUp(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_alias_is_followed_and_nothing_else() {
        let of = |local: &str, uri: &str| Following::new(local, uri, Duration::from_secs(1));
        let followed = of("m", "models:/My model@champion").unwrap();
        let version = ModelVersion { name: "My model".to_owned(), version: "3".to_owned(), run_id: None, source: None };
        assert_eq!(followed.target(&version), "models:/My model@champion -> 3 (-)");
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
