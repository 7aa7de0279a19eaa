//! What a phase of an experiment has shown so far. Pure: sums in, figures and sentences out.

use std::collections::BTreeMap;

use predictd_stats::confusion::ConfusionMatrix;
use predictd_stats::interval::{Z_SCORE_95, wilson_interval};
use predictd_stats::reliability::ReliabilityDiagram;
use predictd_stats::verdict::{ArmAccuracy, ExperimentVerdict, Verdict, evaluate_arms};
use predictd_stats::{
    AccuracyDifference, ComparisonPlan, ConfidenceInterval, FeedbackCounts, SampleSizes, compare_accuracies,
    sample_ratio_mismatch,
};

use super::counters::{ArmCounts, PhaseCounts, ShadowCounts};
use super::experiment::{Experiment, ExperimentArm, ExperimentDesign, MAX_ARMS};
use super::rollout::{ArmStats, MIN_P99_REQUESTS, ratio};

/// What feedback says of an arm.
#[derive(Debug, Clone, Default)]
pub struct ArmFeedback {
    /// How often it was right. A text that it failed counts as wrong, whatever the control said: what an arm cannot answer
    /// would make it look better otherwise.
    pub counts: FeedbackCounts,
    /// Labelled texts that it failed.
    pub failed: u64,
    /// Its answers by their confidence.
    pub bins: ReliabilityDiagram,
    /// Its answers against the true labels; empty unless asked for.
    pub confusion: ConfusionMatrix,
    /// There were too many different pairs: only the most frequent are in there.
    pub is_confusion_truncated: bool,
}

/// All that is known of a phase.
#[derive(Debug, Default)]
pub struct PhaseTotals {
    /// What all processes have counted.
    pub counts: PhaseCounts,
    /// Feedback, by arm.
    pub feedback: BTreeMap<String, ArmFeedback>,
    /// What was decided first, by arm.
    pub first_decisions: BTreeMap<String, FirstDecision>,
}

impl PhaseTotals {
    /// How often an arm was right.
    #[must_use]
    pub fn feedback_counts(&self, arm: &str) -> FeedbackCounts {
        self.feedback.get(arm).map(|feedback| feedback.counts).unwrap_or_default()
    }
}

/// The first time that one could be sure of an arm. It stands: what one looks at afterwards was chosen for being so.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FirstDecision {
    /// Better than the control, or worse.
    pub is_better: bool,
    /// When, in milliseconds since 1970.
    pub decided_at: i64,
    /// What was said.
    pub sentence: String,
}

/// What a phase has shown.
#[derive(Debug)]
pub struct PhaseResults {
    /// Arms that answer, in their order.
    pub arms: Vec<ArmResult>,
    /// Shadows, in their order.
    pub shadows: Vec<ShadowResult>,
    /// About how many users there were.
    pub estimated_users: f64,
    /// Users in the sample who met several arms.
    pub multi_arm_users: usize,
    /// The chance of such a spread of users, where it is so small that nothing else counts.
    pub mismatch: Option<f64>,
    /// All of it in plain words.
    pub verdict: String,
}

/// What an arm did.
#[derive(Debug)]
pub struct ArmResult {
    /// The arm.
    pub arm: ExperimentArm,
    /// Others are compared with it.
    pub is_control: bool,
    /// What it was asked.
    pub counts: ArmCounts,
    /// Its part of all requests.
    pub share: Option<f64>,
    /// What feedback says of it.
    pub feedback: ArmFeedback,
    /// What holds its accuracy, for one look.
    pub interval: ConfidenceInterval,
    /// Against the control; none for the control.
    pub verdict: Option<Verdict>,
    /// How much more often it is right than the control; none for the control, or with too little feedback.
    pub difference: Option<AccuracyDifference>,
    /// Feedback that both still need by plan; none for the control.
    pub remaining_feedback: Option<SampleSizes>,
    /// The first decision.
    pub first_decision: Option<FirstDecision>,
}

