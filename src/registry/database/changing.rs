//! Changes of models.

use sqlx::{Any, Connection, Transaction};
use tokio::time::timeout;

use super::transactions::{Held, count, remember, settle};
use super::{ANSWER, CHANGE, Change, ChangeError, Database, Outcome, experiments, rows, within};
use crate::registry::record::{ModelRecord, Refusal};

impl Database {
    /// Changes a model, or refuses to, or tells that the same was asked before.
    ///
    /// `answer` is what who repeats the request is to be told; it is kept with the request's key.
    ///
    /// # Errors
    /// [`ChangeError`]: nothing was changed then, but for [`ChangeError::Unknown`].
    pub async fn change(
        &self,
        change: Change<'_>,
        apply: impl FnOnce(&mut ModelRecord) -> Result<bool, Refusal>,
        answer: impl FnOnce(&ModelRecord) -> String,
    ) -> Result<Outcome, ChangeError> {
        self.check()?;
        let changed = timeout(CHANGE, self.transact(change, apply, answer)).await;
        let changed = changed.unwrap_or(Err(ChangeError::Unknown(sqlx::Error::PoolTimedOut)));
        changed.map_err(|error| self.condition.record_damage_of_change(error))
    }

    async fn transact(
        &self,
        change: Change<'_>,
        apply: impl FnOnce(&mut ModelRecord) -> Result<bool, Refusal>,
        answer: impl FnOnce(&ModelRecord) -> String,
    ) -> Result<Outcome, ChangeError> {
        let mut held = Held { connection: self.pool.acquire().await?, sound: false };
        let mut transaction = held.connection.begin().await?;
        let decided = Self::decide(&mut transaction, change, apply, answer).await;
        let settled = settle(transaction, decided, &mut held.sound).await?;
        self.verify_written()?;
        Ok(settled)
    }

    /// Looks whether what was written is where a restart finds it, before anybody is told that it is kept. The connection
    /// must still be open.
    pub(super) fn verify_written(&self) -> Result<(), sqlx::Error> {
        Ok(self.condition.check_written()?)
    }

    async fn decide(
        transaction: &mut Transaction<'_, Any>,
        change: Change<'_>,
        apply: impl FnOnce(&mut ModelRecord) -> Result<bool, Refusal>,
        answer: impl FnOnce(&ModelRecord) -> String,
    ) -> Result<Outcome, ChangeError> {
        let epoch = count(transaction).await?;
        if let Some((key, request)) = change.key
            && let Some((known, answer)) = rows::request(transaction, key).await?
        {
            return if known == request { Ok(Outcome::Repeated(answer)) } else { Err(ChangeError::OtherRequest) };
        }
        let found = rows::model(transaction, change.model).await?;
        let before = found.clone().unwrap_or_default();
        if change.revision.is_some_and(|revision| revision != before.revision) {
            return Err(ChangeError::Stale(before.revision));
        }
        let mut after = before.clone();
        if !apply(&mut after)? {
            return Ok(Outcome::AsItWas(before));
        }
        if change.keeps_used {
            experiments::spare(transaction, change.model, &before, &after).await?;
        }
        after.revision += 1;
        rows::write(transaction, change.model, found.as_ref(), &after).await?;
        rows::event(transaction, epoch, change.model, change.event).await?;
        remember(transaction, change.key, || answer(&after)).await?;
        Ok(Outcome::Changed(after))
    }

    /// What became of the request that had this key; nothing if none had.
    ///
    /// # Errors
    /// If the key was used for another request, or the database does not answer.
    pub async fn repeated<T>(&self, key: &str, request: &str) -> Result<Option<Outcome<T>>, ChangeError> {
        self.check()?;
        let found = async {
            let mut connection = self.pool.acquire().await?;
            rows::request(&mut connection, key).await
        };
        match within(ANSWER, found).await? {
            None => Ok(None),
            Some((known, answer)) if known == request => Ok(Some(Outcome::Repeated(answer))),
            Some(_) => Err(ChangeError::OtherRequest),
        }
    }
}
