//! A profile in the order of its model's labels, and windows judged by it.

use predictd_stats::to_f64;

use super::counts::DistributionCounts;
use super::divergence::{self, DRIFT_THRESHOLD, Divergence};
use super::rare_bins::{BinGroups, BinScale};
use super::signal::DriftSignal;

/// Fewest texts that a window is judged with.
pub(crate) const MIN_WINDOW_TEXTS: u64 = 100;

/// Most texts that a window is ever asked to have.
const MAX_REQUIRED_TEXTS: u64 = 1_000_000;

/// What live windows are compared with.
#[derive(Debug, Clone)]
pub struct Reference {
    /// Counts of its own texts.
    pub(crate) counts: DistributionCounts,
    min_window_texts: [Option<u64>; 4],
}

impl Reference {
    /// From the counts of its texts. A file's come by [`Profile::reference`](super::Profile::reference), which checks
    /// them.
    #[must_use]
    pub fn new(counts: DistributionCounts) -> Self {
        Self { min_window_texts: DriftSignal::ALL.map(|signal| find_min_window_texts(&counts, signal)), counts }
    }

    /// Counts of no texts, for windows to compare with it.
    #[must_use]
    pub fn empty_counts(&self) -> DistributionCounts {
        let mut window = self.counts.clone();
        window.clear();
        window
    }

    /// Texts that a window must have to be judged by this signal; none if no window can be.
    ///
    /// So many that a drift of twice `DRIFT_THRESHOLD` is seen at least half of the time, and at least `MIN_WINDOW_TEXTS`.
    #[must_use]
    pub fn min_window_texts(&self, signal: DriftSignal) -> Option<u64> {
        signal.select(self.min_window_texts)
    }

    /// The window in one signal; nothing if it is too small for it, or if the signal is not counted.
    #[must_use]
    pub fn compare(&self, signal: DriftSignal, window: &DistributionCounts) -> Option<Divergence> {
        if self.min_window_texts(signal).is_none_or(|needed| window.texts < needed) {
            return None;
        }
        let (Some((reference, kind)), Some((counted, _))) =
            (signal_bins(signal, &self.counts), signal_bins(signal, window))
        else {
            let sums = self.counts.tokens.as_ref()?;
            let window_sums = window.tokens.as_ref()?;
            return Divergence::from_tokens(sums, self.counts.texts, window_sums, window.texts);
        };
        let groups = BinGroups::new(reference, kind, window.texts);
        Some(Divergence::from_bins(&groups.merge_counts(reference), &groups.merge_counts(counted)))
    }
}

/// Rare bins stand alone in larger windows, so the need is found by trying, in steps of a twentieth.
fn find_min_window_texts(counts: &DistributionCounts, signal: DriftSignal) -> Option<u64> {
    if counts.texts == 0 {
        return None;
    }
    let sizes = std::iter::successors(Some(MIN_WINDOW_TEXTS), |&size| Some(size + size / 20));
    sizes
        .take_while(|&size| size <= MAX_REQUIRED_TEXTS)
        .find(|&size| noise_at(counts, signal, size).is_some_and(|chance| chance <= DRIFT_THRESHOLD))
}

/// What chance asks of a drift in a window of this size beyond [`DRIFT_THRESHOLD`].
fn noise_at(counts: &DistributionCounts, signal: DriftSignal, size: u64) -> Option<f64> {
    if let Some((reference, kind)) = signal_bins(signal, counts) {
        let bins = BinGroups::new(reference, kind, size).group_count;
        return Some(divergence::psi_noise_excess(bins, size, counts.texts));
    }
    let sums = counts.tokens.filter(|sums| sums.tokens > 0)?;
    let tokens = to_f64(sums.tokens);
    let expected = tokens * to_f64(size) / to_f64(counts.texts);
    Some(divergence::token_noise(divergence::design_effect(&sums, counts.texts), expected, tokens))
}

