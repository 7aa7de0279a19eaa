//! A version that comes step by step, and is taken back when something goes wrong. Pure: figures in, what to do out.

use serde::{Deserialize, Serialize};

use super::experiment::ExperimentError;
use super::statistics::interval::wilson;
use super::statistics::{Counts, Plan, compare};

/// Most steps.
pub const MAX_STEPS: usize = 20;
/// Longest least time of a step, in seconds: four weeks.
pub const MAX_SECONDS: u64 = 28 * 24 * 3_600;
/// Requests that each side must have before their slowest hundredth says anything.
pub const SLOWEST: u64 = 500;
/// Requests of the coming version before its errors say anything.
const LEAST_REQUESTS: u64 = 20;
/// Requests of the control whose errors are taken as they are.
const ENOUGH: u64 = 100;
/// Standard errors by which errors must be too many: one look in 1,000 is wrong by chance.
const Z: f64 = 3.09;
/// Differences of the slowest hundredth that nobody minds, in seconds.
const UNNOTICED: f64 = 0.002;

/// How a version comes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Rollout {
    /// Ever larger shares.
    pub steps: Vec<Step>,
    /// What must not happen.
    pub guards: Guards,
}

/// A share of the users, for a while.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Step {
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
pub struct Guards {
    /// Failed requests, as a part of all, beyond those of the control.
    pub errors: Option<f64>,
    /// The time that 99 of 100 requests stay within, as a multiple of the control's.
    pub p99: Option<f64>,
    /// Accuracy below the control's, a fraction, that is sure by feedback.
    pub accuracy: Option<f64>,
}

/// What one side of a rollout did.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Side {
    /// Requests of which is known what became of them.
    pub requests: u64,
    /// Those of them that failed.
    pub failed: u64,
    /// The time that 99 of 100 stayed within, in seconds.
    pub p99: Option<f64>,
}

/// What is known when it is looked whether the next step can come.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Look<'a> {
    /// The step, from 0.
    pub step: usize,
    /// How long it has gone on, in seconds.
    pub seconds: u64,
    /// The control, in this step; with those before it where a large share of the version leaves it few requests, or none.
    pub control: Side,
    /// The version that comes, in this step.
    pub candidate: Side,
    /// Feedback of the control and of the version in each step so far, since labels come late. None if it cannot be read:
    /// with a guard on accuracy the rollout goes no further then.
    pub labelled: Option<&'a [(Counts, Counts)]>,
    /// What is to be found; for the guard on accuracy.
    pub plan: &'a Plan,
}

/// What is to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Move {
    /// Wait.
    Wait,
    /// Go on to this step.
    Step(usize),
    /// Make the version the active one.
    Promote,
    /// Take it back, and why.
    TakeBack(String),
}

impl Rollout {
    /// Looks whether it makes sense.
    ///
    /// # Errors
    /// [`ExperimentError::Invalid`] with the place in the JSON form.
    pub fn check(&self) -> Result<(), ExperimentError> {
        let wrong = |place: String, reason: &str| Err(ExperimentError::Invalid(place, reason.to_owned()));
        if !(1..=MAX_STEPS).contains(&self.steps.len()) {
            return wrong("/rollout/steps".to_owned(), &format!("a rollout has 1 to {MAX_STEPS} steps"));
        }
        let mut before = 0.0;
        for (place, step) in self.steps.iter().enumerate() {
            if !(step.share > before && step.share <= 1.0) {
                return wrong(
                    format!("/rollout/steps/{place}/weight"),
                    "each step has a larger weight than the one before, up to 1, or 100 %",
                );
            }
            if step.seconds > MAX_SECONDS {
                return wrong(
                    format!("/rollout/steps/{place}/seconds"),
                    &format!("a step takes at least at most {MAX_SECONDS} s"),
                );
            }
            before = step.share;
        }
        let Guards { errors, p99, accuracy } = self.guards;
        let part = |guard: Option<f64>| guard.is_none_or(|part| (0.0..=1.0).contains(&part));
        if !part(errors) || !part(accuracy) || !p99.is_none_or(|times| (1.0..=100.0).contains(&times)) {
            return wrong("/rollout/guards".to_owned(), "possible are: errors and accuracy 0 to 1, p99 1 to 100");
        }
        Ok(())
    }