/// What a shadow did.
#[derive(Debug)]
pub struct ShadowResult {
    /// The arm.
    pub arm: ExperimentArm,
    /// What became of the texts.
    pub counts: ShadowCounts,
}

impl ShadowResult {
    /// The part of the texts with the same labels.
    #[must_use]
    pub fn agreement(&self) -> Option<f64> {
        ratio(self.counts.agreed, self.counts.compared)
    }

    /// The mean difference of the confidence in the label that was answered.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "counts are far below 2^53")]
    pub fn mean_confidence_difference(&self) -> Option<f64> {
        (self.counts.compared > 0).then(|| self.counts.distance / self.counts.compared as f64)
    }
}

impl PhaseResults {
    /// Of a phase of this experiment, whose weights are those of `weights`.
    #[must_use]
    pub fn new(experiment: &Experiment, weights: &[f64], sums: &PhaseTotals) -> Self {
        let mut design = experiment.design.clone();
        for (arm, weight) in design.arms.iter_mut().zip(weights) {
            arm.weight = *weight;
        }
        let control_weight = design.control_arm().map_or(1.0, |(_, arm)| arm.weight);
        let compared: Vec<(ArmAccuracy, ComparisonPlan)> = design
            .serving_arms()
            .filter(|(_, arm)| arm.name != design.control)
            .filter_map(|(_, arm)| {
                Some((arm_accuracy(&arm.name, sums), design.aim.comparison_plan(control_weight, arm.weight)?))
            })
            .collect();
        let control = arm_accuracy(&design.control, sums);
        let mismatch = user_mismatch(&design, &sums.counts);
        let judged = (!compared.is_empty()).then(|| evaluate_arms(&control, &compared, mismatch));
        let judgements: BTreeMap<&str, (ComparisonPlan, &Verdict)> = compared
            .iter()
            .zip(judged.iter().flat_map(|judged| &judged.arm_verdicts))
            .map(|((arm, plan), verdict)| (arm.name.as_str(), (plan.with_bonferroni(compared.len()), verdict)))
            .collect();
        let all = design
            .serving_arms()
            .filter_map(|(_, arm)| sums.counts.arms.get(&arm.name))
            .map(|tally| tally.requests)
            .sum();
        let arms = design.serving_arms().map(|(_, arm)| {
            let counts = sums.counts.arms.get(&arm.name).cloned().unwrap_or_default();
            let feedback = sums.feedback.get(&arm.name).cloned().unwrap_or_default();
            let judgement = judgements.get(arm.name.as_str());
            ArmResult {
                difference: judgement.and_then(|(plan, _)| compare_accuracies(control.counts, feedback.counts, plan)),
                remaining_feedback: judgement
                    .map(|(plan, _)| plan.remaining_sample_sizes(control.counts, feedback.counts)),
                is_control: arm.name == design.control,
                share: ratio(counts.requests, all),
                interval: wilson_interval(feedback.counts.correct, feedback.counts.answers, Z_SCORE_95),
                verdict: judgement.map(|(_, verdict)| (*verdict).clone()),
                first_decision: sums.first_decisions.get(&arm.name).cloned(),
                arm: arm.clone(),
                counts,
                feedback,
            }
        });
        let shadows = design.shadow_arms().map(|(_, arm)| ShadowResult {
            arm: arm.clone(),
            counts: sums.counts.shadows.get(&arm.name).cloned().unwrap_or_default(),
        });
        let users = &sums.counts.users;
        Self {
            arms: arms.collect(),
            shadows: shadows.collect(),
            estimated_users: users.estimated_users(),
            multi_arm_users: users.multi_arm_users(),
            mismatch,
            verdict: judged.as_ref().map_or_else(
                || "There is one arm: nothing is compared by feedback.".to_owned(),
                |judged| verdict_text(judged, &compared, sums),
            ),
        }
    }

