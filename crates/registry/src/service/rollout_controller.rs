//! Looks at running experiments, and moves rollouts on.

use std::sync::Arc;
use std::time::Duration;

use predictd_experiments::experiment::{Experiment, ExperimentState};
use predictd_experiments::results::{ArmResult, PhaseResults, PhaseTotals, arm_stats, recent_control_counts};
use predictd_experiments::rollout::{RolloutAction, RolloutInput, RolloutStrategy};
use predictd_metrics::experiments::ArmStatus;
use predictd_platform::clock::now_millis;

use super::change_context::ChangeContext;
use super::experiment_evaluator::ExperimentEvaluator;
use super::experiment_service::{ExperimentService, active_version};
use super::registry_context::RegistryContext;
use crate::database::experiments::ResultDetail;
use crate::database::{ChangeError, ChangeOutcome};
use crate::error::RegistryError;
use crate::polling::Poller;

const EVALUATION_INTERVAL: Duration = Duration::from_secs(2);
/// Of so many evaluations, experiments without a rollout are looked at in one.
const NON_ROLLOUT_EVALUATION_STRIDE: u32 = 5;
/// The actor of these changes in the history.
const ROLLOUT_ACTOR: &str = "rollout";

/// Evaluates experiments, and changes those that are rollouts.
pub(super) struct RolloutController {
    pub(super) context: Arc<RegistryContext>,
    pub(super) experiments: Arc<ExperimentService>,
    pub(super) evaluator: Arc<ExperimentEvaluator>,
    /// Evaluations so far.
    pub(super) evaluations: u32,
}

impl Poller for RolloutController {
    async fn poll(&mut self) -> Duration {
        if self.context.database_downtime().is_none() {
            // The first evaluation, before any version is loaded, finds no experiment.
            self.evaluate_all(self.evaluations % NON_ROLLOUT_EVALUATION_STRIDE == 1).await;
        }
        self.evaluations = self.evaluations.wrapping_add(1);
        EVALUATION_INTERVAL
    }
}

impl RolloutController {
    async fn evaluate_all(&self, includes_non_rollouts: bool) {
        self.context.flush_counters().await;
        let running: Vec<_> = self.context.registry().snapshot().experiments.values().map(Arc::clone).collect();
        let names = running.iter().map(|phase| phase.experiment_name.as_str()).collect();
        self.context.metrics.experiments.retain_experiments(&names);
        for phase in running {
            if (includes_non_rollouts || phase.experiment.design.rollout.is_some())
                && let Err(error) = self.evaluate(&phase.experiment_name).await
            {
                tracing::warn!(experiment = phase.experiment_name, %error, "experiment evaluation failed");
            }
        }
    }

    /// Publishes the results of an experiment as metrics, and moves its rollout on.
    async fn evaluate(&self, name: &str) -> Result<(), RegistryError> {
        let evaluation = match self.read_evaluation(name, ResultDetail::Labels).await {
            // Guardrails that need no labels act without them.
            Err(RegistryError::Change(ChangeError::Database(error))) => {
                tracing::warn!(experiment = name, %error, "experiment feedback could not be read; evaluating without it");
                self.read_evaluation(name, ResultDetail::Counts).await?
            }
            read => read?,
        };
        let arms = evaluation.results.arms.iter().map(arm_metrics);
        self.context.metrics.experiments.set_results(name, arms, evaluation.results.mismatch.is_some());
        let Some(rollout) = RunningRollout::new(name, &evaluation) else { return Ok(()) };
        match self.advance(&rollout).await {
            // Another change was faster.
            Err(RegistryError::Change(ChangeError::RevisionMismatch(_))) => Ok(()),
            advanced => advanced,
        }
    }

    async fn read_evaluation(&self, name: &str, detail: ResultDetail) -> Result<Evaluation, RegistryError> {
        let (experiment, phase, results) = self.evaluator.results(name, None, detail).await?;
        let mut earlier_phases = Vec::new();
        if running_rollout(&experiment).is_some() {
            for earlier in (1..phase).rev() {
                earlier_phases.push(self.evaluator.phase_totals(name, &experiment, earlier, detail).await?);
            }
        }
        Ok(Evaluation { experiment, results, earlier_phases, detail })
    }

