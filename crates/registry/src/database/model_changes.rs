//! Changes of models, and the history of all changes.

use super::change::{AuditEntry, ChangeOutcome, ChangeRequest, HistoryFilter};
use super::error::ChangeError;
use super::pool::Database;
use super::transactions::{GuardedConnection, record_change};
use super::{experiments, rows};
use crate::record::{ModelChangeSummary, ModelRecord, RecordError};

/// Changes a model, refuses to, or returns the first answer to a repeated request.
///
/// # Errors
/// [`ChangeError`]: nothing was changed then, but for [`ChangeError::OutcomeUnknown`].
pub async fn change_model(
    database: &Database,
    change: ChangeRequest<'_>,
    apply: impl FnOnce(&mut ModelRecord) -> Result<bool, RecordError>,
) -> Result<ChangeOutcome, ChangeError> {
    database
        .write(async {
            let (mut transaction, decided) = GuardedConnection::begin_change(database, change).await?;
            let decided = match decided {
                Some(decided) => decided,
                None => apply_model_change(&mut transaction, change, apply).await,
            };
            transaction.finish(database, decided).await
        })
        .await
        .map_err(|error| database.file_health.record_change_damage(error))
}

/// What was done last, the last first.
///
/// # Errors
/// If the database does not answer.
pub async fn history(database: &Database, of: HistoryFilter<'_>, most: i64) -> Result<Vec<AuditEntry>, sqlx::Error> {
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
    let entries = database.query(rows.bind(most).fetch_all(&database.pool)).await?.into_iter();
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
    record_change(transaction, change, change.target, &ModelChangeSummary::from(&after)).await?;
    Ok(ChangeOutcome::Changed(after))
}
