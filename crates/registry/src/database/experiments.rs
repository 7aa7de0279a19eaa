//! Experiments in the database: what they are, what was counted of them, and what feedback says.

use std::collections::BTreeMap;

use predictd_experiments::counters::{AnswerSource, PhaseCounts, arm_path};
use predictd_experiments::experiment::{Experiment, ExperimentError, ExperimentMap};
use predictd_experiments::results::{ArmFeedback, FirstDecision, PhaseTotals};
use predictd_platform::clock::now_millis;
use predictd_stats::reliability::{ReliabilityBin, ReliabilityDiagram};
use sqlx::any::AnyRow;
use sqlx::{AnyConnection, Row};

use super::change::{ChangeOutcome, ChangeRequest};
use super::error::ChangeError;
use super::pool::Database;
use super::rows::{self, AnyQuery, count_from, from_json, read_experiments, to_json};
use super::timeouts::{SUMS_TIMEOUT, with_timeout};
use super::transactions::{GuardedConnection, record_change};
use crate::record::{ModelRecord, ModelRecords, RecordError};

/// Processes whose counts stand by themselves; those of more are put together.
const MAX_PROCESS_ROWS: usize = 64;
/// A process that has not counted for so long has probably ended.
const PROCESS_SILENCE_MS: i64 = 10 * 60 * 1_000;
/// The row of those that were put together.
const MERGED_ROW_PROCESS: &str = "together";
/// Pairs of an answer and the truth that are counted separately.
const MAX_LABEL_PAIRS: u32 = 10_000;

/// Keeps what a process has counted, as the first of it.
const INSERT_COUNTS: &str = "INSERT INTO experiment_counts (experiment, phase, process, counts, users, at) VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT (experiment, phase, process) DO UPDATE SET counts = $4, users = $5, at = $6";

/// What became of a change of an experiment; no experiment if it was deleted.
pub type ExperimentChangeOutcome = ChangeOutcome<Option<Experiment>, Option<Experiment>>;

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
    connection: &mut AnyConnection,
    model: &str,
    before: &ModelRecord,
    after: &ModelRecord,
) -> Result<(), ChangeError> {
    let gone: Vec<_> = before.versions.keys().filter(|version| !after.versions.contains_key(version)).collect();
    if gone.is_empty() {
        return Ok(());
    }
    for (name, experiment) in read_experiments(connection).await? {
        if experiment.is_open()
            && let Some(version) = gone.iter().find(|version| experiment.uses_version(model, version.as_str()))
        {
            return Err(RecordError::VersionInExperiment(version.as_str().to_owned(), name).into());
        }
    }
    Ok(())
}

/// The tables of experiments.
#[derive(Debug, Clone, Copy)]
pub struct ExperimentTables<'a>(pub &'a Database);