    /// Arms of which one can be sure now, and could not before.
    pub fn new_decisions(&self) -> impl Iterator<Item = (&ExperimentArm, bool, String)> {
        self.arms.iter().filter(|result| result.first_decision.is_none()).filter_map(|result| {
            let verdict = result.verdict.as_ref()?;
            Some((&result.arm, verdict.is_better()?, verdict.to_string()))
        })
    }

    /// The control and the other arm of a rollout.
    #[must_use]
    pub fn control_and_candidate(&self) -> Option<(&ArmResult, &ArmResult)> {
        let control = self.arms.iter().find(|result| result.is_control);
        control.zip(self.arms.iter().find(|result| !result.is_control))
    }
}

/// What an arm did, as a rollout looks at it.
#[must_use]
pub fn arm_stats(tally: &ArmCounts) -> ArmStats {
    ArmStats {
        requests: tally.finished_requests(),
        failed: tally.failure_count(),
        p99: tally.latencies.0.quantile(0.99).map(|time| time.as_secs_f64()),
    }
}

/// What an arm did lately: in the present phase, and as long as that is too little to tell how slow it is, in the ones
/// before, the latest first. What it did long ago, under another load, says little.
#[must_use]
pub fn recent_control_counts<'a>(present: &ArmCounts, earlier: impl Iterator<Item = &'a ArmCounts>) -> ArmCounts {
    let mut all = present.clone();
    for tally in earlier {
        if all.finished_requests() >= MIN_P99_REQUESTS {
            break;
        }
        all.merge(tally);
    }
    all
}

/// Returns an arm's name and feedback.
fn arm_accuracy(arm: &str, sums: &PhaseTotals) -> ArmAccuracy {
    ArmAccuracy { name: arm.to_owned(), counts: sums.feedback_counts(arm) }
}

/// What is known now, in which first decisions stand.
fn verdict_text(judged: &ExperimentVerdict, compared: &[(ArmAccuracy, ComparisonPlan)], sums: &PhaseTotals) -> String {
    let decided: Vec<_> = compared.iter().map(|(arm, _)| sums.first_decisions.get(&arm.name)).collect();
    if let [Some(first)] = &decided[..]
        && !matches!(judged.arm_verdicts[..], [Verdict::Mismatch(_)])
    {
        return first.sentence.clone();
    }
    let decided: Vec<_> = decided.iter().map(|first| first.map(|first| first.is_better)).collect();
    judged.summary_sentence(&decided)
}

