//! How far two spreads are apart, and how far chance alone puts them.
//!
//! - PSI, the population stability index: `Σ (pᵢ − qᵢ) ln(pᵢ / qᵢ)`, which is Jeffreys' divergence (Jeffreys, 1946; as
//!   PSI in Siddiqi, "Credit Risk Scorecards", 2006, with 0.1 and 0.2 as the usual limits)
//! - Jensen-Shannon divergence to base 2 (Lin, 1991): 0 to 1, also where a bin is empty
//! - chance: without drift, PSI is about `χ²(k−1) · (1/n + 1/m)` for a window of `n`, a reference of `m` and `k` bins
//!   (Yurdakul, "Statistical Properties of Population Stability Index", 2018); Jensen-Shannon is `8 ln 2` times less
//! - shares of tokens: Cohen's `h = 2 asin √p − 2 asin √q` (Cohen, "Statistical Power Analysis", 1988), whose chance
//!   hardly depends on the share
//!
//! PSI needs a share above 0 in every bin. Half a text is added to each bin of the smaller of both, and the same share
//! to each bin of the other. A half takes the first-order bias from the logarithm of a count (Haldane, 1955; Anscombe,
//! 1956); less would make an empty bin an alarm, more would hide one. The same share on both sides keeps PSI 0 where
//! shares are equal.

use statrs::distribution::{ChiSquared, ContinuousCDF};

use predictd_stats::to_f64;

use super::counts::{TokenSums, sum_counts};

/// PSI from which two spreads are usually called different; the same for Cohen's h, whose "small" it is.
pub(crate) const DRIFT_THRESHOLD: f64 = 0.2;

/// Part of [`DRIFT_THRESHOLD`] that a signal must fall below before it counts as gone.
const CLEAR_FACTOR: f64 = 0.5;

/// Part of the windows in which chance alone stays below the noise.
const NOISE_QUANTILE: f64 = 0.999;

/// Standard deviations that a normal variable is away in one of 1,000 cases, on either side.
const TWO_SIDED_Z_SCORE: f64 = 3.290_527;

/// Texts added to each bin.
const SMOOTHING_TEXTS: f64 = 0.5;

/// A window compared with its reference in one signal.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Divergence {
    /// What is judged: PSI; for unknown tokens Cohen's h, never negative.
    pub value: f64,
    /// PSI, 0 and up.
    pub psi: f64,
    /// Jensen-Shannon divergence, 0 to 1.
    pub js: f64,
    /// What chance alone keeps `value` below in 999 of 1,000 windows.
    pub noise: f64,
}

impl Divergence {
    /// `value` from which the signal drifts.
    #[must_use]
    pub fn threshold(&self) -> f64 {
        DRIFT_THRESHOLD + self.noise
    }

    /// `value` below which a window counts as calm.
    #[must_use]
    pub fn clear_threshold(&self) -> f64 {
        DRIFT_THRESHOLD.mul_add(CLEAR_FACTOR, self.noise)
    }

    /// True if the window differs by more than chance and what is usual.
    pub(crate) fn is_drift(&self) -> bool {
        self.value >= self.threshold()
    }

    /// Two spreads over the same bins.
    pub(crate) fn from_bins(reference: &[u64], window: &[u64]) -> Self {
        let psi = psi(reference, window);
        let noise = psi_noise(reference.len(), sum_counts(window), sum_counts(reference));
        Self { value: psi, psi, js: jensen_shannon(reference, window), noise }
    }

    /// Shares of unknown tokens in `texts` and `reference_texts`; nothing if one side has no tokens.
    pub(crate) fn from_tokens(
        reference: &TokenSums,
        reference_texts: u64,
        window: &TokenSums,
        texts: u64,
    ) -> Option<Self> {
        if reference.tokens == 0 || window.tokens == 0 {
            return None;
        }
        let value = cohen_h(unknown_share(reference), unknown_share(window)).abs();
        let q = unknown_bins(reference);
        let p = unknown_bins(window);
        // A cluster that one side happens to lack may come on either.
        let effect = design_effect(reference, reference_texts).max(design_effect(window, texts));
        let noise = token_noise(effect, to_f64(window.tokens), to_f64(reference.tokens));
        Some(Self { value, psi: psi(&q, &p), js: jensen_shannon(&q, &p), noise })
    }
}