impl ExperimentTables<'_> {
    /// Changes an experiment, refuses to, or returns the first answer to a repeated request. `change.model` is the experiment's
    /// name here.
    ///
    /// # Errors
    /// [`ChangeError`]: nothing was changed then, but for [`ChangeError::OutcomeUnknown`].
    pub async fn change(
        &self,
        change: ChangeRequest<'_>,
        apply: impl FnOnce(Option<Experiment>, &RegistryView<'_>) -> Result<ExperimentWriteAction, ExperimentError>,
    ) -> Result<ExperimentChangeOutcome, ChangeError> {
        self.0
            .write(async {
                let (mut transaction, decided) = GuardedConnection::begin_change(self.0, change).await?;
                let decided = match decided {
                    Some(decided) => decided,
                    None => apply_experiment_change(&mut transaction, change, apply).await,
                };
                transaction.finish(self.0, decided).await
            })
            .await
    }

    /// Replaces the stored counters of a process and a phase. False if they are gone: they were merged with others, and the
    /// process must count from zero.
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
        self.0.write(async {
            // Merges of counts wait for this transaction.
            let mut transaction = GuardedConnection::begin(self.0, 0).await?;
            let statement = if is_first {
                compact_counts(&mut transaction.connection, of).await?;
                INSERT_COUNTS
            } else {
                "UPDATE experiment_counts SET counts = $4, users = $5, at = $6 WHERE experiment = $1 AND phase = $2 AND process = $3"
            };
            let written = counts_query(statement, of, process, counted)?.execute(&mut *transaction.connection).await?;
            transaction.commit().await?;
            Ok(written.rows_affected() > 0)
        })
        .await
    }

    /// All that is known of a phase, as far as it is asked for.
    ///
    /// # Errors
    /// If the database does not answer, or holds what cannot be read.
    pub async fn read_sums(&self, of: PhaseQuery<'_>, with: ResultDetail) -> Result<PhaseTotals, sqlx::Error> {
        self.0.ensure_usable()?;
        with_timeout(SUMS_TIMEOUT, async {
            let mut transaction = self.0.pool.begin().await?;
            if !self.0.is_sqlite {
                // A large table takes its time.
                sqlx::query("SET LOCAL statement_timeout = '10s'").execute(&mut *transaction).await?;
            }
            let counts = "SELECT counts, users FROM experiment_counts WHERE experiment = $1 AND phase = $2";
            let counts = sum_counts(&phase_query(counts, of).fetch_all(&mut *transaction).await?)?;
            let mut sums = PhaseTotals { counts, ..PhaseTotals::default() };
            for arm in of.arms.iter().filter(|_| with != ResultDetail::Counts) {
                sums.feedback.insert(arm.clone(), read_label_results(&mut transaction, of, arm, with).await?);
            }
            let decided =
                "SELECT arm, better, at, sentence FROM experiment_decisions WHERE experiment = $1 AND phase = $2";
            for row in phase_query(decided, of).fetch_all(&mut *transaction).await? {
                let decision = FirstDecision {
                    is_better: row.try_get::<i64, _>(1)? != 0,
                    decided_at: row.try_get(2)?,
                    sentence: row.try_get(3)?,
                };
                sums.first_decisions.insert(row.try_get(0)?, decision);
            }
            transaction.rollback().await?;
            Ok(sums)
        })
        .await
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
        let row = "INSERT INTO experiment_decisions (experiment, phase, arm, better, sentence, at) VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT DO NOTHING";
        let row = phase_query(row, of)
            .bind(arm)
            .bind(i64::from(decided.is_better))
            .bind(&decided.sentence)
            .bind(decided.decided_at);
        Ok(self.0.query(row.execute(&self.0.pool)).await?.rows_affected() > 0)
    }
}

