//! Chance that tests can repeat.

#![expect(clippy::cast_precision_loss, clippy::cast_possible_truncation, reason = "small numbers")]

use super::difference::Counts;

/// `SplitMix64`: G. L. Steele, D. Lea, C. H. Flood, "Fast splittable pseudorandom number generators", 2014.
pub(super) struct Random(pub(super) u64);

impl Random {
    /// Any 64 bits.
    pub(super) fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut bits = self.0;
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        bits ^ (bits >> 31)
    }

    /// From 0 up to 1.
    pub(super) fn fraction(&mut self) -> f64 {
        (self.bits() >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// From 0 up to a small number.
    pub(super) fn below(&mut self, number: usize) -> usize {
        self.bits() as usize % number
    }
}

/// How many of `tries` happen that each do with chance `p`: the chance of at most as many, for each number.
fn binomial(tries: u64, p: f64) -> Vec<f64> {
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

fn draw(table: &[f64], random: &mut Random) -> u64 {
    let fraction = random.fraction();
    table.partition_point(|&sum| sum <= fraction).min(table.len() - 1) as u64
}

/// Two arms whose feedback comes in batches: tables of sums instead of single answers, for tests are not optimised.
pub(super) struct Arms {
    batch: u64,
    split: Vec<f64>,
    right: [Vec<Vec<f64>>; 2],
    random: Random,
}

impl Arms {
    /// Batches of so many answers, a part of them by the treatment, with the accuracies of control and treatment.
    pub(super) fn new(batch: u64, treatment: f64, accuracies: [f64; 2]) -> Self {
        let right = accuracies.map(|accuracy| (0..=batch).map(|answers| binomial(answers, accuracy)).collect());
        Self { batch, split: binomial(batch, treatment), right, random: Random(7) }
    }

    /// A batch more.
    pub(super) fn answer(&mut self, control: &mut Counts, treatment: &mut Counts) {
        let of_treatment = draw(&self.split, &mut self.random);
        for (arm, answers, right) in
            [(control, self.batch - of_treatment, &self.right[0]), (treatment, of_treatment, &self.right[1])]
        {
            arm.answers += answers;
            arm.correct += draw(&right[answers as usize], &mut self.random);
        }
    }
}
