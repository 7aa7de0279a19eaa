//! Experiments in the database: what they are, what was counted of them, and what feedback says.

use std::collections::BTreeMap;

use sqlx::any::AnyRow;
use sqlx::{Any, AnyConnection, Connection, Row, Transaction};
use tokio::time::timeout;

use super::rows::{self, from_json, json};
use super::{ANSWER, CHANGE, Change, ChangeError, Database, Held, Outcome, count, now, remember, settle, within};
use crate::experiments::experiment::{Experiment, ExperimentError, Experiments};
use crate::experiments::results::{Decided, Labelled, Sums};
use crate::experiments::statistics::calibration::{Bin, Bins};
use crate::experiments::statistics::{Counts, classes::Confusion};
use crate::experiments::tally::{Counted, Gave, sealed};
use crate::registry::database::Records;
use crate::registry::record::{ModelRecord, Refusal};

/// Longest wait for what feedback says.
const SUMS: std::time::Duration = std::time::Duration::from_secs(10);
/// Processes whose counts stand by themselves; those of more are put together.
const MOST_PROCESSES: usize = 64;
/// A process that has not counted for so long has probably ended.
const SILENT: i64 = 10 * 60 * 1_000;
/// The row of those that were put together.
const TOGETHER: &str = "together";
/// Pairs of an answer and the truth that are told apart.
const MOST_PAIRS: i64 = 10_000;

/// What there is when an experiment changes.
#[derive(Debug)]
pub struct World<'a> {
    /// All models.
    pub records: &'a Records,
    /// All experiments, this one as it was among them.
    pub experiments: &'a Experiments,
}

/// What becomes of an experiment.
#[derive(Debug, Clone, PartialEq)]
pub enum Becomes {
    /// It is so already.
    AsItWas,
    /// This.
    This(Box<Experiment>),
    /// This, and a version becomes the active one of the model that callers ask for.
    Promoted(Box<Experiment>, String),
    /// There is none of this name any more.
    Forgotten,
}

/// How much is asked of a phase.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum With {
    /// What was counted, and decided.
    Counts,
    /// Also how often arms were right.
    Labels,
    /// Also which labels were answered where which were true.
    Pairs,
}

/// A phase of an experiment.
#[derive(Debug, Clone, Copy)]
pub struct OfPhase<'a> {
    /// The experiment.
    pub name: &'a str,
    /// The phase, from 1.
    pub phase: u32,
    /// Nothing that was answered before counts, in milliseconds since 1970.
    pub since: i64,
    /// Its arms.
    pub arms: &'a [String],
}

/// All experiments.
pub(super) async fn all(connection: &mut AnyConnection) -> Result<Experiments, sqlx::Error> {
    let rows = sqlx::query("SELECT name, record FROM experiments").fetch_all(connection).await?;
    rows.iter().map(|row| Ok((row.try_get(0)?, from_json(row, 1)?))).collect()
}

/// Refuses to take a version from an experiment that is not over.
pub(super) async fn spare(
    transaction: &mut Transaction<'_, Any>,
    model: &str,
    before: &ModelRecord,
    after: &ModelRecord,
) -> Result<(), ChangeError> {
    let gone: Vec<_> = before.versions.keys().filter(|version| !after.versions.contains_key(version)).collect();
    if gone.is_empty() {
        return Ok(());
    }
    let experiments = all(transaction).await?;
    for (name, experiment) in experiments.iter().filter(|(_, experiment)| experiment.is_open()) {
        if let Some(version) = gone.iter().find(|version| experiment.uses(model, version.as_str())) {
            return Err(Refusal::InExperiment(version.as_str().to_owned(), name.clone()).into());
        }
    }
    Ok(())
}

