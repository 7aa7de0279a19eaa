//! Changes of models.

use sqlx::{Any, Connection, Transaction};
use tokio::time::timeout;

use super::change::{ChangeOutcome, ChangeRequest};
use super::error::ChangeError;
use super::pool::Database;
use super::timeouts::{CHANGE_TIMEOUT, QUERY_TIMEOUT, with_timeout};
use super::transactions::{
    ConnectionGuard, find_repeated, finish_transaction, increment_epoch, repeated_outcome, store_answer,
};
use super::{experiments, rows};
use crate::record::{ModelRecord, RecordError};

impl Database {
    /// Changes a model, or refuses to, or tells that the same was asked before.
    ///
    /// `answer` is stored with the request's key and returned to a repeated request.
    ///
    /// # Errors
    /// [`ChangeError`]: nothing was changed then, but for [`ChangeError::OutcomeUnknown`].
    pub async fn change_model(
        &self,
        change: ChangeRequest<'_>,
        apply: impl FnOnce(&mut ModelRecord) -> Result<bool, RecordError>,
        answer: impl FnOnce(&ModelRecord) -> String,
    ) -> Result<ChangeOutcome, ChangeError> {
        self.ensure_usable()?;
        let changed = timeout(CHANGE_TIMEOUT, self.run_model_change(change, apply, answer)).await;
        let changed = changed.unwrap_or(Err(ChangeError::OutcomeUnknown(sqlx::Error::PoolTimedOut)));
        changed.map_err(|error| self.file_health.record_change_damage(error))
    }

    async fn run_model_change(
        &self,
        change: ChangeRequest<'_>,
        apply: impl FnOnce(&mut ModelRecord) -> Result<bool, RecordError>,
        answer: impl FnOnce(&ModelRecord) -> String,
    ) -> Result<ChangeOutcome, ChangeError> {
        let mut held = ConnectionGuard { connection: self.pool.acquire().await?, is_clean: false };
        let mut transaction = held.connection.begin().await?;
        let decided = Self::apply_model_change(&mut transaction, change, apply, answer).await;
        let settled = finish_transaction(transaction, decided, &mut held.is_clean).await?;
        self.verify_written()?;
        Ok(settled)
    }

    /// Looks whether what was written is where a restart finds it, before anybody is told that it is kept. The connection
    /// must still be open.
    pub(super) fn verify_written(&self) -> Result<(), sqlx::Error> {
        Ok(self.file_health.check_after_write()?)
    }

    async fn apply_model_change(
        transaction: &mut Transaction<'_, Any>,
        change: ChangeRequest<'_>,
        apply: impl FnOnce(&mut ModelRecord) -> Result<bool, RecordError>,
        answer: impl FnOnce(&ModelRecord) -> String,
    ) -> Result<ChangeOutcome, ChangeError> {
        let epoch = increment_epoch(transaction).await?;
        if let Some(repeated) = find_repeated(transaction, change.idempotency_key).await? {
            return Ok(repeated);
        }
        let stored = rows::read_model(transaction, change.target).await?;
        let before = stored.clone().unwrap_or_default();
        if change.expected_revision.is_some_and(|revision| revision != before.revision) {
            return Err(ChangeError::RevisionMismatch(before.revision));
        }
        let mut after = before.clone();
        if !apply(&mut after)? {
            return Ok(ChangeOutcome::Unchanged(before));
        }
        if change.protects_experiments {
            experiments::ensure_unused(transaction, change.target, &before, &after).await?;
        }
        after.revision += 1;
        rows::write_model(transaction, change.target, stored.as_ref(), &after).await?;
        rows::insert_audit_entry(transaction, epoch, change.target, change.audit).await?;
        store_answer(transaction, change.idempotency_key, || answer(&after)).await?;
        Ok(ChangeOutcome::Changed(after))
    }

    /// What became of the request that had this key; nothing if none had.
    ///
    /// # Errors
    /// If the key was used for another request, or the database does not answer.
    pub async fn find_repeated<T>(&self, key: &str, request: &str) -> Result<Option<ChangeOutcome<T>>, ChangeError> {
        self.ensure_usable()?;
        let stored = async {
            let mut connection = self.pool.acquire().await?;
            rows::find_request(&mut connection, key).await
        };
        repeated_outcome(with_timeout(QUERY_TIMEOUT, stored).await?, request)
    }
}
