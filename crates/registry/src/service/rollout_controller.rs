//! Keeps what experiments have counted, looks what they show, and moves rollouts on.

use std::sync::Arc;
use std::time::Duration;

use predictd_experiments::counters::{ActivePhase, PhaseCounts};
use predictd_experiments::experiment::{Experiment, ExperimentError, ExperimentState};
use predictd_experiments::results::{
    ArmResult, FirstDecision, PhaseResults, PhaseTotals, arm_stats, comparison_plan, recent_control_counts,
};
use predictd_experiments::rollout::{RolloutAction, RolloutInput};
use predictd_metrics::experiments::ArmStatus;
use predictd_platform::clock;
use predictd_platform::clock::now_millis;

use super::change_context::ChangeContext;
use super::counter_flush::CounterFlush;
use super::error::RegistryError;
use super::experiment_commands::ExperimentOutcome;
use super::registry_service::RegistryService;
use crate::database::experiments::{ExperimentWriteAction, PhaseQuery, RegistryView, ResultDetail};
use crate::database::{ChangeError, ChangeOutcome};

/// Time between two looks.
const EVALUATION_INTERVAL: Duration = Duration::from_secs(2);
/// Looks after which experiments without a rollout are looked at.
const NON_ROLLOUT_EVALUATION_STRIDE: u32 = 5;
/// Who makes these changes, in the history.
const ROLLOUT_ACTOR: &str = "rollout";

impl RegistryService {
    /// Looks at experiments until it is told to stop.
    pub async fn run_evaluation_loop(&self) {
        for look in 0_u32.. {
            tokio::select! {
                () = tokio::time::sleep(EVALUATION_INTERVAL) => {}
                () = self.stop.cancelled() => return,
            }
            if self.database_downtime().is_some() {
                continue;
            }
            self.flush_counters().await;
            let running: Vec<Arc<ActivePhase>> =
                self.deps.registry.snapshot().experiments.values().map(Arc::clone).collect();
            self.deps
                .load_context
                .metrics
                .experiments
                .retain_experiments(&running.iter().map(|running| running.experiment_name.as_str()).collect());
            for running in running {
                if running.experiment.design.rollout.is_none() && !look.is_multiple_of(NON_ROLLOUT_EVALUATION_STRIDE) {
                    continue;
                }
                if let Err(error) = self.evaluate_experiment(&running.experiment_name).await {
                    tracing::warn!(experiment = running.experiment_name, %error, "experiment evaluation failed");
                }
            }
        }
    }

    /// Keeps what was counted since the last time.
    pub async fn flush_counters(&self) {
        // Two at a time would keep the same counts twice.
        let _alone = self.counter_flush_lock.lock().await;
        let all: Vec<Arc<ActivePhase>> =
            self.counter_flushes.lock().iter().map(|counting| Arc::clone(&counting.active_phase)).collect();
        for running in all {
            if let Err(error) = self.flush_phase(&running).await {
                tracing::warn!(experiment = running.experiment_name, %error, "experiment counters could not be stored; retrying");
            }
        }
        let snapshot = self.deps.registry.snapshot();
        let runs = |running: &Arc<ActivePhase>| snapshot.experiments.values().any(|other| Arc::ptr_eq(other, running));
        let known = self.state.lock();
        let paused = |running: &ActivePhase| {
            known
                .experiments
                .get(&running.experiment_name)
                .is_some_and(|experiment| experiment.is_in_progress() && experiment.phase_number() == running.phase)
        };
        self.counter_flushes
            .lock()
            .retain(|counting| !counting.is_final || runs(&counting.active_phase) || paused(&counting.active_phase));
    }