/// The bins of a signal that has some.
fn signal_bins(signal: DriftSignal, counts: &DistributionCounts) -> Option<(&[u64], BinScale)> {
    match signal {
        DriftSignal::Labels => Some((&counts.labels, BinScale::Nominal)),
        DriftSignal::Confidence => Some((&counts.confidence, BinScale::Ordinal)),
        DriftSignal::Lengths => Some((&counts.lengths, BinScale::Ordinal)),
        DriftSignal::UnknownTokens => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::samples::psi_to_js;
    use predictd_stats::split_mix64::SplitMix64;

    /// Texts of even labels, the share of `surprising` ones (of 100) all of label 0, unsure and long.
    fn random_texts(random: &mut SplitMix64, labels: u64, texts: u64, surprising: u64) -> DistributionCounts {
        let mut counts = DistributionCounts::new(usize::try_from(labels).unwrap(), true);
        for _ in 0..texts {
            let odd = random.next_below(100) < surprising;
            let label = if odd { 0 } else { random.next_below(labels) };
            let confidence =
                if odd { 0.3 } else { 0.8 + 0.01 * f32::from(u8::try_from(random.next_below(20)).unwrap()) };
            let tokens = if odd { 40 } else { 8 + random.next_below(16) };
            counts.record(usize::try_from(label).ok(), confidence, usize::try_from(tokens).unwrap(), usize::from(odd));
        }
        counts
    }

    #[test]
    fn compare_shifted_texts_drift_and_same_do_not() {
        let mut random = SplitMix64(3);
        let reference = Reference::new(random_texts(&mut random, 77, 3_000, 0));
        for _ in 0..100 {
            let calm = random_texts(&mut random, 77, 1_000, 0);
            for signal in DriftSignal::ALL {
                let found = reference.compare(signal, &calm).unwrap();
                assert!(!found.is_drift(), "{signal:?} {found:?}");
            }
        }
        let odd = random_texts(&mut random, 77, 1_000, 40);
        for signal in DriftSignal::ALL {
            let found = reference.compare(signal, &odd).unwrap();
            assert!(found.is_drift() && found.js > psi_to_js(found.noise), "{signal:?} {found:?}");
        }
    }

    #[test]
    fn min_window_texts_more_labels_grows() {
        let mut random = SplitMix64(4);
        let needed: Vec<u64> = [2, 10, 77, 1_000]
            .into_iter()
            .map(|labels| {
                Reference::new(random_texts(&mut random, labels, 3_000, 0))
                    .min_window_texts(DriftSignal::Labels)
                    .unwrap()
            })
            .collect();
        assert!(needed.is_sorted() && needed[0] == MIN_WINDOW_TEXTS && needed[3] < 500, "{needed:?}");
        let reference = Reference::new(random_texts(&mut random, 77, 3_000, 0));
        assert_eq!(reference.compare(DriftSignal::Labels, &random_texts(&mut random, 77, MIN_WINDOW_TEXTS, 0)), None);
        assert!(
            reference.compare(DriftSignal::Confidence, &random_texts(&mut random, 77, MIN_WINDOW_TEXTS, 0)).is_some()
        );
        // The smallest profile is enough for some window.
        let small = Reference::new(random_texts(&mut random, 77, 200, 0));
        assert!(
            DriftSignal::ALL.iter().all(|&signal| small.min_window_texts(signal).is_some_and(|needed| needed < 1_000))
        );
    }

    #[test]
    fn compare_uncounted_signal_is_none() {
        let mut random = SplitMix64(5);
        let mut counts = random_texts(&mut random, 5, 500, 0);
        counts.tokens = None;
        let reference = Reference::new(counts);
        let window = random_texts(&mut random, 5, 500, 0);
        assert_eq!(
            (
                reference.min_window_texts(DriftSignal::UnknownTokens),
                reference.compare(DriftSignal::UnknownTokens, &window)
            ),
            (None, None)
        );
        assert!(
            DriftSignal::ALL
                .iter()
                .all(|&signal| Reference::new(DistributionCounts::new(5, true)).min_window_texts(signal).is_none())
        );
        assert_eq!(reference.empty_counts(), DistributionCounts::new(5, false));
    }
}