async fn apply_experiment_change(
    transaction: &mut GuardedConnection,
    change: ChangeRequest<'_>,
    apply: impl FnOnce(Option<Experiment>, &RegistryView<'_>) -> Result<ExperimentWriteAction, ExperimentError>,
) -> Result<ExperimentChangeOutcome, ChangeError> {
    let connection = &mut *transaction.connection;
    let mut records = rows::read_models(connection).await?;
    let experiments = read_experiments(connection).await?;
    let name = change.target;
    let before = experiments.get(name).cloned();
    let revision = before.as_ref().map_or(0, |before| before.revision);
    if change.expected_revision.is_some_and(|seen| seen != revision) {
        return Err(match before {
            Some(_) => ChangeError::RevisionMismatch(revision),
            None => ExperimentError::NotFound(name.to_owned()).into(),
        });
    }
    let view = RegistryView { records: &records, experiments: &experiments };
    let (mut after, promoted) = match apply(before.clone(), &view)? {
        ExperimentWriteAction::Unchanged => return Ok(ChangeOutcome::Unchanged(before)),
        ExperimentWriteAction::Replace(after) => (Some(*after), None),
        ExperimentWriteAction::Promote(after, version) => (Some(*after), Some(version)),
        ExperimentWriteAction::Delete => (None, None),
    };
    match &mut after {
        Some(after) => {
            after.revision = revision + 1;
            let row = "INSERT INTO experiments (name, revision, record) VALUES ($1, $2, $3) ON CONFLICT (name) DO UPDATE SET revision = $2, record = $3";
            sqlx::query(row).bind(name).bind(after.revision).bind(to_json(after)?).execute(&mut *connection).await?;
        }
        None => {
            for rows in [
                "DELETE FROM experiments WHERE name = $1",
                "DELETE FROM experiment_counts WHERE experiment = $1",
                "DELETE FROM experiment_decisions WHERE experiment = $1",
            ] {
                sqlx::query(rows).bind(name).execute(&mut *connection).await?;
            }
        }
    }
    let on = after.as_ref().or(before.as_ref()).map_or("", |experiment| &experiment.design.model);
    if let Some(version) = promoted {
        let stored = records.remove(on).unwrap_or_default();
        let mut model = stored.clone();
        if model.activate(&version)? {
            model.revision += 1;
            rows::write_model(connection, on, &stored, &model).await?;
        }
    }
    record_change(transaction, change, on, &after).await?;
    Ok(ChangeOutcome::Changed(after))
}

/// A statement whose first values are the phase.
fn phase_query(statement: &'static str, of: PhaseQuery<'_>) -> AnyQuery {
    sqlx::query(statement).bind(of.experiment).bind(i64::from(of.phase))
}

/// A statement that writes the counts of a process.
fn counts_query(
    statement: &'static str,
    of: PhaseQuery<'_>,
    process: &str,
    counted: &PhaseCounts,
) -> Result<AnyQuery, sqlx::Error> {
    let (counts, users) = counted.to_stored().map_err(|error| sqlx::Error::Encode(error.into()))?;
    Ok(phase_query(statement, of).bind(process).bind(counts).bind(users).bind(now_millis()))
}

fn sum_counts(rows: &[AnyRow]) -> Result<PhaseCounts, sqlx::Error> {
    let mut sum = PhaseCounts::default();
    for row in rows {
        let counted = PhaseCounts::from_stored(row.try_get(0)?, row.try_get(1)?);
        sum.merge(&counted.map_err(sqlx::Error::Decode)?);
    }
    Ok(sum)
}

/// Puts counts of processes that have ended together, once there are many: each start makes a row.
async fn compact_counts(connection: &mut AnyConnection, of: PhaseQuery<'_>) -> Result<(), sqlx::Error> {
    let silent_since = now_millis() - PROCESS_SILENCE_MS;
    let [rows, gone] = [
        "SELECT counts, users FROM experiment_counts WHERE experiment = $1 AND phase = $2 AND (at < $3 OR process = $4)",
        "DELETE FROM experiment_counts WHERE experiment = $1 AND phase = $2 AND (at < $3 OR process = $4)",
    ]
    .map(|statement| phase_query(statement, of).bind(silent_since).bind(MERGED_ROW_PROCESS));
    let rows = rows.fetch_all(&mut *connection).await?;
    if rows.len() < MAX_PROCESS_ROWS {
        return Ok(());
    }
    gone.execute(&mut *connection).await?;
    counts_query(INSERT_COUNTS, of, MERGED_ROW_PROCESS, &sum_counts(&rows)?)?.execute(connection).await.map(drop)
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
    let sums = "SELECT COALESCE(bin, 0), COUNT(*), SUM(confidence), SUM(CAST(correct AS DOUBLE PRECISION)) FROM feedback WHERE arm = $1 AND arm <> '' AND made >= $2 GROUP BY bin";
    let mut found = ArmFeedback::default();
    let mut bins = BTreeMap::new();
    for row in sqlx::query(sums).bind(&answered).bind(of.answered_after).fetch_all(&mut *connection).await? {
        let bin = usize::try_from(row.try_get::<i64, _>(0)?).unwrap_or_default();
        let count = count_from(row.try_get(1)?);
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a count, and `as` saturates")]
        let correct = row.try_get::<f64, _>(3)? as u64;
        found.counts.correct += correct;
        found.counts.answers += count;
        bins.insert(bin, ReliabilityBin { count, confidence: row.try_get(2)?, correct });
    }
    // Scores of a regression are no confidence.
    found.bins = ReliabilityDiagram::from_sums(bins).unwrap_or_default();
    found.failed = count_from(
        sqlx::query_scalar("SELECT COUNT(*) FROM feedback WHERE arm = $1 AND arm <> '' AND made >= $2")
            .bind(&failed)
            .bind(of.answered_after)
            .fetch_one(&mut *connection)
            .await?,
    );
    found.counts.answers += found.failed;
    if with == ResultDetail::Pairs {
        let pairs = "SELECT predicted, actual, COUNT(*) FROM feedback WHERE arm = $1 AND arm <> '' AND made >= $2 GROUP BY predicted, actual ORDER BY COUNT(*) DESC LIMIT $3";
        let mut all = Vec::new();
        for (arm, is_answered) in [(answered, true), (failed, false)] {
            let pairs = sqlx::query(pairs)
                .bind(arm)
                .bind(of.answered_after)
                .bind(i64::from(MAX_LABEL_PAIRS))
                .fetch_all(&mut *connection)
                .await?;
            found.is_confusion_truncated |= pairs.len() >= MAX_LABEL_PAIRS as usize;
            for row in &pairs {
                let predicted = if is_answered { class_name(from_json(row, 0)?) } else { "(no answer)".to_owned() };
                all.push((predicted, class_name(from_json(row, 1)?), count_from(row.try_get(2)?)));
            }
        }
        found.confusion = all.into_iter().collect();
    }
    Ok(found)
}

/// The class of several labels.
fn class_name(mut labels: Vec<String>) -> String {
    labels.sort_unstable();
    if labels.is_empty() { "(none)".to_owned() } else { labels.join(" + ") }
}
