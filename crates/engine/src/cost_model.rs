//! What a run costs, by its shape. Pure.
//!
//! A run of `n` rows padded to `L` tokens takes about `a + b·nL + c·nL²` seconds: `a` for starting the graph and reading
//! its weights, `b` for every token, `c` for attention. Fitted to a few runs
//! at load, and to all runs from then on.

use std::array;

use predictd_text::tensors::Shape;

/// Runs of several texts are large enough when starting one is this part of it.
const MAX_OVERHEAD_SHARE: f64 = 0.05;
/// So many tokens always pay.
const MIN_SATURATION_TOKENS: usize = 512;

/// A measured run.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct CostSample {
    /// Its shape.
    pub shape: Shape,
    /// How long it took.
    pub seconds: f64,
}

/// Seconds per run, per token, and per token and token of length.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct CostModel {
    /// `a`.
    pub overhead: f64,
    /// `b`.
    pub per_token: f64,
    /// `c`.
    pub per_token_squared: f64,
}

impl CostModel {
    /// Seconds for a run, for each token, and for each token and token of length.
    #[must_use]
    pub fn coefficients(&self) -> [f64; 3] {
        [self.overhead, self.per_token, self.per_token_squared]
    }

    /// Seconds that a run of this shape takes.
    #[must_use]
    pub fn predict_seconds(&self, shape: Shape) -> f64 {
        let [_, tokens, squares] = features(shape);
        self.per_token_squared.mul_add(squares, self.per_token.mul_add(tokens, self.overhead))
    }

    /// Microseconds that a run of this shape takes where runs take `slowdown` times as long as measured.
    #[must_use]
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "no part is negative, and `as` saturates"
    )]
    pub fn predict_micros(&self, shape: Shape, slowdown: f64) -> u64 {
        (self.predict_seconds(shape) * slowdown * 1e6) as u64
    }

    /// Tokens that cost as much as starting a run: less padding than this per text is worth a run saved.
    #[must_use]
    pub fn overhead_tokens(&self) -> f64 {
        if self.per_token > 0.0 { self.overhead / self.per_token } else { f64::INFINITY }
    }

    /// Most tokens of a run that pay where `most` are allowed: with more, starting the run is so small a part of it that
    /// the texts in it only wait for each other.
    #[must_use]
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "tokens are not negative, and `as` saturates"
    )]
    pub fn saturation_tokens(&self, most: usize) -> usize {
        let pay = self.overhead_tokens() * (1.0 / MAX_OVERHEAD_SHARE - 1.0);
        (pay as usize).clamp(MIN_SATURATION_TOKENS.min(most), most)
    }

    /// The cost that fits these runs best; nothing if they tell nothing.
    #[must_use]
    pub fn fit(samples: &[CostSample]) -> Option<Self> {
        let mut evidence = CostRegression::default();
        for &sample in samples {
            evidence.add(sample);
        }
        evidence.solve()
    }
}

/// What measured runs say about the cost, added up: the normal equations of a least squares fit.
#[derive(Clone, Copy, Default)]
pub struct CostRegression {
    normal_matrix: [[f64; 3]; 3],
    normal_vector: [f64; 3],
}

impl CostRegression {
    /// What is known of a cost: runs of it in usual shapes, `weight` of each.
    #[must_use]
    pub fn from_cost_model(cost: &CostModel, weight: f64) -> Self {
        const PRIOR_SHAPES: [(usize, usize); 6] = [(1, 8), (1, 32), (1, 128), (1, 256), (8, 16), (16, 16)];
        let mut evidence = Self::default();
        for (rows, length) in PRIOR_SHAPES {
            let shape = Shape { rows, length };
            evidence.add(CostSample { shape, seconds: cost.predict_seconds(shape) });
        }
        evidence.scale(weight);
        evidence
    }

    /// Adds a run. Errors count relatively: a short run as much as a long one.
    pub fn add(&mut self, sample: CostSample) {
        if sample.seconds <= 0.0 {
            return;
        }
        let row = features(sample.shape).map(|feature| feature / sample.seconds);
        for (line, own) in self.normal_matrix.iter_mut().zip(row) {
            line.iter_mut().zip(row).for_each(|(cell, other)| *cell += own * other);
        }
        self.normal_vector.iter_mut().zip(row).for_each(|(sum, own)| *sum += own);
    }

    /// Makes everything so far count for `factor` of what it did.
    pub fn scale(&mut self, factor: f64) {
        self.normal_matrix.iter_mut().flatten().chain(&mut self.normal_vector).for_each(|cell| *cell *= factor);
    }

