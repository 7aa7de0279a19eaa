//! Rows to records, and back.

use predictd_experiments::experiment::ExperimentMap;
use serde::Serialize;
use serde::de::DeserializeOwned;
use sqlx::any::{AnyArguments, AnyRow};
use sqlx::query::Query;
use sqlx::{Any, AnyConnection, Row};

use crate::record::{ModelRecord, ModelRecords, VersionRecord};
use crate::version_name::VersionName;

/// A statement with its values.
pub(super) type AnyQuery = Query<'static, Any, AnyArguments>;

/// All models.
pub(super) async fn read_models(connection: &mut AnyConnection) -> Result<ModelRecords, sqlx::Error> {
    let models = "SELECT name, revision, active, earlier, followed FROM models";
    let versions = "SELECT model, version, origin, files, metadata, metrics, pinned, registered_at FROM versions";
    fetch_models(connection, sqlx::query(models), sqlx::query(versions)).await
}

/// One model; an empty record if it is not there.
pub(super) async fn read_model(connection: &mut AnyConnection, name: &str) -> Result<ModelRecord, sqlx::Error> {
    let models = "SELECT name, revision, active, earlier, followed FROM models WHERE name = $1";
    let versions =
        "SELECT model, version, origin, files, metadata, metrics, pinned, registered_at FROM versions WHERE model = $1";
    let found = fetch_models(connection, sqlx::query(models).bind(name), sqlx::query(versions).bind(name)).await;
    Ok(found?.remove(name).unwrap_or_default())
}

async fn fetch_models(
    connection: &mut AnyConnection,
    models: AnyQuery,
    versions: AnyQuery,
) -> Result<ModelRecords, sqlx::Error> {
    let mut records = ModelRecords::new();
    for row in models.fetch_all(&mut *connection).await? {
        let model = ModelRecord {
            revision: row.try_get(1)?,
            active: row.try_get(2)?,
            previous_versions: from_json(&row, 3)?,
            alias_target: row.try_get(4)?,
            ..ModelRecord::default()
        };
        records.insert(row.try_get(0)?, model);
    }
    for row in versions.fetch_all(connection).await? {
        let version = VersionRecord {
            origin: from_json(&row, 2)?,
            files: from_json(&row, 3)?,
            metadata: from_json(&row, 4)?,
            metrics: from_json(&row, 5)?,
            pinned: row.try_get::<i64, _>(6)? != 0,
            registered_at: row.try_get(7)?,
        };
        if let Some(model) = records.get_mut(row.try_get::<&str, _>(0)?) {
            model.versions.insert(VersionName::new(row.try_get(1)?), version);
        }
    }
    Ok(records)
}

/// All experiments.
pub(super) async fn read_experiments(connection: &mut AnyConnection) -> Result<ExperimentMap, sqlx::Error> {
    let rows = sqlx::query("SELECT name, record FROM experiments").fetch_all(connection).await?;
    rows.iter().map(|row| Ok((row.try_get(0)?, from_json(row, 1)?))).collect()
}

/// Writes what differs from what was found.
pub(super) async fn write_model(
    connection: &mut AnyConnection,
    name: &str,
    before: &ModelRecord,
    model: &ModelRecord,
) -> Result<(), sqlx::Error> {
    let row = "INSERT INTO models (name, revision, active, earlier, followed) VALUES ($1, $2, $3, $4, $5) ON CONFLICT (name) DO UPDATE SET revision = $2, active = $3, earlier = $4, followed = $5";
    sqlx::query(row)
        .bind(name)
        .bind(model.revision)
        .bind(model.active.as_deref())
        .bind(to_json(&model.previous_versions)?)
        .bind(model.alias_target.as_deref())
        .execute(&mut *connection)
        .await?;
    for version in before.versions.keys().filter(|version| !model.versions.contains_key(version)) {
        sqlx::query("DELETE FROM versions WHERE model = $1 AND version = $2")
            .bind(name)
            .bind(version.as_str())
            .execute(&mut *connection)
            .await?;
    }
    for (version, record) in &model.versions {
        if before.versions.get(version) == Some(record) {
            continue;
        }
        let row = "INSERT INTO versions (model, version, origin, files, metadata, metrics, pinned, registered_at) VALUES ($1, $2, $3, $4, $5, $6, $7, $8) ON CONFLICT (model, version) DO UPDATE SET origin = $3, files = $4, metadata = $5, metrics = $6, pinned = $7, registered_at = $8";
        sqlx::query(row)
            .bind(name)
            .bind(version.as_str())
            .bind(to_json(&record.origin)?)
            .bind(to_json(&record.files)?)
            .bind(to_json(&record.metadata)?)
            .bind(to_json(&record.metrics)?)
            .bind(i64::from(record.pinned))
            .bind(record.registered_at)
            .execute(&mut *connection)
            .await?;
    }
    Ok(())
}

/// A count, which the database has as a signed number.
pub(super) fn count_from(number: i64) -> u64 {
    u64::try_from(number).unwrap_or_default()
}

pub(super) fn to_json(value: &impl Serialize) -> Result<String, sqlx::Error> {
    serde_json::to_string(value).map_err(|error| sqlx::Error::Encode(error.into()))
}

pub(super) fn from_json<T: DeserializeOwned>(row: &AnyRow, index: usize) -> Result<T, sqlx::Error> {
    serde_json::from_str(row.try_get(index)?).map_err(|error| sqlx::Error::Decode(error.into()))
}
