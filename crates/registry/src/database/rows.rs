//! Rows to records, and back.

use predictd_experiments::experiment::ExperimentMap;
use predictd_platform::clock::now_millis;
use serde::Serialize;
use serde::de::DeserializeOwned;
use sqlx::any::AnyRow;
use sqlx::{Any, AnyConnection, AnyPool, Row, Transaction};

use super::change::{AuditDetails, AuditEntry, HistoryFilter};
use crate::record::{ModelRecord, ModelRecords, VersionRecord};
use crate::version_name::VersionName;

/// All models.
pub(super) async fn read_models(connection: &mut AnyConnection) -> Result<ModelRecords, sqlx::Error> {
    let mut records = ModelRecords::new();
    let models = sqlx::query("SELECT name, revision, active, earlier, followed FROM models");
    for row in models.fetch_all(&mut *connection).await? {
        records.insert(row.try_get(0)?, parse_model(&row)?);
    }
    let versions = "SELECT model, version, origin, files, metadata, metrics, pinned, registered_at FROM versions";
    for row in sqlx::query(versions).fetch_all(&mut *connection).await? {
        let (version, record) = parse_version(&row)?;
        if let Some(model) = records.get_mut(&row.try_get::<String, _>(0)?) {
            model.versions.insert(version, record);
        }
    }
    Ok(records)
}

/// All experiments.
pub(super) async fn read_experiments(connection: &mut AnyConnection) -> Result<ExperimentMap, sqlx::Error> {
    let rows = sqlx::query("SELECT name, record FROM experiments").fetch_all(connection).await?;
    rows.iter().map(|row| Ok((row.try_get(0)?, from_json(row, 1)?))).collect()
}

/// One model, if it is there.
pub(super) async fn read_model(
    transaction: &mut Transaction<'_, Any>,
    name: &str,
) -> Result<Option<ModelRecord>, sqlx::Error> {
    let found = sqlx::query("SELECT name, revision, active, earlier, followed FROM models WHERE name = $1");
    let Some(row) = found.bind(name).fetch_optional(&mut **transaction).await? else { return Ok(None) };
    let mut model = parse_model(&row)?;
    let versions =
        "SELECT model, version, origin, files, metadata, metrics, pinned, registered_at FROM versions WHERE model = $1";
    for row in sqlx::query(versions).bind(name).fetch_all(&mut **transaction).await? {
        let (version, record) = parse_version(&row)?;
        model.versions.insert(version, record);
    }
    Ok(Some(model))
}

fn parse_model(row: &AnyRow) -> Result<ModelRecord, sqlx::Error> {
    Ok(ModelRecord {
        revision: row.try_get(1)?,
        active: row.try_get(2)?,
        previous_versions: from_json(row, 3)?,
        versions: std::collections::BTreeMap::new(),
        alias_target: row.try_get(4)?,
    })
}

fn parse_version(row: &AnyRow) -> Result<(VersionName, VersionRecord), sqlx::Error> {
    let record = VersionRecord {
        origin: from_json(row, 2)?,
        files: from_json(row, 3)?,
        metadata: from_json(row, 4)?,
        metrics: from_json(row, 5)?,
        pinned: row.try_get::<i64, _>(6)? != 0,
        registered_at: row.try_get(7)?,
    };
    Ok((VersionName::new(row.try_get(1)?), record))
}

/// Writes what differs from what was found.
pub(super) async fn write_model(
    transaction: &mut Transaction<'_, Any>,
    name: &str,
    stored: Option<&ModelRecord>,
    model: &ModelRecord,
) -> Result<(), sqlx::Error> {
    let head = if stored.is_some() {
        "UPDATE models SET revision = $2, active = $3, earlier = $4, followed = $5 WHERE name = $1"
    } else {
        "INSERT INTO models (name, revision, active, earlier, followed) VALUES ($1, $2, $3, $4, $5)"
    };
    let head = sqlx::query(head).bind(name).bind(model.revision).bind(model.active.as_deref());
    let head = head.bind(to_json(&model.previous_versions)?).bind(model.alias_target.as_deref());
    head.execute(&mut **transaction).await?;
    let known = stored.map(|stored| &stored.versions);
    for version in known.into_iter().flatten().map(|(version, _)| version) {
        if !model.versions.contains_key(version) {
            let gone = sqlx::query("DELETE FROM versions WHERE model = $1 AND version = $2");
            gone.bind(name).bind(version.as_str()).execute(&mut **transaction).await?;
        }
    }
    for (version, record) in &model.versions {
        let before = known.and_then(|known| known.get(version));
        if before == Some(record) {
            continue;
        }
        let row = if before.is_some() {
            "UPDATE versions SET origin = $3, files = $4, metadata = $5, metrics = $6, pinned = $7, registered_at = $8 WHERE model = $1 AND version = $2"
        } else {
            "INSERT INTO versions (model, version, origin, files, metadata, metrics, pinned, registered_at) VALUES ($1, $2, $3, $4, $5, $6, $7, $8)"
        };
        let row = sqlx::query(row).bind(name).bind(version.as_str()).bind(to_json(&record.origin)?);
        let row = row.bind(to_json(&record.files)?).bind(to_json(&record.metadata)?).bind(to_json(&record.metrics)?);
        row.bind(i64::from(record.pinned)).bind(record.registered_at).execute(&mut **transaction).await?;
    }
    Ok(())
}