    async fn flush_phase(&self, running: &Arc<ActivePhase>) -> Result<(), ChangeError> {
        let counted = running.counts();
        let state = self.update_counter_flush(running, |counting| {
            counting.is_final = counting.stored.as_ref() == Some(&counted) || counted == PhaseCounts::default();
            (counting.process_id.clone(), counting.baseline.clone(), counting.stored.clone(), counting.is_final)
        });
        let Some((process, base, kept, still)) = state else { return Ok(()) };
        if still {
            return Ok(());
        }
        let own = counted.delta_since(&base);
        let of =
            PhaseQuery { experiment: &running.experiment_name, phase: running.phase, answered_after: 0, arms: &[] };
        if self.deps.database.store_counts(of, &process, &own, kept.is_none()).await? {
            self.update_counter_flush(running, |counting| counting.stored = Some(counted));
            return Ok(());
        }
        // Its row was put together with others: what it had counted until then is in there.
        let base = kept.unwrap_or_default();
        let own = counted.delta_since(&base);
        let process = clock::new_id().simple().to_string();
        // Before it is written: a replica that misses the commit writes the same row again.
        self.update_counter_flush(running, |counting| {
            counting.process_id.clone_from(&process);
            counting.baseline = base;
            counting.stored = None;
        });
        self.deps.database.store_counts(of, &process, &own, true).await?;
        self.update_counter_flush(running, |counting| counting.stored = Some(counted));
        Ok(())
    }

    fn update_counter_flush<T>(
        &self,
        running: &Arc<ActivePhase>,
        change: impl FnOnce(&mut CounterFlush) -> T,
    ) -> Option<T> {
        self.counter_flushes.lock().iter_mut().find(|counting| Arc::ptr_eq(&counting.active_phase, running)).map(change)
    }

    /// What a phase of an experiment has shown: the present one if none is named. What is decided by it is kept.
    ///
    /// # Errors
    /// If there is no such experiment or phase, or the database does not answer.
    pub async fn experiment_results(
        &self,
        name: &str,
        phase: Option<u32>,
        with: ResultDetail,
    ) -> Result<(Experiment, u32, PhaseResults), RegistryError> {
        let experiment = self
            .experiments()
            .remove(name)
            .ok_or_else(|| ChangeError::from(ExperimentError::NotFound(name.to_owned())))?;
        let phase = phase.unwrap_or(experiment.phase_number());
        let place = usize::try_from(phase).unwrap_or(usize::MAX).checked_sub(1);
        let Some(found) = place.and_then(|place| experiment.phases.get(place)) else {
            let reason = if experiment.phases.is_empty() {
                "the experiment has not begun".to_owned()
            } else {
                format!("the experiment has {} phases", experiment.phases.len())
            };
            return Err(ChangeError::from(ExperimentError::Conflict(reason)).into());
        };
        self.flush_counters().await;
        let sums = self.phase_sums(name, &experiment, phase, with).await?;
        let mut results = PhaseResults::new(&experiment, &found.weights, &sums);
        if self.store_decisions(name, phase, &results).await? {
            let sums = self.phase_sums(name, &experiment, phase, with).await?;
            results = PhaseResults::new(&experiment, &found.weights, &sums);
        }
        Ok((experiment, phase, results))
    }

    async fn phase_sums(
        &self,
        name: &str,
        experiment: &Experiment,
        phase: u32,
        with: ResultDetail,
    ) -> Result<PhaseTotals, ChangeError> {
        let arms: Vec<String> = experiment.design.serving_arms().map(|(_, arm)| arm.name.clone()).collect();
        let of = PhaseQuery { experiment: name, phase, answered_after: experiment.created, arms: &arms };
        Ok(self.deps.database.read_sums(of, with).await?)
    }

    /// Keeps the first decisions; true if there was one.
    async fn store_decisions(&self, name: &str, phase: u32, results: &PhaseResults) -> Result<bool, ChangeError> {
        let of = PhaseQuery { experiment: name, phase, answered_after: 0, arms: &[] };
        let mut is_new = false;
        for (arm, better, sentence) in results.decisions().filter(|(arm, ..)| is_undecided(results, &arm.name)) {
            let decided = FirstDecision { is_better: better, decided_at: now_millis(), sentence };
            if self.deps.database.store_decision(of, &arm.name, &decided).await? {
                is_new = true;
                let verdict = decided.sentence;
                tracing::info!(experiment = name, phase, arm = arm.name, better, verdict, "experiment verdict reached");
            }
        }
        Ok(is_new)
    }

