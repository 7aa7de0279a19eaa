//! How a transaction begins and ends.

use std::time::Duration;

use predictd_platform::clock::now_millis;
use sqlx::pool::PoolConnection;
use sqlx::{Any, Row, Transaction};

use super::change::ChangeOutcome;
use super::error::ChangeError;
use super::rows;

/// How long answers to writes are known by their Idempotency-Key.
const IDEMPOTENCY_KEY_RETENTION: Duration = Duration::from_hours(24);

/// A connection that is closed unless its transaction has come to a known end.
///
/// A database that runs out of disk in a commit has gone back by itself; sqlx does not notice, and the next transaction
/// of the connection would be a part of one that never ends: acknowledged, and lost.
pub(super) struct ConnectionGuard {
    pub(super) connection: PoolConnection<Any>,
    pub(super) is_clean: bool,
}

impl Drop for ConnectionGuard {
    fn drop(&mut self) {
        if !self.is_clean {
            self.connection.close_on_drop();
        }
    }
}

/// Ends a transaction. What is refused, or is so already, has been counted: that is taken back.
pub(super) async fn finish_transaction<T>(
    transaction: Transaction<'_, Any>,
    decided: Result<ChangeOutcome<T>, ChangeError>,
    sound: &mut bool,
) -> Result<ChangeOutcome<T>, ChangeError> {
    match decided {
        Ok(ChangeOutcome::Changed(after)) => {
            transaction.commit().await.map_err(ChangeError::OutcomeUnknown)?;
            *sound = true;
            Ok(ChangeOutcome::Changed(after))
        }
        Err(ChangeError::Database(error)) => Err(error.into()),
        settled => {
            transaction.rollback().await?;
            *sound = true;
            settled
        }
    }
}

/// What became of the request that had this key; nothing if none had, or there is no key.
pub(super) async fn find_repeated<T>(
    transaction: &mut Transaction<'_, Any>,
    key: Option<(&str, &str)>,
) -> Result<Option<ChangeOutcome<T>>, ChangeError> {
    let Some((key, request)) = key else { return Ok(None) };
    repeated_outcome(rows::find_request(transaction, key).await?, request)
}

/// What became of a request that had the same key: an error if it was another request.
pub(super) fn repeated_outcome<T>(
    earlier: Option<(String, String)>,
    request: &str,
) -> Result<Option<ChangeOutcome<T>>, ChangeError> {
    match earlier {
        None => Ok(None),
        Some((known, answer)) if known == request => Ok(Some(ChangeOutcome::Repeated(answer))),
        Some(_) => Err(ChangeError::IdempotencyKeyReused),
    }
}

/// Keeps the answer to a request that has a key, and forgets old ones.
pub(super) async fn store_answer(
    transaction: &mut Transaction<'_, Any>,
    key: Option<(&str, &str)>,
    answer: impl FnOnce() -> String,
) -> Result<(), sqlx::Error> {
    let Some((key, request)) = key else { return Ok(()) };
    let oldest = now_millis() - i64::try_from(IDEMPOTENCY_KEY_RETENTION.as_millis()).unwrap_or(i64::MAX);
    rows::delete_requests(transaction, oldest).await?;
    rows::insert_request(transaction, key, request, &answer()).await
}

/// Counts the epoch. Its row is this transaction's until its end.
pub(super) async fn increment_epoch(transaction: &mut Transaction<'_, Any>) -> Result<i64, sqlx::Error> {
    let counted = sqlx::query("UPDATE registry SET epoch = epoch + 1 WHERE id = 1 RETURNING epoch");
    counted.fetch_one(&mut **transaction).await?.try_get(0)
}