    /// What is to be done.
    #[must_use]
    pub fn next(&self, look: &Look<'_>) -> Move {
        if let Some(reason) = self.guards.breach(look, self.steps.len()) {
            return Move::TakeBack(reason);
        }
        let Some(step) = self.steps.get(look.step) else { return Move::Wait };
        let blind = self.guards.accuracy.is_some() && look.labelled.is_none();
        if blind || look.seconds < step.seconds || look.candidate.requests < step.requests {
            return Move::Wait;
        }
        if look.step + 1 < self.steps.len() { Move::Step(look.step + 1) } else { Move::Promote }
    }
}

impl Guards {
    /// The guard that was breached, in a sentence.
    fn breach(&self, look: &Look<'_>, steps: usize) -> Option<String> {
        let (control, candidate) = (look.control, look.candidate);
        let errors = self.errors.and_then(|most| too_many_errors(control, candidate, most));
        let slow = || self.p99.and_then(|most| too_slow(control, candidate, most));
        let wrong = || self.accuracy.and_then(|most| too_often_wrong(look, steps, most));
        errors.or_else(slow).or_else(wrong)
    }
}

fn too_many_errors(control: Side, candidate: Side, most: f64) -> Option<String> {
    if candidate.requests < LEAST_REQUESTS {
        return None;
    }
    let own = wilson(candidate.failed, candidate.requests, Z);
    // What a control with few requests did may be chance.
    let usual = match control.requests {
        0 => 0.0,
        few if few < ENOUGH => wilson(control.failed, few, 1.0).high,
        _ => part(control.failed, control.requests),
    };
    let allowed = usual + most;
    (own.low > allowed).then(|| {
        format!(
            "{} of {} requests failed ({:.1} %); the control's share and {:.1} points are allowed: {:.1} %",
            candidate.failed,
            candidate.requests,
            100.0 * part(candidate.failed, candidate.requests),
            100.0 * most,
            100.0 * allowed
        )
    })
}

fn too_slow(control: Side, candidate: Side, most: f64) -> Option<String> {
    let (own, other) = (candidate.p99?, control.p99?);
    let enough = candidate.requests.min(control.requests) >= SLOWEST;
    (enough && own > other * most && own - other > UNNOTICED).then(|| {
        format!(
            "99 of 100 requests took up to {:.1} ms, the control's {:.1} ms; {most} times as long is allowed",
            own * 1e3,
            other * 1e3
        )
    })
}