    /// Both together.
    #[must_use]
    pub fn merge(mut self, other: &Self) -> Self {
        let cells = self.normal_matrix.iter_mut().flatten().chain(&mut self.normal_vector);
        cells
            .zip(other.normal_matrix.iter().flatten().chain(&other.normal_vector))
            .for_each(|(cell, more)| *cell += more);
        self
    }

    /// The cost with no negative part whose relative errors have the least sum of squares; nothing without a run.
    ///
    /// With three parts, every choice of parts that are not zero can be tried: the best feasible one is the solution
    /// of the non-negative problem (its Karush-Kuhn-Tucker conditions name one such choice).
    #[must_use]
    pub fn solve(&self) -> Option<CostModel> {
        let chosen = (1_u8..8).map(|mask| [mask & 1 != 0, mask & 2 != 0, mask & 4 != 0]);
        chosen
            .filter_map(|chosen| self.least_squares(chosen))
            .filter(|parts| parts.iter().all(|&part| part >= 0.0))
            .min_by(|a, b| self.squared_error(*a).total_cmp(&self.squared_error(*b)))
            .map(|[run, token, square]| CostModel { overhead: run, per_token: token, per_token_squared: square })
    }

    /// The sum of squares, but for a constant.
    fn squared_error(&self, parts: [f64; 3]) -> f64 {
        dot(parts, self.normal_matrix.map(|line| dot(line, parts))) - 2.0 * dot(self.normal_vector, parts)
    }

    /// The best parts among the chosen; nothing if the runs do not tell them apart.
    #[expect(clippy::indexing_slicing, reason = "every index is below the fixed sizes")]
    fn least_squares(&self, chosen: [bool; 3]) -> Option<[f64; 3]> {
        // Each column scaled to length 1: tokens and their squares differ by orders of magnitude.
        let size: [f64; 3] = array::from_fn(|i| self.normal_matrix[i][i].sqrt());
        if (0..3).any(|i| chosen[i] && size[i] == 0.0) {
            return None;
        }
        let mut matrix = [[0.0; 4]; 3];
        for i in 0..3 {
            matrix[i][i] = 1.0;
            for j in (0..3).filter(|&j| chosen[i] && chosen[j]) {
                matrix[i][j] = self.normal_matrix[i][j] / (size[i] * size[j]);
            }
            matrix[i][3] = if chosen[i] { self.normal_vector[i] / size[i] } else { 0.0 };
        }
        let solved = solve_linear_system(matrix)?;
        let parts: [f64; 3] = array::from_fn(|i| if chosen[i] { solved[i] / size[i] } else { 0.0 });
        parts.iter().all(|part| part.is_finite()).then_some(parts)
    }
}

/// What the three parts of the cost are multiplied with.
#[expect(clippy::cast_precision_loss, reason = "shapes are small")]
fn features(shape: Shape) -> [f64; 3] {
    let tokens = shape.token_count() as f64;
    [1.0, tokens, tokens * shape.length as f64]
}

