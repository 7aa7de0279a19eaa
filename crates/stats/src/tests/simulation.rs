//! Chance that tests can repeat.

#![expect(clippy::cast_possible_truncation, reason = "small numbers")]

use crate::feedback_counts::FeedbackCounts;
use crate::split_mix64::SplitMix64;

/// How many of `tries` happen that each do with chance `p`: the chance of at most as many, for each number.
fn binomial_cdf(tries: u64, p: f64) -> Vec<f64> {
    let mut chances = vec![1.0];
    for _ in 0..tries {
        let mut next = vec![0.0; chances.len() + 1];
        for (i, chance) in chances.iter().enumerate() {
            next[i] += chance * (1.0 - p);
            next[i + 1] += chance * p;
        }
        chances = next;
    }
    let sum = |sum: &mut f64, chance: f64| {
        *sum += chance;
        Some(*sum)
    };
    chances.into_iter().scan(0.0, sum).collect()
}

fn sample_from_cdf(table: &[f64], random: &mut SplitMix64) -> u64 {
    let fraction = random.next_f64();
    table.partition_point(|&sum| sum <= fraction).min(table.len() - 1) as u64
}

/// Two arms whose feedback comes in batches: tables of sums instead of single answers, for tests are not optimised.
pub(crate) struct ArmSimulator {
    batch: u64,
    treatment_cdf: Vec<f64>,
    correct_cdfs: [Vec<Vec<f64>>; 2],
    rng: SplitMix64,
}

impl ArmSimulator {
    /// Batches of so many answers, a part of them by the treatment, with the accuracies of control and treatment.
    pub(crate) fn new(batch: u64, treatment: f64, accuracies: [f64; 2]) -> Self {
        let right = accuracies.map(|accuracy| (0..=batch).map(|answers| binomial_cdf(answers, accuracy)).collect());
        Self { batch, treatment_cdf: binomial_cdf(batch, treatment), correct_cdfs: right, rng: SplitMix64(7) }
    }

    /// A batch more.
    pub(crate) fn add_batch(&mut self, control: &mut FeedbackCounts, treatment: &mut FeedbackCounts) {
        let of_treatment = sample_from_cdf(&self.treatment_cdf, &mut self.rng);
        for (arm, answers, right) in [
            (control, self.batch - of_treatment, &self.correct_cdfs[0]),
            (treatment, of_treatment, &self.correct_cdfs[1]),
        ] {
            arm.answers += answers;
            arm.correct += sample_from_cdf(&right[answers as usize], &mut self.rng);
        }
    }
}
