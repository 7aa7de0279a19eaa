//! How sure a proportion is.

use super::feedback_counts::{FeedbackCounts, to_f64};

/// What holds a true value; both ends are fractions, or differences of fractions.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ConfidenceInterval {
    /// Lower end.
    pub low: f64,
    /// Upper end.
    pub high: f64,
}

/// Standard errors either side that hold 95 % of a normal distribution.
pub const Z_SCORE_95: f64 = 1.959_964;

/// Wilson's score interval of a proportion; 0 to 1 if there is nothing to count.
///
/// It stays within 0 and 1 and has a width even where all or none are right. Meant for one look, unlike
/// [`compare`](super::difference::compare_accuracies). E. B. Wilson, "Probable inference, the law of succession, and statistical
/// inference", 1927.
#[must_use]
pub fn wilson_interval(correct: u64, answers: u64, z: f64) -> ConfidenceInterval {
    let Some(share) = (FeedbackCounts { correct, answers }).accuracy() else {
        return ConfidenceInterval { low: 0.0, high: 1.0 };
    };
    let n = to_f64(answers);
    let shrunk = 1.0 + z * z / n;
    let middle = (share + z * z / (2.0 * n)) / shrunk;
    let half = z / shrunk * (share * (1.0 - share) / n + z * z / (4.0 * n * n)).sqrt();
    ConfidenceInterval { low: (middle - half).max(0.0), high: (middle + half).min(1.0) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wilson_interval_published_values_match() {
        // R. G. Newcombe, "Two-sided confidence intervals for the single proportion", 1998, table I.
        for (correct, answers, low, high) in
            [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718)]
        {
            let found = wilson_interval(correct, answers, Z_SCORE_95);
            assert!((found.low - low).abs() < 6e-5 && (found.high - high).abs() < 6e-5, "{found:?}");
        }
    }

    #[test]
    fn wilson_interval_edge_inputs_stay_in_bounds() {
        assert_eq!(wilson_interval(0, 0, Z_SCORE_95), ConfidenceInterval { low: 0.0, high: 1.0 });
        let all = wilson_interval(9, 3, Z_SCORE_95);
        assert!(all.low > 0.4 && all.high <= 1.0, "{all:?}");
    }
}
