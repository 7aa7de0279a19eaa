//! Samples that are the same in every run of the tests.

use predictd_stats::split_mix64::SplitMix64;

/// Draws texts from an urn of [`weighted_bins`], and counts them by bin.
pub(crate) fn sample_bins(random: &mut SplitMix64, urn: &[usize], bins: usize, texts: u64) -> Vec<u64> {
    let mut counts = vec![0; bins];
    (0..texts).for_each(|_| counts[urn[random.next_index(urn.len())]] += 1);
    counts
}

/// An urn with each bin as often as its weight.
pub(crate) fn weighted_bins(weights: &[u64]) -> Vec<usize> {
    let mut urn = Vec::new();
    for (bin, &weight) in weights.iter().enumerate() {
        urn.extend(std::iter::repeat_n(bin, usize::try_from(weight).unwrap()));
    }
    urn
}

/// Jensen-Shannon divergence that corresponds to a small PSI: their ratio where they tend to 0.
pub(crate) fn psi_to_js(psi: f64) -> f64 {
    psi / (8.0 * std::f64::consts::LN_2)
}