fn dot(a: [f64; 3], b: [f64; 3]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

/// Gauss elimination of three equations whose matrix has ones on its diagonal.
#[expect(clippy::indexing_slicing, reason = "every index is below the fixed sizes")]
fn solve_linear_system(mut matrix: [[f64; 4]; 3]) -> Option<[f64; 3]> {
    const MIN_PIVOT: f64 = 1e-9;
    for i in 0..3 {
        let pivot = matrix[i][i];
        if pivot.abs() < MIN_PIVOT {
            return None;
        }
        for j in (0..3).filter(|&j| j != i) {
            let factor = matrix[j][i] / pivot;
            let line = matrix[i];
            matrix[j].iter_mut().zip(line).for_each(|(cell, above)| *cell -= factor * above);
        }
    }
    Some(array::from_fn(|i| matrix[i][3] / matrix[i][i]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SAMPLE_SHAPES: [(usize, usize); 8] =
        [(1, 4), (1, 16), (1, 64), (1, 128), (4, 16), (8, 16), (8, 32), (16, 16)];

    fn samples(cost: CostModel, noise: impl Fn(usize) -> f64) -> Vec<CostSample> {
        let sample = |(i, &(rows, length)): (usize, &(usize, usize))| {
            let shape = Shape { rows, length };
            CostSample { shape, seconds: cost.predict_seconds(shape) * noise(i) }
        };
        SAMPLE_SHAPES.iter().enumerate().map(sample).collect()
    }

    #[test]
    fn cost_of_batch_counts_overhead_once() {
        let cost = CostModel { overhead: 1.0, per_token: 0.1, per_token_squared: 0.01 };
        let alone = cost.predict_seconds(Shape { rows: 1, length: 10 });
        assert!((alone - 3.0).abs() < 1e-9);
        assert!((cost.predict_seconds(Shape { rows: 4, length: 10 }) - (4.0 * alone - 3.0)).abs() < 1e-9);
        assert!((cost.overhead_tokens() - 10.0).abs() < 1e-9);
    }

    fn model_with_overhead(tokens: f64) -> CostModel {
        CostModel { overhead: tokens * 1e-6, per_token: 1e-6, per_token_squared: 0.0 }
    }

    #[test]
    fn saturation_tokens_clamped_to_limits() {
        assert_eq!(model_with_overhead(200.0).saturation_tokens(16_384), 3_800);
        assert_eq!(model_with_overhead(1.0).saturation_tokens(16_384), MIN_SATURATION_TOKENS);
        assert_eq!(model_with_overhead(1e6).saturation_tokens(16_384), 16_384);
        assert_eq!(CostModel { overhead: 1.0, ..CostModel::default() }.saturation_tokens(256), 256);
    }

    #[test]
    fn fit_of_text_graph_has_no_squared_term() {
        let samples = [(1, 6e-5), (4, 18e-5), (16, 66e-5)]
            .map(|(rows, seconds)| CostSample { shape: Shape { rows, length: 1 }, seconds });
        let cost = CostModel::fit(&samples).unwrap();
        assert!((cost.predict_seconds(Shape { rows: 8, length: 1 }) - 34e-5).abs() < 1e-9, "{cost:?}");
    }

    #[test]
    fn fit_without_samples_returns_none() {
        assert_eq!(CostModel::fit(&[]), None);
        let shape = Shape { rows: 1, length: 8 };
        assert_eq!(CostModel::fit(&[CostSample { shape, seconds: 0.0 }]), None);
        let one = CostModel::fit(&[CostSample { shape, seconds: 2.0 }]).unwrap();
        assert!((one.predict_seconds(shape) - 2.0).abs() < 1e-9);
    }

    #[test]
    fn regression_observations_outweigh_wrong_prior() {
        let wrong = CostModel { per_token: 2e-4, per_token_squared: 1e-6, ..CostModel::default() };
        let right = CostModel { overhead: 1e-3, per_token: 6e-5, per_token_squared: 0.0 };
        let before = CostRegression::from_cost_model(&wrong, 8.0);
        let mut seen = CostRegression::default();
        for run in 0..2_000_usize {
            seen.scale(1.0 - 1.0 / 512.0);
            let shape = Shape { rows: 1, length: 8 + run * 7 % 24 };
            seen.add(CostSample { shape, seconds: right.predict_seconds(shape) });
        }
        let fitted = before.merge(&seen).solve().unwrap();
        assert!((fitted.overhead / right.overhead - 1.0).abs() < 0.3, "{fitted:?}");
        for length in [8, 16, 31] {
            let shape = Shape { rows: 1, length };
            assert!(
                (fitted.predict_seconds(shape) / right.predict_seconds(shape) - 1.0).abs() < 0.15,
                "{length}: {fitted:?}"
            );
        }
        assert!(before.solve().is_some_and(|before| (before.per_token / wrong.per_token - 1.0).abs() < 1e-6));
    }

    proptest! {
        /// What was measured exactly is found again; what was measured badly is still no nonsense.
        #[test]
        fn fit_of_exact_samples_recovers_cost_model(run in 0.0..1e-2, token in 1e-6..1e-3, square in 0.0..1e-5, noise in prop::array::uniform8(0.8..1.25)) {
            let cost = CostModel { overhead: run, per_token: token, per_token_squared: square };
            let fitted = CostModel::fit(&samples(cost, |_| 1.0)).unwrap();
            let noisy = CostModel::fit(&samples(cost, |i| noise[i])).unwrap();
            for (rows, length) in SAMPLE_SHAPES {
                let shape = Shape { rows, length };
                prop_assert!((fitted.predict_seconds(shape) / cost.predict_seconds(shape) - 1.0).abs() < 1e-3);
                prop_assert!((0.5..2.0).contains(&(noisy.predict_seconds(shape) / cost.predict_seconds(shape))));
            }
            for part in [noisy.overhead, noisy.per_token, noisy.per_token_squared] {
                prop_assert!(part >= 0.0);
            }
        }
    }
}