    /// Looks what an experiment shows, and moves its rollout on.
    async fn evaluate_experiment(&self, name: &str) -> Result<(), RegistryError> {
        let looked = match self.load_evaluation(name, ResultDetail::Labels).await {
            // Guards that need no labels act without them.
            Err(RegistryError::Change(ChangeError::Database(error))) => {
                tracing::warn!(experiment = name, %error, "experiment feedback could not be read; evaluating without it");
                self.load_evaluation(name, ResultDetail::Counts).await?
            }
            looked => looked?,
        };
        let arms = looked.results.arms.iter().map(arm_metrics);
        self.deps.load_context.metrics.experiments.set_results(name, arms, looked.results.mismatch.is_some());
        if looked.is_rollout_running() { self.advance_rollout(name, &looked).await } else { Ok(()) }
    }

    async fn load_evaluation(&self, name: &str, with: ResultDetail) -> Result<Evaluation, RegistryError> {
        let (experiment, phase, results) = self.experiment_results(name, None, with).await?;
        let mut looked = Evaluation { experiment, results, earlier_phases: Vec::new(), detail: with };
        if looked.is_rollout_running() {
            for earlier in (1..phase).rev() {
                looked.earlier_phases.push(self.phase_sums(name, &looked.experiment, earlier, with).await?);
            }
        }
        Ok(looked)
    }

    async fn advance_rollout(&self, name: &str, looked: &Evaluation) -> Result<(), RegistryError> {
        let experiment = &looked.experiment;
        let (Some(rollout), Some((step, since)), Some((control, candidate))) =
            (&experiment.design.rollout, experiment.current_step(), looked.results.control_and_candidate())
        else {
            return Ok(());
        };
        let active = self.model_record_or_default(&experiment.design.model).active;
        if active != control.arm.version {
            // That operator has decided: neither is the control what a version is taken back to, nor is the version to
            // replace the one that they chose.
            let version = active.unwrap_or_default();
            let reason = format!("version {version} was made the active one meanwhile");
            let ended = self
                .cancel_superseded(name, control.arm.version.as_deref(), &rollout_change(experiment, &reason))
                .await;
            if matches!(ended, Ok(ChangeOutcome::Changed(_))) {
                tracing::warn!(experiment = name, reason, "rollout cancelled");
            }
            return ignore_conflict(ended);
        }
        let control_weight = control.arm.weight;
        let Some(plan) = comparison_plan(experiment, control_weight, 1.0 - control_weight) else { return Ok(()) };
        let seconds = u64::try_from(now_millis().saturating_sub(since) / 1_000).unwrap_or_default();
        let counts =
            |sums: &PhaseTotals, arm: &str| sums.feedback.get(arm).map(|found| found.counts).unwrap_or_default();
        let of_step = |sums: &PhaseTotals| (counts(sums, &control.arm.name), counts(sums, &candidate.arm.name));
        let mut labelled = vec![(control.feedback.counts, candidate.feedback.counts)];
        labelled.extend(looked.earlier_phases.iter().map(of_step));
        let earlier = looked.earlier_phases.iter().filter_map(|sums| sums.counts.arms.get(&control.arm.name));
        let look = RolloutInput {
            step,
            elapsed_seconds: seconds,
            control: arm_stats(&recent_control_counts(&control.counts, earlier)),
            candidate: arm_stats(&candidate.counts),
            feedback_by_step: (looked.detail == ResultDetail::Labels).then_some(&labelled),
            plan: &plan,
        };
        let moved = match rollout.next_action(&look) {
            RolloutAction::Wait => return Ok(()),
            RolloutAction::Advance(next) => {
                let share = rollout.steps.get(next).map_or(0.0, |step| step.share * 100.0);
                tracing::info!(experiment = name, share, "rollout advances to the next step");
                let order = rollout_change(experiment, &format!("on to {share} %"));
                self.update_experiment(name, "step", &order, |experiment| {
                    experiment.advance_to_step(next, now_millis())
                })
                .await
            }
            RolloutAction::Promote => {
                // While something else is loaded, counts are kept and others are looked at: this one is looked at again.
                let Ok(_alone) = self.change_lock.try_lock() else { return Ok(()) };
                tracing::info!(experiment = name, arm = candidate.arm.name, "rollout finished; activating its version");
                let instead_of = control.arm.version.as_deref();
                self.promote_arm_locked(
                    name,
                    &candidate.arm.name,
                    instead_of,
                    &rollout_change(experiment, "the rollout is done"),
                )
                .await
            }
            RolloutAction::RollBack(reason) => {
                tracing::error!(experiment = name, reason, "rolling back the rollout");
                let outcome = Some(format!("taken back: {reason}"));
                let order = rollout_change(experiment, &reason);
                self.update_experiment(name, "take back", &order, |experiment| experiment.end(now_millis(), outcome))
                    .await
            }
        };
        ignore_conflict(moved)
    }

