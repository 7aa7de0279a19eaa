//! A version that comes step by step, and is taken back when something goes wrong. Pure: figures in, what to do out.

use predictd_stats::interval::wilson_interval;
use predictd_stats::{ComparisonPlan, FeedbackCounts, compare_accuracies};
use serde::{Deserialize, Serialize};

use super::error::{ExperimentError, require};

/// Most steps.
pub const MAX_STEPS: usize = 20;
/// Longest least time of a step, in seconds: four weeks.
pub const MAX_STEP_SECONDS: u64 = 28 * 24 * 3_600;
/// Requests that each side must have before their slowest hundredth says anything.
pub const MIN_P99_REQUESTS: u64 = 500;
/// Requests of the coming version before its errors say anything.
const MIN_CANDIDATE_REQUESTS: u64 = 20;
/// Requests of the control whose errors are taken as they are.
const MIN_CONTROL_REQUESTS: u64 = 100;
/// Standard errors by which errors must be too many: one look in 1,000 is wrong by chance.
const ERROR_RATE_Z_SCORE: f64 = 3.09;
/// Differences of the slowest hundredth below this are harmless, in seconds.
const MIN_P99_DIFFERENCE_SECONDS: f64 = 0.002;

/// How a version comes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RolloutStrategy {
    /// Ever larger shares.
    pub steps: Vec<StrategyStep>,
    /// What must not happen.
    pub guards: Guardrails,
}

/// A share of the users, for a while.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct StrategyStep {
    /// Of the users: above 0, up to 1.
    pub share: f64,
    /// How long at least, in seconds.
    pub seconds: u64,
    /// Requests that the version must have had in it.
    pub requests: u64,
}

/// What must not happen. A guard that has too little to go by does not act: for errors 20 requests, for the p99 500 of both,
/// for accuracy 100 labels of both in one step.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Guardrails {
    /// Failed requests, as a part of all, beyond those of the control.
    pub errors: Option<f64>,
    /// The time that 99 of 100 requests stay within, as a multiple of the control's.
    pub p99: Option<f64>,
    /// Accuracy below the control's, a fraction, that is sure by feedback.
    pub accuracy: Option<f64>,
}

/// What one side of a rollout did.
#[derive(Debug, Clone, Copy, Default)]
pub struct ArmStats {
    /// Requests of which is known what became of them.
    pub requests: u64,
    /// Those of them that failed.
    pub failed: u64,
    /// The time that 99 of 100 stayed within, in seconds.
    pub p99: Option<f64>,
}

/// What is known when it is looked whether the next step can come.
#[derive(Debug)]
pub struct RolloutInput<'a> {
    /// The step, from 0.
    pub step: usize,
    /// How long it has gone on, in seconds.
    pub elapsed_seconds: u64,
    /// The control, in this step; with those before it where a large share of the version leaves it few requests, or none.
    pub control: ArmStats,
    /// The version that comes, in this step.
    pub candidate: ArmStats,
    /// Feedback of the control and of the version in each step so far, since labels come late. None if it cannot be read:
    /// with a guard on accuracy the rollout goes no further then.
    pub feedback_by_step: Option<&'a [(FeedbackCounts, FeedbackCounts)]>,
    /// What is to be found; for the guard on accuracy.
    pub plan: &'a ComparisonPlan,
}

/// The next action of a rollout.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RolloutAction {
    /// Wait.
    Wait,
    /// Go on to this step.
    Advance(usize),
    /// Make the version the active one.
    Promote,
    /// Take it back, and why.
    RollBack(String),
}

