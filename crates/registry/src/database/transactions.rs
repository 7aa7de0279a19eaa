//! How a transaction begins and ends.

use predictd_platform::clock::now_millis;
use sqlx::pool::PoolConnection;
use sqlx::{Any, AnyConnection, Executor};
use tokio::time::timeout;

use super::change::{ChangeOutcome, ChangeRequest};
use super::error::ChangeError;
use super::file_health::StorageFault;
use super::pool::Database;
use super::timeouts::CHANGE_TIMEOUT;

/// How long answers to writes are known by their Idempotency-Key.
const IDEMPOTENCY_KEY_RETENTION_MS: i64 = 24 * 60 * 60 * 1_000;

/// A connection that is closed, which ends its transaction, unless that has come to a known end.
///
/// A database that runs out of disk in a commit has gone back by itself; sqlx does not notice, and the next transaction
/// of the connection would be a part of one that never ends: acknowledged, and lost. A transaction of sqlx does not give
/// its connection back to be closed: this one is begun and ended by its statements.
pub(super) struct GuardedConnection {
    pub(super) connection: PoolConnection<Any>,
    /// The epoch that the transaction makes, or leaves; 0 without one.
    pub(super) epoch: i64,
    pub(super) is_clean: bool,
}

impl GuardedConnection {
    pub(super) async fn commit(&mut self) -> Result<(), ChangeError> {
        self.end_transaction("COMMIT").await.map_err(ChangeError::OutcomeUnknown)
    }

    async fn end_transaction(&mut self, statement: &'static str) -> Result<(), sqlx::Error> {
        self.connection.execute(statement).await?;
        self.is_clean = true;
        Ok(())
    }
}

impl Drop for GuardedConnection {
    fn drop(&mut self) {
        if !self.is_clean {
            self.connection.close_on_drop();
        }
    }
}

impl Database {
    /// Writes to the database. What takes too long may have been written.
    pub(super) async fn write<T>(&self, write: impl Future<Output = Result<T, ChangeError>>) -> Result<T, ChangeError> {
        self.ensure_usable()?;
        // In a box: the futures of callers would hold it twice.
        timeout(CHANGE_TIMEOUT, Box::pin(write))
            .await
            .unwrap_or(Err(ChangeError::OutcomeUnknown(sqlx::Error::PoolTimedOut)))
    }

    /// A connection without a transaction.
    pub(super) async fn acquire(&self) -> Result<GuardedConnection, sqlx::Error> {
        Ok(GuardedConnection { connection: self.pool.acquire().await?, epoch: 0, is_clean: false })
    }

    /// Begins a transaction, which counts so many changes. The row of the epoch is the transaction's until its end: other
    /// writes wait, here and in other processes.
    pub(super) async fn begin(&self, changes: i64) -> Result<GuardedConnection, sqlx::Error> {
        let mut transaction = self.acquire().await?;
        transaction.connection.execute("BEGIN").await?;
        transaction.epoch = sqlx::query_scalar("UPDATE registry SET epoch = epoch + $1 WHERE id = 1 RETURNING epoch")
            .bind(changes)
            .fetch_one(&mut *transaction.connection)
            .await?;
        Ok(transaction)
    }

    /// Ends the transaction of a change. What is refused, or is so already, has been counted: that is taken back.
    pub(super) async fn finish<T>(
        &self,
        mut transaction: GuardedConnection,
        decided: Result<ChangeOutcome<T>, ChangeError>,
    ) -> Result<ChangeOutcome<T>, ChangeError> {
        match &decided {
            Ok(ChangeOutcome::Changed(_)) => transaction.commit().await?,
            Err(ChangeError::Database(_)) => {}
            _ => transaction.end_transaction("ROLLBACK").await?,
        }
        let settled = decided?;
        self.check_after_write()?;
        Ok(settled)
    }

    /// Looks, while the connection of a transaction is open, whether what it wrote is where a restart looks for it.
    pub(super) fn check_after_write(&self) -> Result<(), sqlx::Error> {
        match &self.file_health.directory {
            Some(directory) if self.is_sqlite && !directory.check_after_write() => {
                Err(StorageFault::DirectoryLost.into())
            }
            _ => Ok(()),
        }
    }
}

/// What became of the request that had this key; nothing if none had, or there is no key. An error if it was another
/// request.
pub(super) async fn find_repeated<T>(
    connection: &mut AnyConnection,
    key: Option<(&str, &str)>,
) -> Result<Option<ChangeOutcome<T>>, ChangeError> {
    let Some((key, request)) = key else { return Ok(None) };
    let earlier: Option<(String, String)> =
        sqlx::query_as("SELECT request, answer FROM requests WHERE request_key = $1")
            .bind(key)
            .fetch_optional(connection)
            .await?;
    match earlier {
        None => Ok(None),
        Some((known, answer)) if known == request => Ok(Some(ChangeOutcome::Repeated(answer))),
        Some(_) => Err(ChangeError::IdempotencyKeyReused),
    }
}

/// Adds a change of a model to the history. Keeps the answer to a request that has a key, and forgets old ones.
pub(super) async fn record_change(
    transaction: &mut GuardedConnection,
    change: ChangeRequest<'_>,
    model: &str,
    answer: impl FnOnce() -> String,
) -> Result<(), sqlx::Error> {
    let ChangeRequest { audit, idempotency_key, .. } = change;
    let connection = &mut *transaction.connection;
    let now = now_millis();
    let row = "INSERT INTO events (epoch, at, who, action, model, version, reason, experiment) VALUES ($1, $2, $3, $4, $5, $6, $7, $8)";
    sqlx::query(row)
        .bind(transaction.epoch)
        .bind(now)
        .bind(audit.actor)
        .bind(audit.action)
        .bind(model)
        .bind(audit.version)
        .bind(audit.reason)
        .bind(audit.experiment)
        .execute(&mut *connection)
        .await?;
    let Some((key, request)) = idempotency_key else { return Ok(()) };
    sqlx::query("DELETE FROM requests WHERE at < $1")
        .bind(now - IDEMPOTENCY_KEY_RETENTION_MS)
        .execute(&mut *connection)
        .await?;
    sqlx::query("INSERT INTO requests (request_key, request, answer, at) VALUES ($1, $2, $3, $4)")
        .bind(key)
        .bind(request)
        .bind(answer())
        .bind(now)
        .execute(connection)
        .await
        .map(drop)
}
