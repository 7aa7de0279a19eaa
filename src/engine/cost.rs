//! What a run costs, by its shape. Pure.
//!
//! A run of `n` rows padded to `L` tokens takes about `a + b·nL + c·nL²` seconds: `a` for starting the graph and reading
//! its weights, `b` for every token, `c` for attention. Fitted to a few runs
//! at load, and to all runs from then on.

use crate::text::tensors::Shape;

/// Runs of several texts are large enough when starting one is this part of it.
const START_SHARE: f64 = 0.05;
/// So many tokens always pay.
const LEAST_PAYING: usize = 512;

/// A measured run.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Sample {
    /// Its shape.
    pub shape: Shape,
    /// How long it took.
    pub seconds: f64,
}

/// Seconds per run, per token, and per token and token of length.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Cost {
    /// `a`.
    pub run: f64,
    /// `b`.
    pub token: f64,
    /// `c`.
    pub square: f64,
}

impl Cost {
    /// Every run takes `seconds`, whatever its shape.
    #[must_use]
    pub fn flat(seconds: f64) -> Self {
        Self { run: seconds, ..Self::default() }
    }

    /// Seconds for a run, for each token, and for each token and token of length.
    #[must_use]
    pub fn parts(&self) -> [f64; 3] {
        [self.run, self.token, self.square]
    }

    /// Seconds that a run of this shape takes.
    #[must_use]
    pub fn of(&self, shape: Shape) -> f64 {
        let [_, tokens, squares] = features(shape);
        self.square.mul_add(squares, self.token.mul_add(tokens, self.run))
    }

    /// Microseconds that a run of this shape takes where runs take `slowdown` times as long as measured.
    #[must_use]
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "no part is negative, and `as` saturates"
    )]
    pub fn micros(&self, shape: Shape, slowdown: f64) -> u64 {
        (self.of(shape) * slowdown * 1e6) as u64
    }

    /// Tokens that cost as much as starting a run: less padding than this per text is worth a run saved.
    #[must_use]
    pub fn tokens_per_run(&self) -> f64 {
        if self.token > 0.0 { self.run / self.token } else { f64::INFINITY }
    }

    /// Most tokens of a run that pay where `most` are allowed: with more, starting the run is so small a part of it that
    /// the texts in it only wait for each other.
    #[must_use]
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "tokens are not negative, and `as` saturates"
    )]
    pub fn paying_tokens(&self, most: usize) -> usize {
        let pay = self.tokens_per_run() * (1.0 / START_SHARE - 1.0);
        (pay as usize).clamp(LEAST_PAYING.min(most), most)
    }

    /// The cost that fits these runs best; nothing if they tell nothing.
    #[must_use]
    pub fn fit(samples: &[Sample]) -> Option<Self> {
        let mut evidence = Evidence::default();
        for &sample in samples {
            evidence.add(sample);
        }
        evidence.cost()
    }
}

/// What measured runs say about the cost, added up: the normal equations of a least squares fit.
#[derive(Debug, Clone, Copy, Default)]
pub struct Evidence {
    products: [[f64; 3]; 3],
    sums: [f64; 3],
}

impl Evidence {
    /// What is known of a cost: runs of it in usual shapes, `weight` of each.
    #[must_use]
    pub fn of(cost: &Cost, weight: f64) -> Self {
        const SHAPES: [(usize, usize); 6] = [(1, 8), (1, 32), (1, 128), (1, 256), (8, 16), (16, 16)];
        let mut evidence = Self::default();
        for (rows, length) in SHAPES {
            let shape = Shape { rows, length };
            evidence.add(Sample { shape, seconds: cost.of(shape) });
        }
        evidence.fade(weight);
        evidence
    }

    /// Adds a run. Errors count relatively: a short run as much as a long one.
    pub fn add(&mut self, sample: Sample) {
        if sample.seconds <= 0.0 {
            return;
        }
        let row = features(sample.shape).map(|feature| feature / sample.seconds);
        for (line, own) in self.products.iter_mut().zip(row) {
            line.iter_mut().zip(row).for_each(|(cell, other)| *cell += own * other);
        }
        self.sums.iter_mut().zip(row).for_each(|(sum, own)| *sum += own);
    }

