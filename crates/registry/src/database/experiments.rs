//! Experiments in the database: what they are, what was counted of them, and what feedback says.

use std::collections::BTreeMap;

use predictd_experiments::counters::{AnswerSource, PhaseCounts, arm_path};
use predictd_experiments::experiment::{Experiment, ExperimentError, ExperimentMap};
use predictd_experiments::results::{ArmFeedback, FirstDecision, PhaseTotals};
use predictd_platform::clock::now_millis;
use predictd_stats::reliability::{ReliabilityBin, ReliabilityDiagram};
use predictd_stats::{FeedbackCounts, confusion::ConfusionMatrix};
use sqlx::any::AnyRow;
use sqlx::{Any, AnyConnection, Connection, Row, Transaction};
use tokio::time::timeout;

use super::change::{ChangeOutcome, ChangeRequest};
use super::error::ChangeError;
use super::pool::Database;
use super::rows::{self, from_json, read_experiments, to_json};
use super::timeouts::{CHANGE_TIMEOUT, QUERY_TIMEOUT, with_timeout};
use super::transactions::{ConnectionGuard, find_repeated, finish_transaction, increment_epoch, store_answer};
use crate::record::{ModelRecord, ModelRecords, RecordError};

/// Longest wait for what feedback says.
const SUMS_TIMEOUT: std::time::Duration = std::time::Duration::from_secs(10);
/// Processes whose counts stand by themselves; those of more are put together.
const MAX_PROCESS_ROWS: usize = 64;
/// A process that has not counted for so long has probably ended.
const PROCESS_SILENCE_MS: i64 = 10 * 60 * 1_000;
/// The row of those that were put together.
const MERGED_ROW_PROCESS: &str = "together";
/// Pairs of an answer and the truth that are counted separately.
const MAX_LABEL_PAIRS: i64 = 10_000;

/// What there is when an experiment changes.
#[derive(Debug)]
pub struct RegistryView<'a> {
    /// All models.
    pub records: &'a ModelRecords,
    /// All experiments, this one as it was among them.
    pub experiments: &'a ExperimentMap,
}

/// What becomes of an experiment.
#[derive(Debug, Clone, PartialEq)]
pub enum ExperimentWriteAction {
    /// It is so already.
    Unchanged,
    /// This.
    Replace(Box<Experiment>),
    /// This, and a version becomes the active one of the model that callers ask for.
    Promote(Box<Experiment>, String),
    /// There is none of this name any more.
    Delete,
}

/// How much is asked of a phase.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ResultDetail {
    /// What was counted, and decided.
    Counts,
    /// Also how often arms were right.
    Labels,
    /// Also which labels were answered where which were true.
    Pairs,
}

/// A phase of an experiment.
#[derive(Debug, Clone, Copy)]
pub struct PhaseQuery<'a> {
    /// The experiment.
    pub experiment: &'a str,
    /// The phase, from 1.
    pub phase: u32,
    /// Nothing that was answered before counts, in milliseconds since 1970.
    pub answered_after: i64,
    /// Its arms.
    pub arms: &'a [String],
}

/// Refuses to take a version from an experiment that is not over.
pub(super) async fn ensure_unused(
    transaction: &mut Transaction<'_, Any>,
    model: &str,
    before: &ModelRecord,
    after: &ModelRecord,
) -> Result<(), ChangeError> {
    let gone: Vec<_> = before.versions.keys().filter(|version| !after.versions.contains_key(version)).collect();
    if gone.is_empty() {
        return Ok(());
    }
    let experiments = read_experiments(transaction).await?;
    for (name, experiment) in experiments.iter().filter(|(_, experiment)| experiment.is_open()) {
        if let Some(version) = gone.iter().find(|version| experiment.uses_version(model, version.as_str())) {
            return Err(RecordError::VersionInExperiment(version.as_str().to_owned(), name.clone()).into());
        }
    }
    Ok(())
}