/// Whether users are spread as the weights say.
fn user_mismatch(design: &ExperimentDesign, counted: &PhaseCounts) -> Option<f64> {
    let users = counted.users.counts(MAX_ARMS);
    let (users, weights): (Vec<u64>, Vec<f64>) =
        design.serving_arms().map(|(index, arm)| (users.get(index).copied().unwrap_or_default(), arm.weight)).unzip();
    sample_ratio_mismatch(&users, &weights)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bucketing::Bucketing;
    use crate::counters::ActivePhase;
    use crate::experiment::tests::sample_design;
    use std::time::Duration;

    fn arm_feedback(correct: u64, answers: u64) -> ArmFeedback {
        ArmFeedback { counts: FeedbackCounts { correct, answers }, ..ArmFeedback::default() }
    }

    fn started_experiment() -> (Experiment, Vec<f64>) {
        let mut experiment = Experiment::new(sample_design(), 0);
        experiment.start(1, |_| None).unwrap();
        let weights = experiment.phases[0].weights.clone();
        (experiment, weights)
    }

    fn phase_totals(old: ArmFeedback, new: ArmFeedback) -> PhaseTotals {
        PhaseTotals { feedback: [("old".to_owned(), old), ("new".to_owned(), new)].into(), ..PhaseTotals::default() }
    }

    #[test]
    fn verdict_later_unsure_first_decision_stands() {
        let (experiment, weights) = started_experiment();
        let mut sums = phase_totals(arm_feedback(1_200, 1_540), arm_feedback(1_447, 1_540));
        let results = PhaseResults::new(&experiment, &weights, &sums);
        assert!(
            results.verdict.starts_with("new is better: right in 94.0 % of 1,540 answers against 77.9 %"),
            "{}",
            results.verdict
        );
        let (arm, better, sentence) = results.new_decisions().next().unwrap();
        assert_eq!((arm.name.as_str(), better, &sentence), ("new", true, &results.verdict));
        // Later on it looks less sure.
        sums.first_decisions.insert("new".to_owned(), FirstDecision { is_better: better, decided_at: 1, sentence });
        sums.feedback.insert("new".to_owned(), arm_feedback(1_210, 1_540));
        let later = PhaseResults::new(&experiment, &weights, &sums);
        assert_eq!(later.verdict, results.verdict);
        assert!(matches!(later.arms[1].verdict, Some(Verdict::Undecided(_))));
    }

    fn failed_requests(count: u64) -> ArmCounts {
        ArmCounts { failed: [("timeout".to_owned(), count)].into(), ..ArmCounts::default() }
    }

    #[test]
    fn recent_counts_sufficient_older_phases_ignored() {
        let earlier = [failed_requests(300), failed_requests(150), failed_requests(9_000)];
        let of_late = |present| recent_control_counts(&failed_requests(present), earlier.iter()).failure_count();
        assert_eq!((of_late(0), of_late(49), of_late(50), of_late(199)), (9_450, 9_499, 500, 649));
        assert_eq!((of_late(200), of_late(499), of_late(500)), (500, 799, 500));
    }

    #[test]
    fn results_with_mismatch_distrusted() {
        let (experiment, weights) = started_experiment();
        let running = ActivePhase::new("colours", &experiment);
        for user in 0..2_000 {
            let user = Bucketing::from_user("colours", &user.to_string());
            running.record_request(usize::from(user.position > 0.6), 1, Some(&user));
        }
        let sums = PhaseTotals {
            counts: running.counts(),
            ..phase_totals(arm_feedback(500, 1_000), arm_feedback(900, 1_000))
        };
        let results = PhaseResults::new(&experiment, &weights, &sums);
        assert!(results.mismatch.is_some_and(|p| p < 0.001));
        assert!(results.verdict.starts_with("Do not trust this comparison"), "{}", results.verdict);
        assert_eq!((results.estimated_users.round(), results.new_decisions().count()), (2_000.0, 0));
        assert!((results.arms[0].share.unwrap() - 0.6).abs() < 0.05);
    }

    #[test]
    fn results_failing_arm_visible_to_rollout() {
        let (experiment, weights) = started_experiment();
        let running = ActivePhase::new("colours", &experiment);
        for _ in 0..10 {
            running.record_request(1, 1, None);
            running.record_failure(1, "inference-failed");
        }
        running.record_answer(0, Duration::from_millis(3));
        running.record_shadow(2, |tally| {
            tally.compared += 2;
            tally.agreed += 1;
            tally.distance += 0.5;
        });
        let sums = PhaseTotals { counts: running.counts(), ..PhaseTotals::default() };
        let results = PhaseResults::new(&experiment, &weights, &sums);
        let (control, candidate) = results
            .control_and_candidate()
            .map(|(control, candidate)| (arm_stats(&control.counts), arm_stats(&candidate.counts)))
            .unwrap();
        assert_eq!((control.failed, candidate.requests, candidate.failed), (0, 10, 10));
        assert!(control.p99.is_some_and(|p99| (0.0028..0.0032).contains(&p99)));
        let shadow = &results.shadows[0];
        assert_eq!(
            (shadow.agreement(), shadow.mean_confidence_difference(), shadow.arm.name.as_str()),
            (Some(0.5), Some(0.25), "shade")
        );
        assert!(results.verdict.starts_with("Too little feedback"));
    }
}