impl RolloutStrategy {
    /// Checks the steps and the guards.
    ///
    /// # Errors
    /// [`ExperimentError::Invalid`] with the place in the JSON form.
    pub fn validate(&self) -> Result<(), ExperimentError> {
        require(
            (1..=MAX_STEPS).contains(&self.steps.len()),
            "/rollout/steps",
            format!("a rollout has 1 to {MAX_STEPS} steps"),
        )?;
        let mut before = 0.0;
        for (index, step) in self.steps.iter().enumerate() {
            require(
                step.share > before && step.share <= 1.0,
                format!("/rollout/steps/{index}/weight"),
                "each step has a larger weight than the one before, up to 1, or 100 %",
            )?;
            require(
                step.seconds <= MAX_STEP_SECONDS,
                format!("/rollout/steps/{index}/seconds"),
                format!("a step takes at least at most {MAX_STEP_SECONDS} s"),
            )?;
            before = step.share;
        }
        let Guardrails { errors, p99, accuracy } = self.guards;
        let are_fractions = [errors, accuracy].into_iter().flatten().all(|part| (0.0..=1.0).contains(&part));
        require(
            are_fractions && p99.is_none_or(|times| (1.0..=100.0).contains(&times)),
            "/rollout/guards",
            "possible are: errors and accuracy 0 to 1, p99 1 to 100",
        )
    }

    /// Decides the next action.
    #[must_use]
    pub fn next_action(&self, look: &RolloutInput<'_>) -> RolloutAction {
        if let Some(reason) = self.guards.find_breach(look, self.steps.len()) {
            return RolloutAction::RollBack(reason);
        }
        let Some(step) = self.steps.get(look.step) else { return RolloutAction::Wait };
        let blind = self.guards.accuracy.is_some() && look.feedback_by_step.is_none();
        if blind || look.elapsed_seconds < step.seconds || look.candidate.requests < step.requests {
            return RolloutAction::Wait;
        }
        if look.step + 1 < self.steps.len() { RolloutAction::Advance(look.step + 1) } else { RolloutAction::Promote }
    }
}

impl Guardrails {
    /// Finds a guard that was breached, and says which in a sentence.
    fn find_breach(&self, look: &RolloutInput<'_>, steps: usize) -> Option<String> {
        self.errors
            .and_then(|most| error_rate_breach(look.control, look.candidate, most))
            .or_else(|| self.p99.and_then(|most| latency_breach(look.control, look.candidate, most)))
            .or_else(|| self.accuracy.and_then(|most| accuracy_breach(look, steps, most)))
    }
}

fn error_rate_breach(control: ArmStats, candidate: ArmStats, most: f64) -> Option<String> {
    if candidate.requests < MIN_CANDIDATE_REQUESTS {
        return None;
    }
    let own = wilson_interval(candidate.failed, candidate.requests, ERROR_RATE_Z_SCORE);
    // What a control with few requests did may be chance.
    let usual = match control.requests {
        1..MIN_CONTROL_REQUESTS => wilson_interval(control.failed, control.requests, 1.0).high,
        requests => ratio(control.failed, requests).unwrap_or_default(),
    };
    let allowed = usual + most;
    (own.low > allowed).then(|| {
        format!(
            "{} of {} requests failed ({:.1} %); the control's share and {:.1} points are allowed: {:.1} %",
            candidate.failed,
            candidate.requests,
            100.0 * ratio(candidate.failed, candidate.requests).unwrap_or_default(),
            100.0 * most,
            100.0 * allowed
        )
    })
}

fn latency_breach(control: ArmStats, candidate: ArmStats, most: f64) -> Option<String> {
    let own = candidate.p99?;
    let other = control.p99?;
    let enough = candidate.requests.min(control.requests) >= MIN_P99_REQUESTS;
    (enough && own > other * most && own - other > MIN_P99_DIFFERENCE_SECONDS).then(|| {
        format!(
            "99 of 100 requests took up to {:.1} ms, the control's {:.1} ms; {most} times as long is allowed",
            own * 1e3,
            other * 1e3
        )
    })
}

fn accuracy_breach(look: &RolloutInput<'_>, steps: usize, most: f64) -> Option<String> {
    // Steps are looked at one by one, since what they are asked may differ; all looks together are wrong with alpha.
    let plan = look.plan.with_bonferroni(steps);
    look.feedback_by_step.unwrap_or_default().iter().find_map(|&(control, candidate)| {
        let comparison = compare_accuracies(control, candidate, &plan)?;
        (comparison.interval.high < -most).then(|| {
            format!(
                "right in {:.1} % of {} answers against {:.1} % of {}: worse by more than {:.1} points, however often one looks",
                100.0 * candidate.accuracy().unwrap_or_default(),
                candidate.answers,
                100.0 * control.accuracy().unwrap_or_default(),
                control.answers,
                100.0 * most
            )
        })
    })
}