    /// Makes everything so far count for `factor` of what it did.
    pub fn fade(&mut self, factor: f64) {
        self.products.iter_mut().flatten().chain(&mut self.sums).for_each(|cell| *cell *= factor);
    }

    /// Both together.
    #[must_use]
    pub fn and(mut self, other: &Self) -> Self {
        let cells = self.products.iter_mut().flatten().chain(&mut self.sums);
        cells.zip(other.products.iter().flatten().chain(&other.sums)).for_each(|(cell, more)| *cell += more);
        self
    }

    /// The cost with no negative part whose relative errors have the least sum of squares; nothing without a run.
    ///
    /// With three parts, every choice of parts that are not zero can be tried: the best feasible one is the solution
    /// of the non-negative problem (its Karush-Kuhn-Tucker conditions name one such choice).
    #[must_use]
    pub fn cost(&self) -> Option<Cost> {
        // But for a constant, the sum of squares.
        let error =
            |parts: [f64; 3]| dot(parts, self.products.map(|line| dot(line, parts))) - 2.0 * dot(self.sums, parts);
        let chosen = (1_u8..8).map(|mask| [mask & 1 != 0, mask & 2 != 0, mask & 4 != 0]);
        chosen
            .filter_map(|chosen| self.least_squares(chosen))
            .filter(|parts| parts.iter().all(|&part| part >= 0.0))
            .min_by(|a, b| error(*a).total_cmp(&error(*b)))
            .map(|[run, token, square]| Cost { run, token, square })
    }

    /// The best parts among the chosen; nothing if the runs do not tell them apart.
    #[expect(clippy::indexing_slicing, reason = "every index is below the fixed sizes")]
    fn least_squares(&self, chosen: [bool; 3]) -> Option<[f64; 3]> {
        // Each column scaled to length 1: tokens and their squares differ by orders of magnitude.
        let size: [f64; 3] = std::array::from_fn(|i| self.products[i][i].sqrt());
        if (0..3).any(|i| chosen[i] && size[i] == 0.0) {
            return None;
        }
        let mut matrix = [[0.0; 4]; 3];
        for i in 0..3 {
            matrix[i][i] = 1.0;
            for j in (0..3).filter(|&j| chosen[i] && chosen[j]) {
                matrix[i][j] = self.products[i][j] / (size[i] * size[j]);
            }
            matrix[i][3] = if chosen[i] { self.sums[i] / size[i] } else { 0.0 };
        }
        let solved = solve(matrix)?;
        let parts: [f64; 3] = std::array::from_fn(|i| if chosen[i] { solved[i] / size[i] } else { 0.0 });
        parts.iter().all(|part| part.is_finite()).then_some(parts)
    }
}

/// What the three parts of the cost are multiplied with.
#[expect(clippy::cast_precision_loss, reason = "shapes are small")]
fn features(shape: Shape) -> [f64; 3] {
    let (tokens, length) = (shape.tokens() as f64, shape.length as f64);
    [1.0, tokens, tokens * length]
}

