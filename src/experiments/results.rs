//! What a phase of an experiment has shown so far. Pure: sums in, figures and sentences out.

use std::collections::BTreeMap;
use std::time::Duration;

use super::experiment::{Arm, Experiment};
use super::rollout::{SLOWEST, Side};
use super::statistics::calibration::Bins;
use super::statistics::classes::Confusion;
use super::statistics::interval::{Z95, wilson};
use super::statistics::verdict::{self, Judgement, Overall, Verdict, judge};
use super::statistics::{Counts, Difference, Interval, Needed, Plan, compare, mismatch};
use super::tally::{Counted, ShadowTally, Tally};

/// What feedback says of an arm.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Labelled {
    /// How often it was right. A text that it failed counts as wrong, whatever the control said: what an arm cannot answer
    /// would make it look better otherwise.
    pub counts: Counts,
    /// Labelled texts that it failed.
    pub failed: u64,
    /// Its answers by their confidence.
    pub bins: Bins,
    /// Its answers against the true labels; empty unless asked for.
    pub confusion: Confusion,
    /// There were too many different pairs: only the most frequent are in there.
    pub is_part: bool,
}

/// All that is known of a phase.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Sums {
    /// What all processes have counted.
    pub counted: Counted,
    /// Feedback, by arm.
    pub labelled: BTreeMap<String, Labelled>,
    /// What was decided first, by arm.
    pub decided: BTreeMap<String, Decided>,
}

/// The first time that one could be sure of an arm. It stands: what one looks at afterwards was chosen for being so.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decided {
    /// Better than the control, or worse.
    pub better: bool,
    /// When, in milliseconds since 1970.
    pub at: i64,
    /// What was said.
    pub sentence: String,
}

/// What a phase has shown.
#[derive(Debug, Clone, PartialEq)]
pub struct Results {
    /// Arms that answer, in their order.
    pub arms: Vec<ArmResult>,
    /// Shadows, in their order.
    pub shadows: Vec<ShadowResult>,
    /// About how many users there were.
    pub users: f64,
    /// Users in the sample who met several arms.
    pub in_several_arms: usize,
    /// The chance of such a spread of users, where it is so small that nothing else counts.
    pub mismatch: Option<f64>,
    /// All of it in plain words.
    pub verdict: String,
}

/// What an arm did.
#[derive(Debug, Clone, PartialEq)]
pub struct ArmResult {
    /// The arm.
    pub arm: Arm,
    /// Others are compared with it.
    pub is_control: bool,
    /// What it was asked.
    pub tally: Tally,
    /// Its part of all requests.
    pub share: Option<f64>,
    /// The times that 50, 90 and 99 of 100 requests stayed within.
    pub quantiles: [Option<Duration>; 3],
    /// What feedback says of it.
    pub labelled: Labelled,
    /// What holds its accuracy, for one look.
    pub interval: Interval,
    /// Against the control; none for the control.
    pub compared: Option<Verdict>,
    /// How much more often it is right than the control; none for the control, or with too little feedback.
    pub difference: Option<Difference>,
    /// Feedback that both still need by plan; none for the control.
    pub needed: Option<Needed>,
    /// The first decision.
    pub decided: Option<Decided>,
}

/// What a shadow did.
#[derive(Debug, Clone, PartialEq)]
pub struct ShadowResult {
    /// The arm.
    pub arm: Arm,
    /// What became of the texts.
    pub tally: ShadowTally,
    /// The times that 50, 90 and 99 of 100 runs stayed within.
    pub quantiles: [Option<Duration>; 3],
}

impl ShadowResult {
    /// The part of the texts with the same labels.
    #[must_use]
    pub fn agreement(&self) -> Option<f64> {
        mean(self.tally.agreed, self.tally.compared)
    }

    /// The mean difference of the confidence in the label that was answered.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "counts are far below 2^53")]
    pub fn distance(&self) -> Option<f64> {
        (self.tally.compared > 0).then(|| self.tally.distance / self.tally.compared as f64)
    }
}