/// Population stability index of two lists of counts over the same bins, smoothed: 0 and up.
fn psi(reference: &[u64], window: &[u64]) -> f64 {
    let m = to_f64(sum_counts(reference));
    let n = to_f64(sum_counts(window));
    if m == 0.0 || n == 0.0 {
        return 0.0;
    }
    let least = SMOOTHING_TEXTS / m.min(n);
    let whole = least.mul_add(to_f64(reference.len() as u64), 1.0);
    let term = |(&r, &w): (&u64, &u64)| {
        let q = (to_f64(r) / m + least) / whole;
        let p = (to_f64(w) / n + least) / whole;
        (p - q) * (p / q).ln()
    };
    reference.iter().zip(window).map(term).sum()
}

/// Jensen-Shannon divergence to base 2 of two lists of counts over the same bins: 0 to 1.
fn jensen_shannon(reference: &[u64], window: &[u64]) -> f64 {
    let m = to_f64(sum_counts(reference));
    let n = to_f64(sum_counts(window));
    if m == 0.0 || n == 0.0 {
        return 0.0;
    }
    let term = |(&r, &w): (&u64, &u64)| {
        let q = to_f64(r) / m;
        let p = to_f64(w) / n;
        let middle = f64::midpoint(p, q);
        f64::midpoint(relative_entropy_term(p, middle), relative_entropy_term(q, middle))
    };
    // Rounding must not leave the range.
    reference.iter().zip(window).map(term).sum::<f64>().clamp(0.0, 1.0)
}

/// The part of a bin in the relative entropy of two distributions, in bits.
fn relative_entropy_term(share: f64, reference: f64) -> f64 {
    if share > 0.0 { share * (share / reference).log2() } else { 0.0 }
}

/// PSI that chance alone stays below in 999 of 1,000 windows of `n` texts against a reference of `m`.
fn psi_noise(bins: usize, n: u64, m: u64) -> f64 {
    if n == 0 || m == 0 {
        return 0.0;
    }
    chi_square_quantile(to_f64(bins.saturating_sub(1) as u64)) * (1.0 / to_f64(n) + 1.0 / to_f64(m))
}

/// The part of [`psi_noise`] above its mean: a drift must be larger than [`DRIFT_THRESHOLD`] by this to be seen half of the time.
pub(crate) fn psi_noise_excess(bins: usize, n: u64, m: u64) -> f64 {
    let mean = to_f64(bins.saturating_sub(1) as u64) * (1.0 / to_f64(n.max(1)) + 1.0 / to_f64(m.max(1)));
    (psi_noise(bins, n, m) - mean).max(0.0)
}

/// The value that a chi-square variable stays below in 999 of 1,000 cases; 0 without degrees of freedom.
fn chi_square_quantile(degrees: f64) -> f64 {
    ChiSquared::new(degrees).map_or(0.0, |distribution| distribution.inverse_cdf(NOISE_QUANTILE))
}

/// Cohen's h of two shares: positive if the second is larger, -π to π.
fn cohen_h(reference: f64, window: f64) -> f64 {
    2.0 * (window.sqrt().asin() - reference.sqrt().asin())
}

/// Cohen's h that chance alone stays below, with so many tokens on each side, of which `effect` tell as much as one.
pub(crate) fn token_noise(effect: f64, n: f64, m: f64) -> f64 {
    TWO_SIDED_Z_SCORE * (effect * (1.0 / n + 1.0 / m)).sqrt()
}