fn dot(a: [f64; 3], b: [f64; 3]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

/// Gauss elimination of three equations whose matrix has ones on its diagonal.
#[expect(clippy::indexing_slicing, reason = "every index is below the fixed sizes")]
fn solve(mut matrix: [[f64; 4]; 3]) -> Option<[f64; 3]> {
    const LEAST_PIVOT: f64 = 1e-9;
    for i in 0..3 {
        let pivot = matrix[i][i];
        if pivot.abs() < LEAST_PIVOT {
            return None;
        }
        for j in (0..3).filter(|&j| j != i) {
            let factor = matrix[j][i] / pivot;
            let line = matrix[i];
            matrix[j].iter_mut().zip(line).for_each(|(cell, above)| *cell -= factor * above);
        }
    }
    Some(std::array::from_fn(|i| matrix[i][3] / matrix[i][i]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SHAPES: [(usize, usize); 8] = [(1, 4), (1, 16), (1, 64), (1, 128), (4, 16), (8, 16), (8, 32), (16, 16)];

    fn samples(cost: Cost, noise: impl Fn(usize) -> f64) -> Vec<Sample> {
        let sample = |(i, &(rows, length)): (usize, &(usize, usize))| {
            let shape = Shape { rows, length };
            Sample { shape, seconds: cost.of(shape) * noise(i) }
        };
        SHAPES.iter().enumerate().map(sample).collect()
    }

    #[test]
    fn a_run_of_several_texts_pays_the_start_once() {
        let cost = Cost { run: 1.0, token: 0.1, square: 0.01 };
        let alone = cost.of(Shape { rows: 1, length: 10 });
        assert!((alone - 3.0).abs() < 1e-9);
        assert!((cost.of(Shape { rows: 4, length: 10 }) - (4.0 * alone - 3.0)).abs() < 1e-9);
        assert!((cost.tokens_per_run() - 10.0).abs() < 1e-9);
    }

    #[test]
    fn runs_are_as_large_as_pays() {
        let cost = |tokens: f64| Cost { run: tokens * 1e-6, token: 1e-6, square: 0.0 };
        assert_eq!(cost(200.0).paying_tokens(16_384), 3_800);
        assert_eq!(cost(1.0).paying_tokens(16_384), LEAST_PAYING);
        assert_eq!(cost(1e6).paying_tokens(16_384), 16_384);
        assert_eq!(Cost::flat(1.0).paying_tokens(256), 256);
    }

    #[test]
    fn a_graph_that_takes_texts_has_no_squares() {
        let samples = [(1, 6e-5), (4, 18e-5), (16, 66e-5)]
            .map(|(rows, seconds)| Sample { shape: Shape { rows, length: 1 }, seconds });
        let cost = Cost::fit(&samples).unwrap();
        assert!((cost.of(Shape { rows: 8, length: 1 }) - 34e-5).abs() < 1e-9, "{cost:?}");
    }

    #[test]
    fn nothing_is_fitted_to_nothing() {
        assert_eq!(Cost::fit(&[]), None);
        let shape = Shape { rows: 1, length: 8 };
        assert_eq!(Cost::fit(&[Sample { shape, seconds: 0.0 }]), None);
        let one = Cost::fit(&[Sample { shape, seconds: 2.0 }]).unwrap();
        assert!((one.of(shape) - 2.0).abs() < 1e-9);
    }

    #[test]
    fn what_is_seen_outweighs_what_was_wrong_at_first() {
        let (wrong, right) =
            (Cost { token: 2e-4, square: 1e-6, ..Cost::default() }, Cost { run: 1e-3, token: 6e-5, square: 0.0 });
        let (before, mut seen) = (Evidence::of(&wrong, 8.0), Evidence::default());
        for run in 0..2_000_usize {
            seen.fade(1.0 - 1.0 / 512.0);
            let shape = Shape { rows: 1, length: 8 + run * 7 % 24 };
            seen.add(Sample { shape, seconds: right.of(shape) });
        }
        let found = before.and(&seen).cost().unwrap();
        assert!((found.run / right.run - 1.0).abs() < 0.3, "{found:?}");
        for length in [8, 16, 31] {
            let shape = Shape { rows: 1, length };
            assert!((found.of(shape) / right.of(shape) - 1.0).abs() < 0.15, "{length}: {found:?}");
        }
        assert!(before.cost().is_some_and(|before| (before.token / wrong.token - 1.0).abs() < 1e-6));
    }

    proptest! {
        /// What was measured exactly is found again; what was measured badly is still no nonsense.
        #[test]
        fn finds_the_cost(run in 0.0..1e-2, token in 1e-6..1e-3, square in 0.0..1e-5, noise in prop::array::uniform8(0.8..1.25)) {
            let cost = Cost { run, token, square };
            let found = Cost::fit(&samples(cost, |_| 1.0)).unwrap();
            let noisy = Cost::fit(&samples(cost, |i| noise[i])).unwrap();
            for (rows, length) in SHAPES {
                let shape = Shape { rows, length };
                prop_assert!((found.of(shape) / cost.of(shape) - 1.0).abs() < 1e-3);
                prop_assert!((0.5..2.0).contains(&(noisy.of(shape) / cost.of(shape))));
            }
            for part in [noisy.run, noisy.token, noisy.square] {
                prop_assert!(part >= 0.0);
            }
        }
    }
}