impl Results {
    /// Of a phase of this experiment, whose weights are those of `weights`.
    #[must_use]
    pub fn of(experiment: &Experiment, weights: &[f64], sums: &Sums) -> Self {
        let design = &experiment.design;
        let arms: Vec<(usize, Arm)> =
            design.answering().map(|(place, arm)| (place, weighted(arm, weights, place))).collect();
        let mismatch = spread(&arms, &sums.counted);
        let control_weight = arms.iter().find(|(_, arm)| arm.name == design.control).map_or(1.0, |(_, arm)| arm.weight);
        let counts = |arm: &Arm| {
            let counts = sums.labelled.get(&arm.name).map(|labelled| labelled.counts).unwrap_or_default();
            verdict::Arm { name: arm.name.clone(), counts }
        };
        let others: Vec<(verdict::Arm, Plan)> = arms
            .iter()
            .filter(|(_, arm)| arm.name != design.control)
            .filter_map(|(_, arm)| Some((counts(arm), plan(experiment, control_weight, arm.weight)?)))
            .collect();
        let control = design.control_arm().map(|(_, arm)| counts(arm));
        let judged = control.filter(|_| !others.is_empty()).map(|control| judge(&control, &others, mismatch));
        let names: Vec<&str> = others.iter().map(|(arm, _)| arm.name.as_str()).collect();
        let mut each = judged.iter().flat_map(|judged| judged.each.iter());
        let plans: BTreeMap<&str, Plan> =
            others.iter().map(|(arm, plan)| (arm.name.as_str(), plan.among(others.len()))).collect();
        let of_control = design.control_arm().map(|(_, arm)| counts(arm).counts).unwrap_or_default();
        let all: u64 =
            arms.iter().filter_map(|(_, arm)| sums.counted.arms.get(&arm.name)).map(|tally| tally.requests).sum();
        let result = |(_, arm): &(usize, Arm)| {
            let tally = sums.counted.arms.get(&arm.name).cloned().unwrap_or_default();
            let labelled = sums.labelled.get(&arm.name).cloned().unwrap_or_default();
            let is_control = arm.name == design.control;
            let plan = plans.get(arm.name.as_str());
            ArmResult {
                difference: plan.and_then(|plan| compare(of_control, labelled.counts, plan)),
                needed: plan.map(|plan| plan.remaining(of_control, labelled.counts)),
                is_control,
                share: mean(tally.requests, all),
                quantiles: [0.5, 0.9, 0.99].map(|q| tally.latencies.0.quantile(q)),
                interval: wilson(labelled.counts.correct, labelled.counts.answers, Z95),
                compared: if is_control { None } else { each.next().cloned() },
                decided: sums.decided.get(&arm.name).cloned(),
                arm: arm.clone(),
                tally,
                labelled,
            }
        };
        let arms = arms.iter().map(result).collect();
        let shadow = |(place, arm): (usize, &Arm)| {
            let tally = sums.counted.shadows.get(&arm.name).cloned().unwrap_or_default();
            let quantiles = [0.5, 0.9, 0.99].map(|q| tally.latencies.0.quantile(q));
            ShadowResult { arm: weighted(arm, weights, place), tally, quantiles }
        };
        let users = &sums.counted.users;
        Self {
            arms,
            shadows: design.shadows().map(shadow).collect(),
            users: users.users(),
            in_several_arms: users.in_several_arms(),
            mismatch,
            verdict: judged.as_ref().map_or_else(
                || "There is one arm: nothing is compared by feedback.".to_owned(),
                |judged| said(judged, &names, sums),
            ),
        }
    }

    /// Arms of which one can be sure now.
    pub fn decisions(&self) -> impl Iterator<Item = (&Arm, bool, String)> {
        self.arms.iter().filter_map(|result| match result.compared.as_ref()? {
            found @ Verdict::Better(_) => Some((&result.arm, true, found.to_string())),
            found @ Verdict::Worse(_) => Some((&result.arm, false, found.to_string())),
            _ => None,
        })
    }