impl Database {
    /// Changes an experiment, or refuses to, or tells that the same was asked before. `change.model` is the experiment's
    /// name here.
    ///
    /// # Errors
    /// [`ChangeError`]: nothing was changed then, but for [`ChangeError::OutcomeUnknown`].
    pub async fn change_experiment(
        &self,
        change: ChangeRequest<'_>,
        apply: impl FnOnce(Option<Experiment>, &RegistryView<'_>) -> Result<ExperimentWriteAction, ExperimentError>,
    ) -> Result<ChangeOutcome<Option<Experiment>>, ChangeError> {
        self.ensure_usable()?;
        let transact = async {
            let mut held = ConnectionGuard { connection: self.pool.acquire().await?, is_clean: false };
            let mut transaction = held.connection.begin().await?;
            let decided = apply_experiment_change(&mut transaction, change, apply).await;
            let settled = finish_transaction(transaction, decided, &mut held.is_clean).await?;
            self.verify_written()?;
            Ok(settled)
        };
        timeout(CHANGE_TIMEOUT, transact).await.unwrap_or(Err(ChangeError::OutcomeUnknown(sqlx::Error::PoolTimedOut)))
    }

    /// Keeps what a process has counted of a phase in place of what it had counted before. False if it is not there any
    /// more: it was put together with others, and what is counted from here on must begin anew.
    ///
    /// # Errors
    /// If the database does not answer, or not well.
    pub async fn store_counts(
        &self,
        of: PhaseQuery<'_>,
        process: &str,
        counted: &PhaseCounts,
        is_first: bool,
    ) -> Result<bool, ChangeError> {
        self.ensure_usable()?;
        let encoded = |error: serde_json::Error| sqlx::Error::Encode(error.into());
        let (counts, users) = counted.to_stored().map_err(encoded)?;
        let keep = async {
            let mut held = ConnectionGuard { connection: self.pool.acquire().await?, is_clean: false };
            let mut transaction = held.connection.begin().await?;
            // Merges of counts wait: this transaction holds the row of the epoch.
            sqlx::query("UPDATE registry SET epoch = epoch WHERE id = 1").execute(&mut *transaction).await?;
            let row = if is_first {
                compact_counts(&mut transaction, of).await?;
                "INSERT INTO experiment_counts (experiment, phase, process, counts, users, at) VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT (experiment, phase, process) DO UPDATE SET counts = $4, users = $5, at = $6"
            } else {
                "UPDATE experiment_counts SET counts = $4, users = $5, at = $6 WHERE experiment = $1 AND phase = $2 AND process = $3"
            };
            let row = sqlx::query(row).bind(of.experiment).bind(i64::from(of.phase)).bind(process);
            let written = row.bind(&counts).bind(&users).bind(now_millis()).execute(&mut *transaction).await?;
            transaction.commit().await.map_err(ChangeError::OutcomeUnknown)?;
            held.is_clean = true;
            Ok(written.rows_affected() > 0)
        };
        timeout(CHANGE_TIMEOUT, keep).await.unwrap_or(Err(ChangeError::OutcomeUnknown(sqlx::Error::PoolTimedOut)))
    }

    /// All that is known of a phase, as far as it is asked for.
    ///
    /// # Errors
    /// If the database does not answer, or holds what cannot be read.
    pub async fn read_sums(&self, of: PhaseQuery<'_>, with: ResultDetail) -> Result<PhaseTotals, sqlx::Error> {
        self.ensure_usable()?;
        let read = async {
            let mut transaction = self.pool.begin().await?;
            if !self.is_sqlite {
                // A large table takes its time.
                sqlx::query("SET LOCAL statement_timeout = '10s'").execute(&mut *transaction).await?;
            }
            let mut sums = PhaseTotals { counts: read_counts(&mut transaction, of).await?, ..PhaseTotals::default() };
            for arm in of.arms.iter().filter(|_| with != ResultDetail::Counts) {
                sums.feedback.insert(arm.clone(), read_label_results(&mut transaction, of, arm, with).await?);
            }
            let decided =
                "SELECT arm, better, at, sentence FROM experiment_decisions WHERE experiment = $1 AND phase = $2";
            let decided = sqlx::query(decided).bind(of.experiment).bind(i64::from(of.phase));
            for row in decided.fetch_all(&mut *transaction).await? {
                let better = row.try_get::<i64, _>(1)? != 0;
                let at = row.try_get(2)?;
                let sentence = row.try_get(3)?;
                sums.first_decisions
                    .insert(row.try_get(0)?, FirstDecision { is_better: better, decided_at: at, sentence });
            }
            transaction.rollback().await?;
            Ok(sums)
        };
        with_timeout(SUMS_TIMEOUT, read).await
    }

    /// Keeps a decision, unless there is one. True if there was none.
    ///
    /// # Errors
    /// If the database does not answer.
    pub async fn store_decision(
        &self,
        of: PhaseQuery<'_>,
        arm: &str,
        decided: &FirstDecision,
    ) -> Result<bool, sqlx::Error> {
        self.ensure_usable()?;
        let row = "INSERT INTO experiment_decisions (experiment, phase, arm, better, sentence, at) VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT DO NOTHING";
        let row = sqlx::query(row).bind(of.experiment).bind(i64::from(of.phase)).bind(arm);
        let row = row.bind(i64::from(decided.is_better)).bind(&decided.sentence).bind(decided.decided_at);
        Ok(with_timeout(QUERY_TIMEOUT, row.execute(&self.pool)).await?.rows_affected() > 0)
    }
}

async fn apply_experiment_change(
    transaction: &mut Transaction<'_, Any>,
    change: ChangeRequest<'_>,
    apply: impl FnOnce(Option<Experiment>, &RegistryView<'_>) -> Result<ExperimentWriteAction, ExperimentError>,
) -> Result<ChangeOutcome<Option<Experiment>>, ChangeError> {
    let epoch = increment_epoch(transaction).await?;
    if let Some(repeated) = find_repeated(transaction, change.idempotency_key).await? {
        return Ok(repeated);
    }
    let records = rows::read_models(transaction).await?;
    let experiments = read_experiments(transaction).await?;
    let name = change.target;
    let before = experiments.get(name).cloned();
    let revision = before.as_ref().map_or(0, |before| before.revision);
    if change.expected_revision.is_some_and(|seen| seen != revision) {
        return Err(match before {
            Some(_) => ChangeError::RevisionMismatch(revision),
            None => ExperimentError::NotFound(name.to_owned()).into(),
        });
    }
    let world = RegistryView { records: &records, experiments: &experiments };
    let (after, on) = match apply(before.clone(), &world)? {
        ExperimentWriteAction::Unchanged => return Ok(ChangeOutcome::Unchanged(before)),
        ExperimentWriteAction::Replace(after) => {
            let after = write_experiment(transaction, name, before.as_ref(), *after).await?;
            let on = after.design.model.clone();
            (Some(after), on)
        }
        ExperimentWriteAction::Promote(after, version) => {
            let after = write_experiment(transaction, name, before.as_ref(), *after).await?;
            let on = after.design.model.clone();
            let stored = rows::read_model(transaction, &on).await?.unwrap_or_default();
            let mut model = stored.clone();
            if model.activate(&version)? {
                model.revision += 1;
                rows::write_model(transaction, &on, Some(&stored), &model).await?;
            }
            (Some(after), on)
        }
        ExperimentWriteAction::Delete => {
            delete_experiment(transaction, name).await?;
            (None, before.map(|before| before.design.model).unwrap_or_default())
        }
    };
    rows::insert_audit_entry(transaction, epoch, &on, change.audit).await?;
    // Any of it can be written as JSON: it just was.
    store_answer(transaction, change.idempotency_key, || serde_json::to_string(&after).unwrap_or_default()).await?;
    Ok(ChangeOutcome::Changed(after))
}

async fn write_experiment(
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
    sqlx::query(row).bind(name).bind(after.revision).bind(to_json(&after)?).execute(&mut **transaction).await?;
    Ok(after)
}

async fn delete_experiment(transaction: &mut Transaction<'_, Any>, name: &str) -> Result<(), sqlx::Error> {
    for rows in [
        "DELETE FROM experiments WHERE name = $1",
        "DELETE FROM experiment_counts WHERE experiment = $1",
        "DELETE FROM experiment_decisions WHERE experiment = $1",
    ] {
        sqlx::query(rows).bind(name).execute(&mut **transaction).await?;
    }
    Ok(())
}

fn parse_counts(row: &AnyRow) -> Result<PhaseCounts, sqlx::Error> {
    let counts: String = row.try_get(0)?;
    let users: String = row.try_get(1)?;
    PhaseCounts::from_stored(&counts, &users).map_err(sqlx::Error::Decode)
}

async fn read_counts(connection: &mut AnyConnection, of: PhaseQuery<'_>) -> Result<PhaseCounts, sqlx::Error> {
    let rows = sqlx::query("SELECT counts, users FROM experiment_counts WHERE experiment = $1 AND phase = $2");
    let mut sum = PhaseCounts::default();
    for row in rows.bind(of.experiment).bind(i64::from(of.phase)).fetch_all(connection).await? {
        sum.merge(&parse_counts(&row)?);
    }
    Ok(sum)
}

/// Puts counts of processes that have ended together, once there are many: each start makes a row.
async fn compact_counts(transaction: &mut Transaction<'_, Any>, of: PhaseQuery<'_>) -> Result<(), sqlx::Error> {
    let phase = i64::from(of.phase);
    let rows = "SELECT counts, users, process FROM experiment_counts WHERE experiment = $1 AND phase = $2 AND (at < $3 OR process = $4)";
    let rows = sqlx::query(rows)
        .bind(of.experiment)
        .bind(phase)
        .bind(now_millis() - PROCESS_SILENCE_MS)
        .bind(MERGED_ROW_PROCESS);
    let rows = rows.fetch_all(&mut **transaction).await?;
    if rows.len() < MAX_PROCESS_ROWS {
        return Ok(());
    }
    let mut sum = PhaseCounts::default();
    for row in &rows {
        sum.merge(&parse_counts(row)?);
        let process: String = row.try_get(2)?;
        let gone = sqlx::query("DELETE FROM experiment_counts WHERE experiment = $1 AND phase = $2 AND process = $3");
        gone.bind(of.experiment).bind(phase).bind(process).execute(&mut **transaction).await?;
    }
    let (counts, users) = sum.to_stored().map_err(|error| sqlx::Error::Encode(error.into()))?;
    let row =
        "INSERT INTO experiment_counts (experiment, phase, process, counts, users, at) VALUES ($1, $2, $3, $4, $5, $6)";
    let row = sqlx::query(row)
        .bind(of.experiment)
        .bind(phase)
        .bind(MERGED_ROW_PROCESS)
        .bind(counts)
        .bind(users)
        .bind(now_millis());
    row.execute(&mut **transaction).await.map(|_| ())
}

/// What feedback says of an arm.
async fn read_label_results(
    connection: &mut AnyConnection,
    of: PhaseQuery<'_>,
    arm: &str,
    with: ResultDetail,
) -> Result<ArmFeedback, sqlx::Error> {
    let [answered, failed] =
        [AnswerSource::Arm, AnswerSource::ControlAfterFailure].map(|gave| arm_path(of.experiment, of.phase, arm, gave));
    let sums = "SELECT bin, COUNT(*), SUM(confidence), SUM(CAST(correct AS DOUBLE PRECISION)) FROM feedback WHERE arm = $1 AND arm <> '' AND made >= $2 GROUP BY bin";
    let mut bins = BTreeMap::<usize, ReliabilityBin>::new();
    let mut counts = FeedbackCounts::default();
    for row in sqlx::query(sums).bind(&answered).bind(of.answered_after).fetch_all(&mut *connection).await? {
        let bin: Option<i64> = row.try_get(0)?;
        let count: i64 = row.try_get(1)?;
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a count, and `as` saturates")]
        let correct = row.try_get::<f64, _>(3)? as u64;
        counts.correct += correct;
        counts.answers += count_from(count);
        let bin = bin.and_then(|bin| usize::try_from(bin).ok()).unwrap_or_default();
        bins.insert(bin, ReliabilityBin { count: count_from(count), confidence: row.try_get(2)?, correct });
    }
    let missed = sqlx::query("SELECT COUNT(*) FROM feedback WHERE arm = $1 AND arm <> '' AND made >= $2");
    let missed = missed.bind(&failed).bind(of.answered_after).fetch_one(&mut *connection).await?;
    let missed = count_from(missed.try_get(0)?);
    counts.answers += missed;
    let mut confusion = ConfusionMatrix::default();
    let mut is_part = false;
    if with == ResultDetail::Pairs {
        let pairs = "SELECT predicted, actual, COUNT(*) FROM feedback WHERE arm = $1 AND arm <> '' AND made >= $2 GROUP BY predicted, actual ORDER BY COUNT(*) DESC LIMIT $3";
        let mut all = Vec::new();
        for (arm, is_answered) in [(&answered, true), (&failed, false)] {
            let label_pairs = sqlx::query(pairs)
                .bind(arm)
                .bind(of.answered_after)
                .bind(MAX_LABEL_PAIRS)
                .fetch_all(&mut *connection)
                .await?;
            is_part |= i64::try_from(label_pairs.len()).is_ok_and(|count| count >= MAX_LABEL_PAIRS);
            for row in &label_pairs {
                all.push(parse_label_pair(row, is_answered)?);
            }
        }
        confusion = all.into_iter().collect();
    }
    // Scores of a regression are no confidence.
    let bins = ReliabilityDiagram::from_sums(bins).unwrap_or_default();
    Ok(ArmFeedback { counts, failed: missed, bins, confusion, is_confusion_truncated: is_part })
}

/// What was answered, what was true, and how often. Several labels are one class.
fn parse_label_pair(row: &AnyRow, is_answered: bool) -> Result<(String, String, u64), sqlx::Error> {
    let predicted = if is_answered { class_name(from_json(row, 0)?) } else { "(no answer)".to_owned() };
    let count = u64::try_from(row.try_get::<i64, _>(2)?).unwrap_or_default();
    Ok((predicted, class_name(from_json(row, 1)?), count))
}

/// The class of several labels.
fn class_name(mut labels: Vec<String>) -> String {
    labels.sort_unstable();
    if labels.is_empty() { "(none)".to_owned() } else { labels.join(" + ") }
}

fn count_from(number: i64) -> u64 {
    u64::try_from(number).unwrap_or_default()
}
