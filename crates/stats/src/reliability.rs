//! Whether a model knows how often it is right: its confidence against its accuracy.

use super::feedback_counts::to_f64;
use super::interval::ConfidenceInterval;

/// Bins of equal width.
const BIN_COUNT: usize = 15;

/// Answers of similar confidence.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct ReliabilityBin {
    /// How many.
    pub count: u64,
    /// Their confidences (0 to 1) added up.
    pub confidence: f64,
    /// How many were right.
    pub correct: u64,
}

/// Answers by their confidence.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct ReliabilityDiagram([ReliabilityBin; BIN_COUNT]);

/// The bin of a confidence: floor(15 · confidence), the last one for 1; a bin holds its lower end.
#[must_use]
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::cast_precision_loss,
    reason = "`as` saturates, and there are 15"
)]
pub fn bin_index(confidence: f64) -> usize {
    ((confidence * BIN_COUNT as f64) as usize).min(BIN_COUNT - 1)
}

impl ReliabilityDiagram {
    /// From sums of answers in bins as [`bin_index`] numbers them; several of the same bin add up. Nothing if there is no
    /// such bin or a sum is no sum of confidences.
    pub fn from_sums(sums: impl IntoIterator<Item = (usize, ReliabilityBin)>) -> Option<Self> {
        let mut bins = Self::default();
        for (number, more) in sums {
            let most = to_f64(more.count) * (1.0 + 1e-6);
            if !(0.0..=most).contains(&more.confidence) || more.correct > more.count {
                return None;
            }
            let bin = bins.0.get_mut(number)?;
            bin.count += more.count;
            bin.confidence += more.confidence;
            bin.correct += more.correct;
        }
        Some(bins)
    }

    /// Every bin with the confidences that belong there: what a reliability diagram shows.
    pub fn iter(&self) -> impl Iterator<Item = (ConfidenceInterval, ReliabilityBin)> {
        self.0.iter().enumerate().map(|(index, &bin)| {
            let [low, high] = [index, index + 1].map(|edge| to_f64(edge as u64) / to_f64(BIN_COUNT as u64));
            (ConfidenceInterval { low, high }, bin)
        })
    }

    /// Expected calibration error, a fraction: how far confidence and accuracy are apart, on average over all answers.
    ///
    /// M. P. Naeini, G. F. Cooper, M. Hauskrecht, "Obtaining well calibrated probabilities using Bayesian binning",
    /// AAAI 2015; 15 bins as in C. Guo, G. Pleiss, Y. Sun, K. Q. Weinberger, "On calibration of modern neural
    /// networks", ICML 2017, equation (3). With few answers it is too large: chance alone moves a bin's accuracy.
    #[must_use]
    pub fn expected_calibration_error(&self) -> Option<f64> {
        let answers: u64 = self.0.iter().map(|bin| bin.count).sum();
        let apart: f64 = self.0.iter().map(|bin| (bin.confidence - to_f64(bin.correct)).abs()).sum();
        (answers > 0).then(|| apart / to_f64(answers))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// From answers: the confidence of each, and whether it was right.
    fn diagram(answers: impl IntoIterator<Item = (f64, bool)>) -> ReliabilityDiagram {
        let bins = answers.into_iter().map(|(confidence, correct)| {
            (bin_index(confidence), ReliabilityBin { count: 1, confidence, correct: correct.into() })
        });
        ReliabilityDiagram::from_sums(bins).unwrap()
    }

    #[test]
    fn calibration_error_hand_computed_matches() {
        assert_eq!(ReliabilityDiagram::default().expected_calibration_error(), None);
        let bins = diagram([(0.95, true), (0.97, false), (0.55, true), (0.55, false)]);
        // Two answers of 0.96 on average, half right, and two of 0.55, half right.
        let ece = bins.expected_calibration_error().unwrap();
        assert!((ece - 0.255).abs() < 1e-12, "{ece}");
    }

    #[test]
    fn calibration_error_calibrated_model_is_zero() {
        let bins = diagram((0..1_000).map(|answer| (0.9, answer % 10 != 0)));
        assert!(bins.expected_calibration_error().unwrap() < 1e-9);
    }

    #[test]
    fn bin_index_bounds_include_lower_end() {
        for (confidence, bin) in [(0.0, 0), (0.066, 0), (1.0 / 15.0, 1), (0.5, 7), (0.999, 14), (1.0, 14), (2.0, 14)] {
            assert_eq!(bin_index(confidence), bin, "{confidence}");
        }
        let bins = diagram([(0.0, true), (1.0, true)]);
        let counts: Vec<u64> = bins.iter().map(|(_, bin)| bin.count).collect();
        assert_eq!((counts[0], counts[14], counts.iter().sum()), (1, 1, 2));
        assert!(bins.iter().last().is_some_and(|(ends, _)| (ends.high - 1.0).abs() < 1e-12));
    }

    #[test]
    fn from_sums_valid_equal_and_invalid_refused() {
        let bins = diagram([(0.1, false), (0.4, false), (0.41, true), (1.0, true)]);
        let sums: Vec<_> = bins.iter().enumerate().map(|(number, (_, bin))| (number, bin)).collect();
        assert_eq!(ReliabilityDiagram::from_sums(sums.clone()), Some(bins));
        assert_eq!(
            ReliabilityDiagram::from_sums([sums.clone(), sums].concat())
                .and_then(|twice| twice.expected_calibration_error()),
            bins.expected_calibration_error()
        );
        let bin = ReliabilityBin { count: 2, confidence: 1.5, correct: 1 };
        for (number, bad) in [
            (BIN_COUNT, bin),
            (0, ReliabilityBin { correct: 3, ..bin }),
            (0, ReliabilityBin { confidence: 2.1, ..bin }),
            (0, ReliabilityBin { confidence: f64::NAN, ..bin }),
        ] {
            assert_eq!(ReliabilityDiagram::from_sums([(number, bad)]), None);
        }
    }
}