    /// The control and the other arm of a rollout.
    #[must_use]
    pub fn sides(&self) -> Option<(&ArmResult, &ArmResult)> {
        let side = |is_control: bool| self.arms.iter().find(|result| result.is_control == is_control);
        Some((side(true)?, side(false)?))
    }
}

/// What an arm did, as a rollout looks at it.
#[must_use]
pub fn side(tally: &Tally) -> Side {
    Side {
        requests: tally.settled(),
        failed: tally.failures(),
        p99: tally.latencies.0.quantile(0.99).map(|time| time.as_secs_f64()),
    }
}

/// What an arm did lately: in the present phase, and as long as that is too little to tell how slow it is, in the ones
/// before, the latest first. What it did long ago, under another load, says little.
#[must_use]
pub fn of_late<'a>(present: &Tally, earlier: impl Iterator<Item = &'a Tally>) -> Tally {
    let mut all = present.clone();
    for tally in earlier {
        if all.settled() >= SLOWEST {
            break;
        }
        all.merge(tally);
    }
    all
}

/// What is to be found between the control and another arm.
#[must_use]
pub fn plan(experiment: &Experiment, control: f64, arm: f64) -> Option<Plan> {
    let aim = experiment.design.aim;
    // An arm that nobody is in has no plan of its own: its weight says only how long it would take.
    let weights = if control > 0.0 && arm > 0.0 { [control, arm] } else { [1.0, 1.0] };
    Plan::new(aim.accuracy, aim.least, weights, aim.alpha, aim.power)
}

/// What is known now, in which first decisions stand.
fn said(judged: &Judgement, names: &[&str], sums: &Sums) -> String {
    if matches!(judged.overall, Overall::Mismatch { .. } | Overall::One(Verdict::Mismatch { .. })) {
        return judged.overall.to_string();
    }
    let first = |name: &str| sums.decided.get(name);
    let standing = |(name, verdict): (&&str, &Verdict)| {
        first(name).map(|first| first.better).or(match verdict {
            Verdict::Better(_) => Some(true),
            Verdict::Worse(_) => Some(false),
            _ => None,
        })
    };
    match names {
        [only] => first(only).map_or_else(|| judged.overall.to_string(), |first| first.sentence.clone()),
        several => {
            let all: Vec<Option<bool>> = several.iter().zip(&judged.each).map(standing).collect();
            let better: Vec<&str> =
                several.iter().zip(&all).filter(|(_, found)| **found == Some(true)).map(|(name, _)| *name).collect();
            judged.overall.standing(&better, all.iter().all(|found| *found == Some(false)))
        }
    }
}

fn weighted(arm: &Arm, weights: &[f64], place: usize) -> Arm {
    Arm { weight: weights.get(place).copied().unwrap_or(arm.weight), ..arm.clone() }
}

/// Whether users are spread as the weights say.
fn spread(arms: &[(usize, Arm)], counted: &Counted) -> Option<f64> {
    let most = arms.iter().map(|&(place, _)| place + 1).max().unwrap_or(0);
    let users = counted.users.counts(most);
    let of_users: Vec<u64> = arms.iter().map(|&(place, _)| users.get(place).copied().unwrap_or(0)).collect();
    let weights: Vec<f64> = arms.iter().map(|(_, arm)| arm.weight).collect();
    mismatch(&of_users, &weights)
}