/// Adds to the history.
pub(super) async fn insert_audit_entry(
    transaction: &mut Transaction<'_, Any>,
    epoch: i64,
    model: &str,
    event: AuditDetails<'_>,
) -> Result<(), sqlx::Error> {
    let AuditDetails { actor: who, action, version, experiment, reason } = event;
    let row = "INSERT INTO events (epoch, at, who, action, model, version, reason, experiment) VALUES ($1, $2, $3, $4, $5, $6, $7, $8)";
    let row =
        sqlx::query(row).bind(epoch).bind(now_millis()).bind(who).bind(action).bind(model).bind(version).bind(reason);
    row.bind(experiment).execute(&mut **transaction).await.map(|_| ())
}

/// The last of the history, the last first.
pub(super) async fn read_history(
    pool: &AnyPool,
    of: HistoryFilter<'_>,
    most: i64,
) -> Result<Vec<AuditEntry>, sqlx::Error> {
    let (rows, name) = match of {
        HistoryFilter::All => (
            "SELECT epoch, at, who, action, model, version, reason, experiment FROM events ORDER BY epoch DESC LIMIT $1",
            None,
        ),
        HistoryFilter::Model(name) => (
            "SELECT epoch, at, who, action, model, version, reason, experiment FROM events WHERE model = $2 ORDER BY epoch DESC LIMIT $1",
            Some(name),
        ),
        HistoryFilter::Experiment(name) => (
            "SELECT epoch, at, who, action, model, version, reason, experiment FROM events WHERE experiment = $2 ORDER BY epoch DESC LIMIT $1",
            Some(name),
        ),
    };
    let rows = sqlx::query(rows).bind(most);
    let rows = if let Some(name) = name { rows.bind(name) } else { rows };
    let done = |row: AnyRow| {
        Ok(AuditEntry {
            epoch: row.try_get(0)?,
            timestamp_ms: row.try_get(1)?,
            actor: row.try_get(2)?,
            action: row.try_get(3)?,
            model: row.try_get(4)?,
            version: row.try_get(5)?,
            reason: row.try_get(6)?,
            experiment: row.try_get(7)?,
        })
    };
    rows.fetch_all(pool).await?.into_iter().map(done).collect()
}

/// The request that had this key, and its answer.
pub(super) async fn find_request(
    connection: &mut AnyConnection,
    key: &str,
) -> Result<Option<(String, String)>, sqlx::Error> {
    let found = sqlx::query("SELECT request, answer FROM requests WHERE request_key = $1").bind(key);
    let found = found.fetch_optional(connection).await?;
    found.map(|row| Ok((row.try_get(0)?, row.try_get(1)?))).transpose()
}

/// Keeps the answer to a request.
pub(super) async fn insert_request(
    transaction: &mut Transaction<'_, Any>,
    key: &str,
    request: &str,
    answer: &str,
) -> Result<(), sqlx::Error> {
    let row = sqlx::query("INSERT INTO requests (request_key, request, answer, at) VALUES ($1, $2, $3, $4)");
    row.bind(key).bind(request).bind(answer).bind(now_millis()).execute(&mut **transaction).await.map(|_| ())
}

/// Forgets requests from before a time.
pub(super) async fn delete_requests(transaction: &mut Transaction<'_, Any>, before: i64) -> Result<(), sqlx::Error> {
    let rows = sqlx::query("DELETE FROM requests WHERE at < $1").bind(before);
    rows.execute(&mut **transaction).await.map(|_| ())
}

pub(super) fn to_json(value: &impl Serialize) -> Result<String, sqlx::Error> {
    serde_json::to_string(value).map_err(|error| sqlx::Error::Encode(error.into()))
}

pub(super) fn from_json<T: DeserializeOwned>(row: &AnyRow, index: usize) -> Result<T, sqlx::Error> {
    let json: String = row.try_get(index)?;
    serde_json::from_str(&json).map_err(|error| sqlx::Error::Decode(error.into()))
}
