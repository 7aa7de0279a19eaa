//! Whether users are spread over the arms as the weights say. If not, something is broken, and comparing the arms
//! compares different users.
//!
//! Users are counted, not requests: those of one user come together, and a few heavy users would look like a mismatch.

use statrs::function::gamma::ln_gamma;

use super::feedback_counts::to_f64;

/// A chance below which the counts do not fit the weights.
///
/// It is small because a mismatch makes everything else worthless, and because a [full sample](super::user_sample) is a new
/// test as its users are replaced.
const MISMATCH_P_VALUE: f64 = 0.001;

/// Users that the prior is worth: a mismatch of a few points is what it expects. Among concentrations, this one finds
/// the smallest mismatch with 4,096 users at [`MISMATCH_P_VALUE`] (as `Plan::mixture`: 4,096 / (-2 ln α + ln(1 - 2 ln α))).
const PRIOR_CONCENTRATION: f64 = 250.0;

/// The chance that counts as far from the weights as these, or farther, ever come up where users are spread as the
/// weights say; nothing if weights and counts are not one for one, or the weights are no weights.
///
/// 1 / the Bayes factor of any proportions, Dirichlet-distributed around the weights, against the weights: valid at
/// every look at counts that only grow. M. Lindon, A. Malek, "Anytime-valid inference for multinomial count data",
/// `NeurIPS` 2022 (a preprint of 2020).
#[must_use]
pub fn sample_ratio_p_value(counts: &[u64], weights: &[f64]) -> Option<f64> {
    let total: f64 = weights.iter().sum();
    if counts.len() != weights.len() || !weights.iter().all(|&weight| weight >= 0.0) || !total.is_normal() {
        return None;
    }
    let users: f64 = counts.iter().copied().map(to_f64).sum();
    let mut factor = ln_gamma(PRIOR_CONCENTRATION) - ln_gamma(PRIOR_CONCENTRATION + users);
    for (&count, &weight) in counts.iter().zip(weights) {
        let count = to_f64(count);
        let share = weight / total;
        if share > 0.0 {
            let prior = PRIOR_CONCENTRATION * share;
            factor += ln_gamma(prior + count) - ln_gamma(prior) - count * share.ln();
        } else if count > 0.0 {
            // Nobody may be there.
            return Some(0.0);
        }
    }
    Some((-factor).exp().min(1.0))
}

/// The chance as [`sample_ratio_p_value`] gives it, where it is so small that the comparison must not be trusted.
#[must_use]
pub fn sample_ratio_mismatch(counts: &[u64], weights: &[f64]) -> Option<f64> {
    sample_ratio_p_value(counts, weights).filter(|&p| p < MISMATCH_P_VALUE)
}

#[cfg(test)]
#[expect(clippy::cast_precision_loss, reason = "small numbers")]
mod tests {
    use super::*;
    use crate::split_mix64::SplitMix64;

    #[test]
    fn ln_gamma_known_values_match() {
        let mut factorial = 0.0;
        for n in 1..200_u32 {
            factorial += f64::from(n).ln();
            assert!((ln_gamma(f64::from(n) + 1.0) - factorial).abs() < 1e-12 * factorial.max(1.0), "{n}");
        }
        let half_of_ln_pi = std::f64::consts::PI.ln() / 2.0;
        // ln Γ(1/2), ln Γ(1/4), ln Γ(1000.5), ln Γ(1e6) as Python's math.lgamma gives them.
        for (x, known) in [
            (0.5, half_of_ln_pi),
            (0.25, 1.288_022_524_698_077_5),
            (1_000.5, 5_908.674_175_848_678),
            (1e6, 12_815_504.569_147_611),
        ] {
            assert!((ln_gamma(x) - known).abs() < 1e-12 * f64::max(known, 1.0), "{x}: {}", ln_gamma(x));
        }
    }

    /// The part of 1,000 streams of so many users, looked at after every tenth, in which a mismatch is found.
    fn mismatch_share(share: f64, weights: [f64; 2], users: u64) -> f64 {
        let mut random = SplitMix64(3);
        let streams = (0..1_000).filter(|_| {
            let mut counts = [0; 2];
            (1..=users).any(|user| {
                counts[usize::from(random.next_f64() < share)] += 1;
                user % 10 == 0 && sample_ratio_mismatch(&counts, &weights).is_some()
            })
        });
        streams.count() as f64 / 1_000.0
    }

    #[test]
    fn sample_ratio_fair_streams_not_flagged() {
        assert!(mismatch_share(0.5, [1.0, 1.0], 1_000) <= 0.001);
        assert!(mismatch_share(0.1, [0.9, 0.1], 1_000) <= 0.001);
    }

    #[test]
    fn sample_ratio_skewed_counts_flagged() {
        assert!(sample_ratio_mismatch(&[2_253, 1_843], &[0.5, 0.5]).is_some(), "55/45 of 4,096");
        assert!(sample_ratio_mismatch(&[2_048, 2_048], &[2.0, 2.0]).is_none());
        assert!(sample_ratio_mismatch(&[70, 0], &[1.0, 1.0]).is_some(), "everybody in one arm");
        assert!(sample_ratio_mismatch(&[1_000, 1_000, 1_000], &[0.4, 0.3, 0.3]).is_some());
        assert!(mismatch_share(0.6, [1.0, 1.0], 1_500) > 0.99);
    }

    #[test]
    fn sample_ratio_zero_weight_arm_must_be_empty() {
        assert_eq!(sample_ratio_p_value(&[100, 0], &[1.0, 0.0]), Some(1.0));
        assert_eq!(sample_ratio_mismatch(&[100, 1], &[1.0, 0.0]), Some(0.0));
    }

    #[test]
    fn sample_ratio_empty_ok_and_bad_weights_refused() {
        assert_eq!(sample_ratio_p_value(&[0, 0], &[1.0, 2.0]), Some(1.0));
        for weights in [&[1.0][..], &[0.0, 0.0], &[1.0, -1.0], &[1.0, f64::NAN], &[1.0, f64::INFINITY]] {
            assert_eq!(sample_ratio_p_value(&[5, 5], weights), None, "{weights:?}");
        }
    }
}
