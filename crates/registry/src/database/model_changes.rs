//! Changes of models, and the history of all changes.

use serde::de::DeserializeOwned;

use super::change::{AuditEntry, ChangeOutcome, ChangeRequest, HistoryFilter};
use super::error::ChangeError;
use super::idempotency::find_repeated;
use super::pool::Database;
use super::transactions::{GuardedConnection, record_change};
use super::{experiments, rows};
use crate::record::{ModelRecord, ModelSummary, RecordError};

impl Database {
    /// Changes a model, or refuses to, or tells that the same was asked before.
    ///
    /// # Errors
    /// [`ChangeError`]: nothing was changed then, but for [`ChangeError::OutcomeUnknown`].
    pub async fn change_model(
        &self,
        change: ChangeRequest<'_>,
        apply: impl FnOnce(&mut ModelRecord) -> Result<bool, RecordError>,
    ) -> Result<ChangeOutcome, ChangeError> {
        self.write(async {
            let (mut transaction, decided) = self.begin_change(change).await?;
            let decided = match decided {
                Some(decided) => decided,
                None => apply_model_change(&mut transaction, change, apply).await,
            };
            self.finish(transaction, decided).await
        })
        .await
        .map_err(|error| self.file_health.record_change_damage(error))
    }

    /// What became of the request that had this key; nothing if none had.
    ///
    /// # Errors
    /// If the key was used for another request, or the database does not answer.
    pub async fn find_repeated<T, A: DeserializeOwned>(
        &self,
        key: &str,
        request: &str,
    ) -> Result<Option<ChangeOutcome<T, A>>, ChangeError> {
        self.query(async { find_repeated(&mut *self.pool.acquire().await?, Some((key, request))).await }).await
    }

    /// What was done last, the last first.
    ///
    /// # Errors
    /// If the database does not answer.
    pub async fn history(&self, of: HistoryFilter<'_>, most: i64) -> Result<Vec<AuditEntry>, sqlx::Error> {
        let rows = match of {
            HistoryFilter::All => sqlx::query_as(
                "SELECT epoch, at, who, action, model, version, reason, experiment FROM events ORDER BY epoch DESC LIMIT $1",
            ),
            HistoryFilter::Model(name) => sqlx::query_as(
                "SELECT epoch, at, who, action, model, version, reason, experiment FROM events WHERE model = $1 ORDER BY epoch DESC LIMIT $2",
            )
            .bind(name),
            HistoryFilter::Experiment(name) => sqlx::query_as(
                "SELECT epoch, at, who, action, model, version, reason, experiment FROM events WHERE experiment = $1 ORDER BY epoch DESC LIMIT $2",
            )
            .bind(name),
        };
        let entries = self.query(rows.bind(most).fetch_all(&self.pool)).await?.into_iter();
        Ok(entries
            .map(|(epoch, timestamp_ms, actor, action, model, version, reason, experiment)| AuditEntry {
                epoch,
                timestamp_ms,
                actor,
                action,
                model,
                version,
                experiment,
                reason,
            })
            .collect())
    }
}

async fn apply_model_change(
    transaction: &mut GuardedConnection,
    change: ChangeRequest<'_>,
    apply: impl FnOnce(&mut ModelRecord) -> Result<bool, RecordError>,
) -> Result<ChangeOutcome, ChangeError> {
    let connection = &mut *transaction.connection;
    let before = rows::read_model(connection, change.target).await?;
    if change.expected_revision.is_some_and(|revision| revision != before.revision) {
        return Err(ChangeError::RevisionMismatch(before.revision));
    }
    let mut after = before.clone();
    if !apply(&mut after)? {
        return Ok(ChangeOutcome::Unchanged(before));
    }
    if change.protects_experiments {
        experiments::ensure_unused(connection, change.target, &before, &after).await?;
    }
    after.revision += 1;
    rows::write_model(connection, change.target, &before, &after).await?;
    record_change(transaction, change, change.target, &ModelSummary::from(&after)).await?;
    Ok(ChangeOutcome::Changed(after))
}