/// How many tokens tell as much as one that is unknown independently of all others (Kish's design effect, at least 1).
///
/// The variance of the share is that of a ratio of two sums over texts (Cochran, "Sampling Techniques", 1977, 2.11).
pub(crate) fn design_effect(sums: &TokenSums, texts: u64) -> f64 {
    let share = unknown_share(sums);
    let spread = share * (1.0 - share);
    if spread <= 0.0 || texts < 2 {
        return 1.0;
    }
    let squares = share.mul_add(
        share.mul_add(to_f64(sums.tokens_squared), -2.0 * to_f64(sums.tokens_by_unknown)),
        to_f64(sums.unknown_squared),
    );
    let tokens = to_f64(sums.tokens);
    let variance = squares / (tokens * tokens) * to_f64(texts) / to_f64(texts - 1);
    (variance * tokens / spread).max(1.0)
}

/// Unknown tokens and known ones.
fn unknown_bins(sums: &TokenSums) -> [u64; 2] {
    [sums.unknown, sums.tokens.saturating_sub(sums.unknown)]
}

/// Share of unknown tokens; 0 if there are no tokens.
fn unknown_share(sums: &TokenSums) -> f64 {
    if sums.tokens == 0 { 0.0 } else { (to_f64(sums.unknown) / to_f64(sums.tokens)).min(1.0) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::samples::{psi_to_js, sample_bins, weighted_bins};
    use predictd_stats::split_mix64::SplitMix64;

    fn is_close(a: f64, b: f64) -> bool {
        (a - b).abs() < 1e-6
    }

    #[test]
    fn psi_and_js_hand_computed_match() {
        // 50.5/101, 50.5/101 against 80.5/101, 20.5/101.
        assert!(is_close(psi(&[50, 50], &[80, 20]), 30.0 / 101.0 * (80.5_f64 / 20.5).ln()));
        assert!(is_close(psi(&[50, 50], &[80, 20]), 0.406_287), "{}", psi(&[50, 50], &[80, 20]));
        // An empty bin: 0.5/101 against 10.5/101, and 100.5/101 against 90.5/101.
        assert!(is_close(psi(&[10, 90], &[0, 100]), 0.311_815), "{}", psi(&[10, 90], &[0, 100]));
        // H(3/4, 1/4) - 1/2: a certain spread against an even one.
        assert!(is_close(jensen_shannon(&[10, 0], &[10, 10]), 0.311_278));
        assert!(is_close(jensen_shannon(&[10, 0], &[0, 7]), 1.0));
        assert!(is_close(cohen_h(0.0, 0.01), 0.200_335) && is_close(cohen_h(0.2, 0.1), -0.283_794));
    }

    #[test]
    fn divergence_equal_shares_is_zero() {
        let few = [3, 0, 7, 10];
        let many = [300, 0, 700, 1_000];
        assert!(psi(&few, &many).abs() < 1e-12 && jensen_shannon(&few, &many).abs() < 1e-12);
        assert!(psi(&[], &[]) == 0.0 && psi(&[0, 0], &[1, 2]) == 0.0 && jensen_shannon(&[1, 2], &[0, 0]) == 0.0);
    }

    fn draw_counts(random: &mut SplitMix64) -> Vec<u64> {
        (0..6).map(|_| random.next_below(50).saturating_sub(20)).chain([1]).collect()
    }

    #[test]
    fn divergence_random_counts_symmetric_and_bounded() {
        let mut random = SplitMix64(1);
        for _ in 0..500 {
            let a = draw_counts(&mut random);
            let b = draw_counts(&mut random);
            assert!(
                (jensen_shannon(&a, &b) - jensen_shannon(&b, &a)).abs() < 1e-12
                    && (psi(&a, &b) - psi(&b, &a)).abs() < 1e-9
            );
            assert!((0.0..=1.0).contains(&jensen_shannon(&a, &b)) && psi(&a, &b) >= 0.0, "{a:?} {b:?}");
        }
        // Near 0 one is a multiple of the other.
        let a = [10_000, 20_000, 30_000];
        let b = [10_200, 19_900, 29_900];
        assert!((psi_to_js(psi(&a, &b)) / jensen_shannon(&a, &b) - 1.0).abs() < 0.01);
    }

    #[test]
    fn chi_square_quantile_table_values_match() {
        for (degrees, expected) in [(1.0, 10.828), (2.0, 13.816), (10.0, 29.588), (30.0, 59.703), (76.0, 119.85)] {
            let found = chi_square_quantile(degrees);
            assert!((found / expected - 1.0_f64).abs() < 1e-4, "{degrees}: {found} for {expected}");
        }
        assert!(chi_square_quantile(0.0) == 0.0);
    }

    /// How often PSI of two samples of the same spread is above what chance should give.
    fn noise_exceeded_count(weights: &[u64], n: u64, m: u64, runs: u32) -> u32 {
        use crate::rare_bins::{BinGroups, BinScale};
        let mut random = SplitMix64(7);
        let urn = weighted_bins(weights);
        let run = |_: u32| {
            let reference = sample_bins(&mut random, &urn, weights.len(), m);
            let window = sample_bins(&mut random, &urn, weights.len(), n);
            let kind = if weights.len() > 20 { BinScale::Nominal } else { BinScale::Ordinal };
            let groups = BinGroups::new(&reference, kind, n);
            let found = Divergence::from_bins(&groups.merge_counts(&reference), &groups.merge_counts(&window));
            u32::from(found.value > found.noise)
        };
        (0..runs).map(run).sum()
    }

    #[test]
    fn noise_same_distribution_rarely_exceeded() {
        // About one of 1,000 is promised, and up to two are had where the reference is as small as the window.
        let seldom: Vec<u64> = (1..=200).map(|i| 400 / i).collect();
        let sure = [1, 1, 2, 2, 3, 5, 8, 13, 21, 900];
        for (weights, n, m) in [
            (&[1; 40][..], 200, 400),
            (&[1; 10], 200, 200),
            (&[90, 9, 1], 200, 900),
            (&seldom, 200, 200),
            (&sure, 200, 500),
        ] {
            let found = noise_exceeded_count(weights, n, m, 2_000);
            assert!(found <= 10, "{found} of 2,000 for {weights:?}, {n}, {m}");
        }
        // And the bound is not simply far too high.
        assert!(noise_exceeded_count(&[1; 10], 200, 400, 4_000) >= 1);
    }

    fn token_sums(texts: &[(usize, usize)]) -> (TokenSums, u64) {
        let mut counts = crate::DistributionCounts::new(1, true);
        for &(tokens, unknown) in texts {
            counts.record(None, 0.5, tokens, unknown);
        }
        (counts.tokens.unwrap(), counts.texts())
    }

    #[test]
    fn unknown_tokens_clustered_raise_noise() {
        let (clean, texts) = token_sums(&[(13, 0); 1_000]);
        let mut garbage = vec![(13, 0); 999];
        garbage.push((200, 200));
        let (garbage, _) = token_sums(&garbage);
        // One text of nothing but unknown tokens: 1.5 % of all tokens, and no drift.
        let found = Divergence::from_tokens(&clean, texts, &garbage, texts).unwrap();
        assert!(found.value > DRIFT_THRESHOLD && !found.is_drift(), "{found:?}");
        // The same share in texts of all kinds is one.
        let (spread, _) = token_sums(&(0..1_000).map(|i| (13, usize::from(i % 4 == 0))).collect::<Vec<_>>());
        let found = Divergence::from_tokens(&clean, texts, &spread, texts).unwrap();
        assert!(found.is_drift() && found.noise < 0.05, "{found:?}");
        assert!(design_effect(&garbage, texts) > 100.0 && (design_effect(&spread, texts) - 1.0).abs() < 0.01);
        let same = Divergence::from_tokens(&spread, texts, &spread, texts).unwrap();
        assert!(same.value < 1e-12 && same.psi < 1e-12 && same.js < 1e-12);
        assert_eq!(Divergence::from_tokens(&clean, texts, &TokenSums::default(), 0), None);
    }
}
