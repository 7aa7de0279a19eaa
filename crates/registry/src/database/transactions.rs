//! How a transaction begins and ends.

use predictd_platform::clock::now_millis;
use serde::Serialize;
use serde::de::DeserializeOwned;
use sqlx::pool::PoolConnection;
use sqlx::{Any, Executor};
use tokio::time::timeout;

use super::change::{ChangeOutcome, ChangeRequest};
use super::error::ChangeError;
use super::file_health::StorageFault;
use super::idempotency::{find_repeated, store_answer};
use super::pool::Database;
use super::timeouts::CHANGE_TIMEOUT;

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

/// What becomes of a change, before its transaction ends.
pub(super) type Decision<T, A> = Result<ChangeOutcome<T, A>, ChangeError>;

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

    /// Begins the transaction of a change. It is decided already if its request was answered before, or its key was used for
    /// another request.
    pub(super) async fn begin_change<T, A: DeserializeOwned>(
        &self,
        change: ChangeRequest<'_>,
    ) -> Result<(GuardedConnection, Option<Decision<T, A>>), sqlx::Error> {
        let mut transaction = self.begin(1).await?;
        let repeated = find_repeated(&mut transaction.connection, change.idempotency_key).await;
        Ok((transaction, repeated.transpose()))
    }

    /// Ends the transaction of a change. What is refused, or is so already, has been counted: that is taken back.
    pub(super) async fn finish<T, A>(
        &self,
        mut transaction: GuardedConnection,
        decided: Decision<T, A>,
    ) -> Decision<T, A> {
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

/// Adds a change of a model to the history, and stores the answer to its request.
pub(super) async fn record_change(
    transaction: &mut GuardedConnection,
    change: ChangeRequest<'_>,
    model: &str,
    answer: &impl Serialize,
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
    match idempotency_key {
        Some(key) => store_answer(connection, key, answer, now).await,
        None => Ok(()),
    }
}