#[expect(clippy::cast_precision_loss, reason = "counts are far below 2^53")]
pub(super) fn ratio(some: u64, all: u64) -> Option<f64> {
    (all > 0).then(|| some as f64 / all as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn strategy(guards: Guardrails) -> RolloutStrategy {
        let steps = [(0.01, 60, 100), (0.25, 60, 1_000), (1.0, 60, 0)].map(|(share, seconds, requests)| StrategyStep {
            share,
            seconds,
            requests,
        });
        RolloutStrategy { steps: steps.into(), guards }
    }

    const ALL_GUARDRAILS: Guardrails = Guardrails { errors: Some(0.01), p99: Some(1.5), accuracy: Some(0.0) };

    fn arm_stats(requests: u64, failed: u64, p99: f64) -> ArmStats {
        ArmStats { requests, failed, p99: Some(p99) }
    }

    fn next_action(step: usize, seconds: u64, control: ArmStats, candidate: ArmStats) -> RolloutAction {
        next_action_with_feedback(step, seconds, control, candidate, &[])
    }

    fn next_action_with_feedback(
        step: usize,
        seconds: u64,
        control: ArmStats,
        candidate: ArmStats,
        labelled: &[(FeedbackCounts, FeedbackCounts)],
    ) -> RolloutAction {
        let plan = ComparisonPlan::new(0.9, 0.03, [1.0, 1.0], 0.05, 0.9).unwrap();
        strategy(ALL_GUARDRAILS).next_action(&RolloutInput {
            step,
            elapsed_seconds: seconds,
            control,
            candidate,
            feedback_by_step: Some(labelled),
            plan: &plan,
        })
    }

    fn counts(correct: u64, answers: u64) -> FeedbackCounts {
        FeedbackCounts { correct, answers }
    }

    #[test]
    fn step_without_time_and_requests_waits() {
        let good = arm_stats(10_000, 10, 0.010);
        assert_eq!(next_action(0, 59, good, arm_stats(100, 0, 0.010)), RolloutAction::Wait);
        assert_eq!(next_action(0, 60, good, arm_stats(99, 0, 0.010)), RolloutAction::Wait);
        assert_eq!(next_action(0, 60, good, arm_stats(100, 0, 0.010)), RolloutAction::Advance(1));
        assert_eq!(next_action(1, 60, good, arm_stats(1_000, 1, 0.011)), RolloutAction::Advance(2));
        assert_eq!(next_action(2, 60, ArmStats::default(), arm_stats(0, 0, 0.0)), RolloutAction::Promote);
        assert_eq!(next_action(3, 60, good, good), RolloutAction::Wait, "there is no such step");
    }

    fn rollback_reason(
        control: ArmStats,
        candidate: ArmStats,
        feedback_by_step: &[(FeedbackCounts, FeedbackCounts)],
    ) -> String {
        match next_action_with_feedback(0, 0, control, candidate, feedback_by_step) {
            RolloutAction::RollBack(reason) => reason,
            other => format!("{other:?}"),
        }
    }

    #[test]
    fn guardrail_breached_rolls_back() {
        let good = arm_stats(10_000, 10, 0.010);
        let taken_back = |candidate: ArmStats| rollback_reason(good, candidate, &[]);
        assert!(taken_back(arm_stats(20, 20, 0.010)).starts_with("20 of 20 requests failed (100.0 %)"));
        assert_eq!(taken_back(arm_stats(19, 19, 0.010)), "Wait", "too few to tell");
        assert_eq!(taken_back(arm_stats(1_000, 12, 0.010)), "Wait", "it may be chance");
        assert!(taken_back(arm_stats(1_000, 40, 0.010)).starts_with("40 of 1000"));
        assert!(taken_back(arm_stats(600, 0, 0.016)).starts_with("99 of 100 requests took up to 16.0 ms"));
        assert_eq!(taken_back(arm_stats(400, 0, 0.016)), "Wait");
        assert_eq!(taken_back(arm_stats(600, 0, 0.011)), "Wait");
        // Both fail now and then, and the control has few requests: that is no reason.
        assert_eq!(rollback_reason(arm_stats(10, 0, 0.010), arm_stats(1_000, 50, 0.010), &[]), "Wait");
        assert!(rollback_reason(arm_stats(0, 0, 0.0), arm_stats(1_000, 50, 0.010), &[]).starts_with("50 of 1000"));
        // Labels of an earlier step come late, and count.
        let worse = (counts(900, 1_000), counts(700, 1_000));
        let alike = (counts(900, 1_000), counts(890, 1_000));
        assert!(
            rollback_reason(good, arm_stats(600, 0, 0.010), &[worse, alike])
                .starts_with("right in 70.0 % of 1000 answers")
        );
        assert_eq!(rollback_reason(good, arm_stats(600, 0, 0.010), &[alike, alike]), "Wait");
        // Microseconds are no reason.
        let quick = arm_stats(10_000, 0, 0.000_2);
        assert_eq!(next_action(0, 0, quick, arm_stats(600, 0, 0.000_9)), RolloutAction::Wait);
    }

    #[test]
    fn guardrails_absent_never_rolls_back() {
        let plan = ComparisonPlan::new(0.9, 0.03, [1.0, 1.0], 0.05, 0.9).unwrap();
        let rollout = strategy(Guardrails { errors: None, p99: None, accuracy: None });
        let control = arm_stats(1_000, 0, 0.01);
        let candidate = arm_stats(1_000, 1_000, 9.0);
        let labelled = [(counts(1_000, 1_000), counts(0, 1_000))];
        let look = RolloutInput {
            step: 0,
            elapsed_seconds: 1,
            control,
            candidate,
            feedback_by_step: Some(&labelled),
            plan: &plan,
        };
        assert_eq!(rollout.next_action(&look), RolloutAction::Wait);
    }

    #[test]
    fn accuracy_guardrail_without_feedback_waits() {
        let plan = ComparisonPlan::new(0.9, 0.03, [1.0, 1.0], 0.05, 0.9).unwrap();
        let next = |guards: Guardrails, failed: u64| {
            let control = arm_stats(1_000, 0, 0.01);
            let candidate = arm_stats(1_000, failed, 0.01);
            strategy(guards).next_action(&RolloutInput {
                step: 0,
                elapsed_seconds: 60,
                control,
                candidate,
                feedback_by_step: None,
                plan: &plan,
            })
        };
        assert_eq!(next(ALL_GUARDRAILS, 0), RolloutAction::Wait);
        assert!(matches!(next(ALL_GUARDRAILS, 1_000), RolloutAction::RollBack(_)));
        assert_eq!(next(Guardrails { accuracy: None, ..ALL_GUARDRAILS }, 0), RolloutAction::Advance(1));
    }

    #[test]
    fn validate_bad_steps_or_guardrails_refused() {
        let place = |rollout: &RolloutStrategy| match rollout.validate() {
            Ok(()) => String::new(),
            Err(ExperimentError::Invalid(place, _)) => place,
            Err(error) => error.to_string(),
        };
        let good = strategy(ALL_GUARDRAILS);
        assert_eq!(place(&good), "");
        let with = |change: &dyn Fn(&mut RolloutStrategy)| {
            let mut changed = good.clone();
            change(&mut changed);
            place(&changed)
        };
        assert_eq!(with(&|rollout| rollout.steps.clear()), "/rollout/steps");
        assert_eq!(with(&|rollout| rollout.steps[1].share = 0.01), "/rollout/steps/1/weight");
        assert_eq!(with(&|rollout| rollout.steps[2].share = 1.1), "/rollout/steps/2/weight");
        assert_eq!(with(&|rollout| rollout.steps[0].share = f64::NAN), "/rollout/steps/0/weight");
        assert_eq!(with(&|rollout| rollout.steps[0].seconds = u64::MAX), "/rollout/steps/0/seconds");
        assert_eq!(with(&|rollout| rollout.guards.p99 = Some(0.5)), "/rollout/guards");
        assert_eq!(with(&|rollout| rollout.guards.errors = Some(2.0)), "/rollout/guards");
    }
}