impl Database {
    /// Changes an experiment, or refuses to, or tells that the same was asked before. `change.model` is the experiment's
    /// name here.
    ///
    /// # Errors
    /// [`ChangeError`]: nothing was changed then, but for [`ChangeError::Unknown`].
    pub async fn experiment(
        &self,
        change: Change<'_>,
        apply: impl FnOnce(Option<Experiment>, &World<'_>) -> Result<Becomes, ExperimentError>,
    ) -> Result<Outcome<Option<Experiment>>, ChangeError> {
        self.check()?;
        let transact = async {
            let mut held = Held { connection: self.pool.acquire().await?, sound: false };
            let mut transaction = held.connection.begin().await?;
            let decided = decide(&mut transaction, change, apply).await;
            let settled = settle(transaction, decided, &mut held.sound).await?;
            self.verify_written()?;
            Ok(settled)
        };
        timeout(CHANGE, transact).await.unwrap_or(Err(ChangeError::Unknown(sqlx::Error::PoolTimedOut)))
    }

    /// Keeps what a process has counted of a phase in place of what it had counted before. False if it is not there any
    /// more: it was put together with others, and what is counted from here on must begin anew.
    ///
    /// # Errors
    /// If the database does not answer, or not well.
    pub async fn count(
        &self,
        of: OfPhase<'_>,
        process: &str,
        counted: &Counted,
        is_first: bool,
    ) -> Result<bool, ChangeError> {
        self.check()?;
        let encoded = |error: serde_json::Error| sqlx::Error::Encode(error.into());
        let (counts, users) = counted.stored().map_err(encoded)?;
        let keep = async {
            let mut held = Held { connection: self.pool.acquire().await?, sound: false };
            let mut transaction = held.connection.begin().await?;
            // Whoever puts counts together waits: the row of the epoch is this transaction's.
            sqlx::query("UPDATE registry SET epoch = epoch WHERE id = 1").execute(&mut *transaction).await?;
            let row = if is_first {
                put_together(&mut transaction, of).await?;
                "INSERT INTO experiment_counts (experiment, phase, process, counts, users, at) VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT (experiment, phase, process) DO UPDATE SET counts = $4, users = $5, at = $6"
            } else {
                "UPDATE experiment_counts SET counts = $4, users = $5, at = $6 WHERE experiment = $1 AND phase = $2 AND process = $3"
            };
            let row = sqlx::query(row).bind(of.name).bind(i64::from(of.phase)).bind(process);
            let written = row.bind(&counts).bind(&users).bind(now()).execute(&mut *transaction).await?;
            transaction.commit().await.map_err(ChangeError::Unknown)?;
            held.sound = true;
            Ok(written.rows_affected() > 0)
        };
        timeout(CHANGE, keep).await.unwrap_or(Err(ChangeError::Unknown(sqlx::Error::PoolTimedOut)))
    }

    /// All that is known of a phase, as far as it is asked for.
    ///
    /// # Errors
    /// If the database does not answer, or holds what cannot be read.
    pub async fn sums(&self, of: OfPhase<'_>, with: With) -> Result<Sums, sqlx::Error> {
        self.check()?;
        let read = async {
            let mut transaction = self.pool.begin().await?;
            if !self.is_file {
                // A large table takes its time.
                sqlx::query("SET LOCAL statement_timeout = '10s'").execute(&mut *transaction).await?;
            }
            let mut sums = Sums { counted: counted(&mut transaction, of).await?, ..Sums::default() };
            for arm in of.arms.iter().filter(|_| with != With::Counts) {
                sums.labelled.insert(arm.clone(), labelled(&mut transaction, of, arm, with).await?);
            }
            let decided =
                "SELECT arm, better, at, sentence FROM experiment_decisions WHERE experiment = $1 AND phase = $2";
            let decided = sqlx::query(decided).bind(of.name).bind(i64::from(of.phase));
            for row in decided.fetch_all(&mut *transaction).await? {
                let (better, at, sentence) = (row.try_get::<i64, _>(1)? != 0, row.try_get(2)?, row.try_get(3)?);
                sums.decided.insert(row.try_get(0)?, Decided { better, at, sentence });
            }
            transaction.rollback().await?;
            Ok(sums)
        };
        within(SUMS, read).await
    }

    /// Keeps a decision, unless there is one. True if there was none.
    ///
    /// # Errors
    /// If the database does not answer.
    pub async fn decided(&self, of: OfPhase<'_>, arm: &str, decided: &Decided) -> Result<bool, sqlx::Error> {
        self.check()?;
        let row = "INSERT INTO experiment_decisions (experiment, phase, arm, better, sentence, at) VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT DO NOTHING";
        let row = sqlx::query(row).bind(of.name).bind(i64::from(of.phase)).bind(arm);
        let row = row.bind(i64::from(decided.better)).bind(&decided.sentence).bind(decided.at);
        Ok(within(ANSWER, row.execute(&self.pool)).await?.rows_affected() > 0)
    }
}

async fn decide(
    transaction: &mut Transaction<'_, Any>,
    change: Change<'_>,
    apply: impl FnOnce(Option<Experiment>, &World<'_>) -> Result<Becomes, ExperimentError>,
) -> Result<Outcome<Option<Experiment>>, ChangeError> {
    let epoch = count(transaction).await?;
    if let Some((key, request)) = change.key
        && let Some((known, answer)) = rows::request(transaction, key).await?
    {
        return if known == request { Ok(Outcome::Repeated(answer)) } else { Err(ChangeError::OtherRequest) };
    }
    let (records, experiments) = (rows::all(transaction).await?, all(transaction).await?);
    let name = change.model;
    let before = experiments.get(name).cloned();
    let revision = before.as_ref().map_or(0, |before| before.revision);
    if change.revision.is_some_and(|seen| seen != revision) {
        let unknown = || ExperimentError::Unknown(name.to_owned()).into();
        return Err(if before.is_some() { ChangeError::Stale(revision) } else { unknown() });
    }
    let world = World { records: &records, experiments: &experiments };
    let (after, on) = match apply(before.clone(), &world)? {
        Becomes::AsItWas => return Ok(Outcome::AsItWas(before)),
        Becomes::This(after) => {
            let after = write(transaction, name, before.as_ref(), *after).await?;
            let on = after.design.on.clone();
            (Some(after), on)
        }
        Becomes::Promoted(after, version) => {
            let after = write(transaction, name, before.as_ref(), *after).await?;
            let on = after.design.on.clone();
            let found = rows::model(transaction, &on).await?.unwrap_or_default();
            let mut model = found.clone();
            if model.activate(&version)? {
                model.revision += 1;
                rows::write(transaction, &on, Some(&found), &model).await?;
            }
            (Some(after), on)
        }
        Becomes::Forgotten => {
            forget(transaction, name).await?;
            (None, before.map(|before| before.design.on).unwrap_or_default())
        }
    };
    rows::event(transaction, epoch, &on, change.event).await?;
    // Any of it can be written as JSON: it just was.
    remember(transaction, change.key, || serde_json::to_string(&after).unwrap_or_default()).await?;
    Ok(Outcome::Changed(after))
}

async fn write(
    transaction: &mut Transaction<'_, Any>,
    name: &str,
    before: Option<&Experiment>,
    after: Experiment,
) -> Result<Experiment, sqlx::Error> {
    let after = Experiment { revision: before.map_or(0, |before| before.revision) + 1, ..after };
    let row = if before.is_some() {
        "UPDATE experiments SET revision = $2, record = $3 WHERE name = $1"
    } else {
        "INSERT INTO experiments (name, revision, record) VALUES ($1, $2, $3)"
    };
    sqlx::query(row).bind(name).bind(after.revision).bind(json(&after)?).execute(&mut **transaction).await?;
    Ok(after)
}

async fn forget(transaction: &mut Transaction<'_, Any>, name: &str) -> Result<(), sqlx::Error> {
    for rows in [
        "DELETE FROM experiments WHERE name = $1",
        "DELETE FROM experiment_counts WHERE experiment = $1",
        "DELETE FROM experiment_decisions WHERE experiment = $1",
    ] {
        sqlx::query(rows).bind(name).execute(&mut **transaction).await?;
    }
    Ok(())
}

fn counted_of(row: &AnyRow) -> Result<Counted, sqlx::Error> {
    let wrong = |reason: String| sqlx::Error::Decode(reason.into());
    let (counts, users): (String, String) = (row.try_get(0)?, row.try_get(1)?);
    Counted::read(&counts, &users).map_err(wrong)
}

async fn counted(connection: &mut AnyConnection, of: OfPhase<'_>) -> Result<Counted, sqlx::Error> {
    let rows = sqlx::query("SELECT counts, users FROM experiment_counts WHERE experiment = $1 AND phase = $2");
    let mut sum = Counted::default();
    for row in rows.bind(of.name).bind(i64::from(of.phase)).fetch_all(connection).await? {
        sum.merge(&counted_of(&row)?);
    }
    Ok(sum)
}

/// Puts counts of processes that have ended together, once there are many: each start makes a row.
async fn put_together(transaction: &mut Transaction<'_, Any>, of: OfPhase<'_>) -> Result<(), sqlx::Error> {
    let phase = i64::from(of.phase);
    let rows = "SELECT counts, users, process FROM experiment_counts WHERE experiment = $1 AND phase = $2 AND (at < $3 OR process = $4)";
    let rows = sqlx::query(rows).bind(of.name).bind(phase).bind(now() - SILENT).bind(TOGETHER);
    let rows = rows.fetch_all(&mut **transaction).await?;
    if rows.len() < MOST_PROCESSES {
        return Ok(());
    }
    let mut sum = Counted::default();
    for row in &rows {
        sum.merge(&counted_of(row)?);
        let process: String = row.try_get(2)?;
        let gone = sqlx::query("DELETE FROM experiment_counts WHERE experiment = $1 AND phase = $2 AND process = $3");
        gone.bind(of.name).bind(phase).bind(process).execute(&mut **transaction).await?;
    }
    let (counts, users) = sum.stored().map_err(|error| sqlx::Error::Encode(error.into()))?;
    let row =
        "INSERT INTO experiment_counts (experiment, phase, process, counts, users, at) VALUES ($1, $2, $3, $4, $5, $6)";
    let row = sqlx::query(row).bind(of.name).bind(phase).bind(TOGETHER).bind(counts).bind(users).bind(now());
    row.execute(&mut **transaction).await.map(|_| ())
}

/// What feedback says of an arm.
async fn labelled(
    connection: &mut AnyConnection,
    of: OfPhase<'_>,
    arm: &str,
    with: With,
) -> Result<Labelled, sqlx::Error> {
    let unsigned = |number: i64| u64::try_from(number).unwrap_or_default();
    let [answered, failed] = [Gave::Arm, Gave::Control].map(|gave| sealed(of.name, of.phase, arm, gave));
    let sums = "SELECT bin, COUNT(*), SUM(confidence), SUM(CAST(correct AS DOUBLE PRECISION)) FROM feedback WHERE arm = $1 AND arm <> '' AND made >= $2 GROUP BY bin";
    let (mut bins, mut counts) = (BTreeMap::<usize, Bin>::new(), Counts::default());
    for row in sqlx::query(sums).bind(&answered).bind(of.since).fetch_all(&mut *connection).await? {
        let (bin, count): (Option<i64>, i64) = (row.try_get(0)?, row.try_get(1)?);
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a count, and `as` saturates")]
        let correct = row.try_get::<f64, _>(3)? as u64;
        counts.correct += correct;
        counts.answers += unsigned(count);
        let bin = bin.and_then(|bin| usize::try_from(bin).ok()).unwrap_or_default();
        bins.insert(bin, Bin { count: unsigned(count), confidence: row.try_get(2)?, correct });
    }
    let missed = sqlx::query("SELECT COUNT(*) FROM feedback WHERE arm = $1 AND arm <> '' AND made >= $2");
    let missed = missed.bind(&failed).bind(of.since).fetch_one(&mut *connection).await?;
    let missed = unsigned(missed.try_get(0)?);
    counts.answers += missed;
    let (mut confusion, mut is_part) = (Confusion::default(), false);
    if with == With::Pairs {
        let pairs = "SELECT predicted, actual, COUNT(*) FROM feedback WHERE arm = $1 AND arm <> '' AND made >= $2 GROUP BY predicted, actual ORDER BY COUNT(*) DESC LIMIT $3";
        let mut all = Vec::new();
        for (arm, is_answered) in [(&answered, true), (&failed, false)] {
            let found =
                sqlx::query(pairs).bind(arm).bind(of.since).bind(MOST_PAIRS).fetch_all(&mut *connection).await?;
            is_part |= i64::try_from(found.len()).is_ok_and(|found| found >= MOST_PAIRS);
            for row in &found {
                all.push(pair(row, is_answered)?);
            }
        }
        confusion = all.into_iter().collect();
    }
    // Scores of a regression are no confidence.
    let bins = Bins::from_sums(bins).unwrap_or_default();
    Ok(Labelled { counts, failed: missed, bins, confusion, is_part })
}

/// What was answered, what was true, and how often. Several labels are one class.
fn pair(row: &AnyRow, is_answered: bool) -> Result<(String, String, u64), sqlx::Error> {
    let class = |mut labels: Vec<String>| {
        labels.sort_unstable();
        if labels.is_empty() { "(none)".to_owned() } else { labels.join(" + ") }
    };
    let predicted = if is_answered { class(from_json(row, 0)?) } else { "(no answer)".to_owned() };
    let count = u64::try_from(row.try_get::<i64, _>(2)?).unwrap_or_default();
    Ok((predicted, class(from_json(row, 1)?), count))
}