#[expect(clippy::cast_precision_loss, reason = "counts are far below 2^53")]
fn mean(some: u64, all: u64) -> Option<f64> {
    (all > 0).then(|| some as f64 / all as f64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::experiments::assignment::Unit;
    use crate::experiments::experiment::tests::design;
    use crate::experiments::tally::Running;

    fn labelled(correct: u64, answers: u64) -> Labelled {
        Labelled { counts: Counts { correct, answers }, ..Labelled::default() }
    }

    fn started() -> (Experiment, Vec<f64>) {
        let mut experiment = Experiment::new(design(), 0);
        experiment.start(1, |_| None).unwrap();
        let weights = experiment.phases[0].weights.clone();
        (experiment, weights)
    }

    fn sums(old: Labelled, new: Labelled) -> Sums {
        Sums { labelled: [("old".to_owned(), old), ("new".to_owned(), new)].into(), ..Sums::default() }
    }

    #[test]
    fn the_better_arm_is_named_and_the_first_decision_stands() {
        let (experiment, weights) = started();
        let mut sums = sums(labelled(1_200, 1_540), labelled(1_447, 1_540));
        let found = Results::of(&experiment, &weights, &sums);
        assert!(
            found.verdict.starts_with("new is better: right in 94.0 % of 1,540 answers against 77.9 %"),
            "{}",
            found.verdict
        );
        let (arm, better, sentence) = found.decisions().next().unwrap();
        assert_eq!((arm.name.as_str(), better, &sentence), ("new", true, &found.verdict));
        // Later on it looks less sure.
        sums.decided.insert("new".to_owned(), Decided { better, at: 1, sentence });
        sums.labelled.insert("new".to_owned(), labelled(1_210, 1_540));
        let later = Results::of(&experiment, &weights, &sums);
        assert_eq!(later.verdict, found.verdict);
        assert!(matches!(later.arms[1].compared, Some(Verdict::NotYet { .. })));
    }

    #[test]
    fn what_an_arm_did_long_ago_counts_only_while_there_is_little_else() {
        let failed = |count| Tally { failed: [("timeout".to_owned(), count)].into(), ..Tally::default() };
        let earlier = [failed(300), failed(150), failed(9_000)];
        let of_late = |present| of_late(&failed(present), earlier.iter()).failures();
        assert_eq!((of_late(0), of_late(49), of_late(50), of_late(199)), (9_450, 9_499, 500, 649));
        assert_eq!((of_late(200), of_late(499), of_late(500)), (500, 799, 500));
    }

    #[test]
    fn users_that_are_spread_wrongly_spoil_it() {
        let (experiment, weights) = started();
        let running = Running::new("colours", &experiment);
        for user in 0..2_000 {
            let user = Unit::of("colours", &user.to_string());
            running.asked(usize::from(user.position > 0.6), 1, Some(&user));
        }
        let sums = Sums { counted: running.counted(), ..sums(labelled(500, 1_000), labelled(900, 1_000)) };
        let found = Results::of(&experiment, &weights, &sums);
        assert!(found.mismatch.is_some_and(|p| p < 0.001));
        assert!(found.verdict.starts_with("Do not trust this comparison"), "{}", found.verdict);
        assert_eq!((found.users.round(), found.decisions().count()), (2_000.0, 0));
        assert!((found.arms[0].share.unwrap() - 0.6).abs() < 0.05);
    }

    #[test]
    fn an_arm_that_fails_is_seen_by_a_rollout() {
        let (experiment, weights) = started();
        let running = Running::new("colours", &experiment);
        for _ in 0..10 {
            running.asked(1, 1, None);
            running.failed(1, "inference-failed");
        }
        running.answered(0, Duration::from_millis(3));
        running.shadow(2, |tally| {
            tally.compared += 2;
            tally.agreed += 1;
            tally.distance += 0.5;
        });
        let sums = Sums { counted: running.counted(), ..Sums::default() };
        let found = Results::of(&experiment, &weights, &sums);
        let (control, candidate) =
            found.sides().map(|(control, candidate)| (side(&control.tally), side(&candidate.tally))).unwrap();
        assert_eq!((control.failed, candidate.requests, candidate.failed), (0, 10, 10));
        assert!(control.p99.is_some_and(|p99| (0.0028..0.0032).contains(&p99)));
        let shadow = &found.shadows[0];
        assert_eq!((shadow.agreement(), shadow.distance(), shadow.arm.name.as_str()), (Some(0.5), Some(0.25), "shade"));
        assert!(found.verdict.starts_with("Too little feedback"));
    }
}