    async fn advance(&self, rollout: &RunningRollout<'_>) -> Result<(), RegistryError> {
        let active = self.context.model_record_or_default(&rollout.evaluation.experiment.design.model).active;
        if active != rollout.control.arm.version {
            return self.cancel_superseded(rollout, active).await;
        }
        let name = rollout.name;
        match rollout.next_action() {
            RolloutAction::Wait => {}
            RolloutAction::Advance(next) => {
                let share = rollout.strategy.steps.get(next).map_or(0.0, |step| step.share * 100.0);
                tracing::info!(experiment = name, share, "rollout advances to the next step");
                let change_context = rollout.change_context(&format!("on to {share} %"));
                self.experiments
                    .update(change_context.request(name, "step", None), |experiment, _| {
                        experiment.advance_to_step(next, now_millis())
                    })
                    .await?;
            }
            RolloutAction::Promote => {
                let arm = &rollout.candidate.arm.name;
                let change_context = rollout.change_context("the rollout is done");
                self.experiments
                    .try_promote(name, arm, rollout.control.arm.version.as_deref(), &change_context)
                    .await?;
            }
            RolloutAction::RollBack(reason) => {
                tracing::error!(experiment = name, reason, "rolling back the rollout");
                let change_context = rollout.change_context(&reason);
                self.experiments
                    .update(change_context.request(name, "take back", None), |experiment, _| {
                        experiment.end(now_millis(), Some(format!("taken back: {reason}")))
                    })
                    .await?;
            }
        }
        Ok(())
    }

    /// Ends a rollout because an operator has activated another version than its control. That operator has decided: no
    /// rollback leads to the control, and no promotion replaces the operator's version.
    async fn cancel_superseded(
        &self,
        rollout: &RunningRollout<'_>,
        active: Option<String>,
    ) -> Result<(), RegistryError> {
        let name = rollout.name;
        let control = rollout.control.arm.version.as_deref();
        let reason = format!("version {} was made the active one meanwhile", active.unwrap_or_default());
        let change_context = rollout.change_context(&reason);
        let cancel = self.experiments.update(change_context.request(name, "end", None), |experiment, view| {
            if active_version(view, &experiment.design.model) == control {
                return Ok(false);
            }
            experiment.end(now_millis(), change_context.reason.clone())
        });
        if let ChangeOutcome::Changed(_) = cancel.await? {
            tracing::warn!(experiment = name, reason, "rollout cancelled");
        }
        Ok(())
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

/// A rollout at one of its steps, and what it shows.
struct RunningRollout<'a> {
    name: &'a str,
    evaluation: &'a Evaluation,
    strategy: &'a RolloutStrategy,
    step: usize,
    /// When the step began, in milliseconds since 1970.
    step_began: i64,
    control: &'a ArmResult,
    candidate: &'a ArmResult,
}

impl<'a> RunningRollout<'a> {
    /// None if the experiment is no rollout, does not run, or is at no step.
    fn new(name: &'a str, evaluation: &'a Evaluation) -> Option<Self> {
        let strategy = running_rollout(&evaluation.experiment)?;
        let (step, step_began) = evaluation.experiment.current_step()?;
        let (control, candidate) = evaluation.results.control_and_candidate()?;
        Some(Self { name, evaluation, strategy, step, step_began, control, candidate })
    }

    fn next_action(&self) -> RolloutAction {
        let control_weight = self.control.arm.weight;
        let experiment = &self.evaluation.experiment;
        let Some(plan) = experiment.design.aim.comparison_plan(control_weight, 1.0 - control_weight) else {
            return RolloutAction::Wait;
        };
        let earlier_phases = &self.evaluation.earlier_phases;
        let mut feedback = vec![(self.control.feedback.counts, self.candidate.feedback.counts)];
        feedback.extend(earlier_phases.iter().map(|totals| {
            (totals.feedback_counts(&self.control.arm.name), totals.feedback_counts(&self.candidate.arm.name))
        }));
        let earlier = earlier_phases.iter().filter_map(|totals| totals.counts.arms.get(&self.control.arm.name));
        self.strategy.next_action(&RolloutInput {
            step: self.step,
            elapsed_seconds: u64::try_from(now_millis().saturating_sub(self.step_began) / 1_000).unwrap_or_default(),
            control: arm_stats(&recent_control_counts(&self.control.counts, earlier)),
            candidate: arm_stats(&self.candidate.counts),
            feedback_by_step: (self.evaluation.detail == ResultDetail::Labels).then_some(&feedback),
            plan: &plan,
        })
    }

    /// The context of a change that the rollout makes.
    fn change_context(&self, reason: &str) -> ChangeContext {
        ChangeContext {
            actor: ROLLOUT_ACTOR.to_owned(),
            reason: Some(reason.to_owned()),
            // It is decided on what is known now: if that has changed, the next evaluation decides.
            expected_revision: Some(self.evaluation.experiment.revision),
            idempotency_key: None,
        }
    }
}

/// How the version of an experiment comes that is a rollout and runs.
fn running_rollout(experiment: &Experiment) -> Option<&RolloutStrategy> {
    experiment.design.rollout.as_ref().filter(|_| experiment.state == ExperimentState::Running)
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