    /// Ends an experiment for the reason of `order`, unless this version of its model is the active one after all.
    async fn cancel_superseded(
        &self,
        name: &str,
        version: Option<&str>,
        order: &ChangeContext,
    ) -> Result<ExperimentOutcome, RegistryError> {
        let end = |found: Option<Experiment>, world: &RegistryView<'_>| {
            let mut experiment = found.ok_or_else(|| ExperimentError::NotFound(name.to_owned()))?;
            let record = world.records.get(&experiment.design.model);
            if record.and_then(|record| record.active.as_deref()) == version {
                return Ok(ExperimentWriteAction::Unchanged);
            }
            experiment.end(now_millis(), order.reason.clone())?;
            Ok(ExperimentWriteAction::Replace(Box::new(experiment)))
        };
        self.commit_experiment_change(name, ("end", None), order, end).await
    }
}

/// What an experiment shows.
struct Evaluation {
    experiment: Experiment,
    /// Of its present phase.
    results: PhaseResults,
    /// Of a rollout: the phases before, the latest first.
    earlier_phases: Vec<PhaseTotals>,
    detail: ResultDetail,
}

impl Evaluation {
    fn is_rollout_running(&self) -> bool {
        self.experiment.state == ExperimentState::Running && self.experiment.design.rollout.is_some()
    }
}

/// The grounds of a change that a rollout makes.
fn rollout_change(experiment: &Experiment, reason: &str) -> ChangeContext {
    ChangeContext {
        actor: ROLLOUT_ACTOR.to_owned(),
        reason: Some(reason.to_owned()),
        // It is decided on what is known now: if that has changed, the next evaluation decides.
        expected_revision: Some(experiment.revision),
        idempotency_key: None,
    }
}

fn ignore_conflict(moved: Result<ExperimentOutcome, RegistryError>) -> Result<(), RegistryError> {
    match moved {
        // Somebody else was faster.
        Err(RegistryError::Change(ChangeError::RevisionMismatch(_))) | Ok(_) => Ok(()),
        Err(error) => Err(error),
    }
}

fn arm_metrics(result: &ArmResult) -> ArmStatus<'_> {
    let counts = result.feedback.counts;
    ArmStatus {
        name: &result.arm.name,
        weight: result.arm.weight,
        labelled: counts.answers,
        accuracy: counts.accuracy().unwrap_or_default(),
        better: result.first_decision.as_ref().map_or(0.0, |decided| if decided.is_better { 1.0 } else { -1.0 }),
    }
}

fn is_undecided(results: &PhaseResults, arm: &str) -> bool {
    results.arms.iter().any(|result| result.arm.name == arm && result.first_decision.is_none())
}
