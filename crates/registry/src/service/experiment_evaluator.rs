//! What experiments show: the results of their phases, and the first verdicts.

use std::sync::Arc;

use predictd_experiments::experiment::{Experiment, conflict};
use predictd_experiments::results::{FirstDecision, PhaseResults, PhaseTotals};
use predictd_platform::clock::now_millis;

use super::registry_context::RegistryContext;
use crate::database::ChangeError;
use crate::database::experiments::{ExperimentTables, PhaseQuery, ResultDetail};
use crate::error::RegistryError;

/// Reads the results of experiments.
pub struct ExperimentEvaluator {
    pub(super) context: Arc<RegistryContext>,
}

impl ExperimentEvaluator {
    /// The results of a phase of an experiment, from 1: of the present one if none is named. First verdicts are stored.
    ///
    /// # Errors
    /// If there is no such experiment or phase, or the database does not answer.
    pub async fn results(
        &self,
        name: &str,
        phase: Option<u32>,
        detail: ResultDetail,
    ) -> Result<(Experiment, u32, PhaseResults), RegistryError> {
        let experiment = self.context.experiment(name)?;
        let phase = phase.unwrap_or(experiment.phase_number());
        let Some((_, phase_record)) = (1..).zip(&experiment.phases).find(|(number, _)| *number == phase) else {
            return Ok(conflict(match experiment.phases.len() {
                0 => "the experiment has not begun".to_owned(),
                count => format!("the experiment has {count} phases"),
            })?);
        };
        self.context.flush_counters().await;
        loop {
            let totals = self.phase_totals(name, &experiment, phase, detail).await?;
            let results = PhaseResults::new(&experiment, &phase_record.weights, &totals);
            // A first verdict is part of the results.
            if !self.store_verdicts(name, phase, &results).await? {
                return Ok((experiment, phase, results));
            }
        }
    }

    /// What was counted of a phase, in all processes.
    pub(super) async fn phase_totals(
        &self,
        name: &str,
        experiment: &Experiment,
        phase: u32,
        detail: ResultDetail,
    ) -> Result<PhaseTotals, ChangeError> {
        let arms: Vec<String> = experiment.design.serving_arms().map(|(_, arm)| arm.name.clone()).collect();
        let query = PhaseQuery { experiment: name, phase, answered_after: experiment.created, arms: &arms };
        Ok(ExperimentTables(&self.context.database).read_sums(query, detail).await?)
    }

    /// Stores the first verdicts; true if there was one.
    async fn store_verdicts(&self, name: &str, phase: u32, results: &PhaseResults) -> Result<bool, ChangeError> {
        let query = PhaseQuery { experiment: name, phase, answered_after: 0, arms: &[] };
        let mut is_new = false;
        for (arm, better, sentence) in results.new_decisions() {
            let decided = FirstDecision { is_better: better, decided_at: now_millis(), sentence };
            if ExperimentTables(&self.context.database).store_decision(query, &arm.name, &decided).await? {
                is_new = true;
                let verdict = decided.sentence;
                tracing::info!(experiment = name, phase, arm = arm.name, better, verdict, "experiment verdict reached");
            }
        }
        Ok(is_new)
    }
}
