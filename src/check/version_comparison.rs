//! How another version answers the same texts.

use predictd_stats::to_f64;
use serde::{Deserialize, Serialize};

use super::accuracy::{AccuracyReport, mean, share};
use super::answers::{MAX_LISTED_TEXTS, ModelAnswer, TimedAnswer, score_distance};
use super::eval_set::EvalSet;
use super::loaded_model::LoadedModel;

/// How two versions differ. "This" is the directory that is checked, "other" the one that it is compared with.
#[derive(Debug, Serialize, Deserialize)]
pub struct VersionComparison {
    /// The other directory.
    pub directory: String,
    /// Texts that both were asked.
    pub texts: usize,
    /// Texts with other labels; also those that one version answers and the other does not.
    pub flips: usize,
    /// Their share.
    pub flip_share: f64,
    /// The first of them.
    pub first_flips: Vec<LabelFlip>,
    /// Largest difference of a score of a label that both have.
    pub largest_score_difference: f64,
    /// Mean over the texts of the largest difference in each.
    pub mean_score_difference: f64,
    /// This version's time for all texts, one after the other, over the other's.
    pub time_ratio: f64,
    /// This version's bytes of graph and weights over the other's.
    pub size_ratio: f64,
    /// Labels that only this version has.
    pub labels_here_only: Vec<String>,
    /// Labels that only the other has.
    pub labels_there_only: Vec<String>,
    /// The other version's accuracy, where this one's is known.
    pub accuracy: Option<f64>,
}

/// A text with other labels.
#[derive(Debug, Serialize, Deserialize)]
pub struct LabelFlip {
    /// Its number.
    pub number: usize,
    /// This version's answer, if it gave one.
    pub this: Option<ModelAnswer>,
    /// The other's.
    pub other: Option<ModelAnswer>,
}

impl VersionComparison {
    /// Compares the answers of two models to the same texts.
    ///
    /// # Errors
    /// A sentence, if their answers are of different kinds.
    pub fn new(
        questions: &EvalSet,
        this: (&LoadedModel, &[TimedAnswer]),
        other: (&LoadedModel, &[TimedAnswer]),
    ) -> Result<Self, String> {
        let (this, answers) = this;
        let (other, others) = other;
        let tasks = [this, other].map(|opened| opened.pipeline().head().task());
        if tasks[0] != tasks[1] {
            return Err(format!("its task is {}, that of {} {}", tasks[1], this.directory.display(), tasks[0]));
        }
        let [here, there] = [this, other].map(|opened| opened.pipeline().labels());
        let other_indices: Vec<Option<usize>> =
            here.iter().map(|label| there.iter().position(|l| l == label)).collect();
        let mut flips = 0;
        let mut first_flips = Vec::new();
        let mut differences = Vec::new();
        for ((question, one), another) in questions.cases.iter().zip(answers).zip(others) {
            let [one, another] = [one, another].map(|answered| answered.outcome.as_ref().ok());
            let pair = one.zip(another);
            differences
                .extend(pair.and_then(|(one, another)| score_distance(one, another, &other_indices)).map(f64::from));
            let own_answer = one.map(|decision| ModelAnswer::from_decision(decision, here));
            let other_answer = another.map(|decision| ModelAnswer::from_decision(decision, there));
            if own_answer.as_ref().map(|answer| &answer.labels) != other_answer.as_ref().map(|answer| &answer.labels) {
                flips += 1;
                if first_flips.len() < MAX_LISTED_TEXTS {
                    first_flips.push(LabelFlip { number: question.number, this: own_answer, other: other_answer });
                }
            }
        }
        let texts = questions.cases.len();
        let accuracy = questions.graded.then(|| AccuracyReport::new(questions, others, there).accuracy).flatten();
        Ok(Self {
            directory: other.directory.display().to_string(),
            texts,
            flips,
            flip_share: share(flips, texts),
            first_flips,
            largest_score_difference: differences.iter().copied().fold(0.0, f64::max),
            mean_score_difference: mean(&differences),
            time_ratio: total_seconds(answers) / total_seconds(others).max(f64::MIN_POSITIVE),
            size_ratio: to_f64(this.graph_bytes()?) / to_f64(other.graph_bytes()?.max(1)),
            labels_here_only: labels_only_in(here, there),
            labels_there_only: labels_only_in(there, here),
            accuracy,
        })
    }
}

fn total_seconds(answers: &[TimedAnswer]) -> f64 {
    answers.iter().map(|answered| answered.time.as_secs_f64()).sum()
}

fn labels_only_in(labels: &[String], others: &[String]) -> Vec<String> {
    labels.iter().filter(|label| !others.contains(label)).cloned().collect()
}