fn too_often_wrong(look: &Look<'_>, steps: usize, most: f64) -> Option<String> {
    // Steps are looked at one by one, since what they are asked may differ; all looks together are wrong with alpha.
    let plan = look.plan.among(steps);
    look.labelled.unwrap_or_default().iter().find_map(|&(control, candidate)| {
        let found = compare(control, candidate, &plan)?;
        (found.interval.high < -most).then(|| {
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
fn part(some: u64, all: u64) -> f64 {
    if all == 0 { 0.0 } else { some as f64 / all as f64 }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rollout(guards: Guards) -> Rollout {
        let step = |share, seconds, requests| Step { share, seconds, requests };
        Rollout { steps: vec![step(0.01, 60, 100), step(0.25, 60, 1_000), step(1.0, 60, 0)], guards }
    }

    const ALL: Guards = Guards { errors: Some(0.01), p99: Some(1.5), accuracy: Some(0.0) };

    fn side(requests: u64, failed: u64, p99: f64) -> Side {
        Side { requests, failed, p99: Some(p99) }
    }

    fn next(step: usize, seconds: u64, control: Side, candidate: Side) -> Move {
        labelled(step, seconds, control, candidate, &[])
    }

    fn labelled(step: usize, seconds: u64, control: Side, candidate: Side, labelled: &[(Counts, Counts)]) -> Move {
        let plan = Plan::new(0.9, 0.03, [1.0, 1.0], 0.05, 0.9).unwrap();
        rollout(ALL).next(&Look { step, seconds, control, candidate, labelled: Some(labelled), plan: &plan })
    }

    fn counts(correct: u64, answers: u64) -> Counts {
        Counts { correct, answers }
    }

    #[test]
    fn a_step_takes_its_time_and_its_requests() {
        let good = side(10_000, 10, 0.010);
        assert_eq!(next(0, 59, good, side(100, 0, 0.010)), Move::Wait);
        assert_eq!(next(0, 60, good, side(99, 0, 0.010)), Move::Wait);
        assert_eq!(next(0, 60, good, side(100, 0, 0.010)), Move::Step(1));
        assert_eq!(next(1, 60, good, side(1_000, 1, 0.011)), Move::Step(2));
        assert_eq!(next(2, 60, Side::default(), side(0, 0, 0.0)), Move::Promote);
        assert_eq!(next(3, 60, good, good), Move::Wait, "there is no such step");
    }

    #[test]
    fn what_must_not_happen_takes_it_back() {
        let good = side(10_000, 10, 0.010);
        let reason = |control: Side, candidate: Side, told: &[(Counts, Counts)]| match labelled(
            0, 0, control, candidate, told,
        ) {
            Move::TakeBack(reason) => reason,
            other => format!("{other:?}"),
        };
        let taken_back = |candidate: Side| reason(good, candidate, &[]);
        assert!(taken_back(side(20, 20, 0.010)).starts_with("20 of 20 requests failed (100.0 %)"));
        assert_eq!(taken_back(side(19, 19, 0.010)), "Wait", "too few to tell");
        assert_eq!(taken_back(side(1_000, 12, 0.010)), "Wait", "it may be chance");
        assert!(taken_back(side(1_000, 40, 0.010)).starts_with("40 of 1000"));
        assert!(taken_back(side(600, 0, 0.016)).starts_with("99 of 100 requests took up to 16.0 ms"));
        assert_eq!(taken_back(side(400, 0, 0.016)), "Wait");
        assert_eq!(taken_back(side(600, 0, 0.011)), "Wait");
        // Both fail now and then, and the control has few requests: that is no reason.
        assert_eq!(reason(side(10, 0, 0.010), side(1_000, 50, 0.010), &[]), "Wait");
        assert!(reason(side(0, 0, 0.0), side(1_000, 50, 0.010), &[]).starts_with("50 of 1000"));
        // Labels of an earlier step come late, and count.
        let worse = (counts(900, 1_000), counts(700, 1_000));
        let alike = (counts(900, 1_000), counts(890, 1_000));
        assert!(reason(good, side(600, 0, 0.010), &[worse, alike]).starts_with("right in 70.0 % of 1000 answers"));
        assert_eq!(reason(good, side(600, 0, 0.010), &[alike, alike]), "Wait");
        // Microseconds are no reason.
        let quick = side(10_000, 0, 0.000_2);
        assert_eq!(next(0, 0, quick, side(600, 0, 0.000_9)), Move::Wait);
    }

    #[test]
    fn without_guards_nothing_takes_it_back() {
        let plan = Plan::new(0.9, 0.03, [1.0, 1.0], 0.05, 0.9).unwrap();
        let rollout = rollout(Guards { errors: None, p99: None, accuracy: None });
        let (control, candidate) = (side(1_000, 0, 0.01), side(1_000, 1_000, 9.0));
        let labelled = [(counts(1_000, 1_000), counts(0, 1_000))];
        let look = Look { step: 0, seconds: 1, control, candidate, labelled: Some(&labelled), plan: &plan };
        assert_eq!(rollout.next(&look), Move::Wait);
    }

    #[test]
    fn without_labels_it_goes_no_further_where_they_are_guarded() {
        let plan = Plan::new(0.9, 0.03, [1.0, 1.0], 0.05, 0.9).unwrap();
        let next = |guards: Guards, failed: u64| {
            let (control, candidate) = (side(1_000, 0, 0.01), side(1_000, failed, 0.01));
            rollout(guards).next(&Look { step: 0, seconds: 60, control, candidate, labelled: None, plan: &plan })
        };
        assert_eq!(next(ALL, 0), Move::Wait);
        assert!(matches!(next(ALL, 1_000), Move::TakeBack(_)));
        assert_eq!(next(Guards { accuracy: None, ..ALL }, 0), Move::Step(1));
    }

    #[test]
    fn steps_grow_and_guards_are_in_their_limits() {
        let place = |rollout: &Rollout| match rollout.check() {
            Ok(()) => String::new(),
            Err(ExperimentError::Invalid(place, _)) => place,
            Err(error) => error.to_string(),
        };
        let good = rollout(ALL);
        assert_eq!(place(&good), "");
        let with = |change: &dyn Fn(&mut Rollout)| {
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
