//! A profile in the order of its model's labels, and windows judged by it.

use super::counts::Counts;
use super::distance::{self, DRIFT, Distance};
use super::groups::{Groups, Kind};
use super::{Signal, real};

/// Fewest texts that a window is judged with.
pub const LEAST_WINDOW: u64 = 100;

/// Most texts that a window is ever asked to have.
const MOST_NEEDED: u64 = 1_000_000;

/// What live windows are compared with.
#[derive(Debug, Clone)]
pub struct Reference {
    counts: Counts,
    needed: [Option<u64>; 4],
}

impl Reference {
    /// From the counts of its texts. A file's come by [`Profile::reference`](super::Profile::reference), which checks
    /// them.
    #[must_use]
    pub fn new(counts: Counts) -> Self {
        let mut reference = Self { counts, needed: [None; 4] };
        reference.needed = Signal::ALL.map(|signal| reference.find_needed(signal));
        reference
    }

    /// Counts of its own texts.
    #[must_use]
    pub fn counts(&self) -> &Counts {
        &self.counts
    }

    /// Counts of no texts, for windows to compare with it.
    #[must_use]
    pub fn window(&self) -> Counts {
        let mut window = self.counts.clone();
        window.clear();
        window
    }

    /// Texts that a window must have to be judged by this signal; none if no window can be.
    ///
    /// So many that a drift of twice [`DRIFT`] is seen at least half of the time, and at least [`LEAST_WINDOW`].
    #[must_use]
    pub fn needed(&self, signal: Signal) -> Option<u64> {
        let [labels, confidence, lengths, unknown] = self.needed;
        match signal {
            Signal::Labels => labels,
            Signal::Confidence => confidence,
            Signal::Lengths => lengths,
            Signal::Unknown => unknown,
        }
    }

    /// The window in one signal; nothing if it is too small for it, or if the signal is not counted.
    #[must_use]
    pub fn judge(&self, signal: Signal, window: &Counts) -> Option<Distance> {
        if self.needed(signal).is_none_or(|needed| window.texts < needed) {
            return None;
        }
        let (Some((reference, kind)), Some((counted, _))) = (bins(signal, &self.counts), bins(signal, window)) else {
            let (sums, window_sums) = (self.counts.tokens.as_ref()?, window.tokens.as_ref()?);
            return Distance::of_tokens(sums, self.counts.texts, window_sums, window.texts);
        };
        let groups = Groups::new(reference, kind, window.texts);
        Some(Distance::of_bins(&groups.sums(reference), &groups.sums(counted)))
    }

    /// Rare bins stand alone in larger windows, so the need is found by trying, in steps of a twentieth.
    fn find_needed(&self, signal: Signal) -> Option<u64> {
        if self.counts.texts == 0 {
            return None;
        }
        let sizes = std::iter::successors(Some(LEAST_WINDOW), |&size| Some(size + size / 20));
        sizes
            .take_while(|&size| size <= MOST_NEEDED)
            .find(|&size| self.chance(signal, size).is_some_and(|chance| chance <= DRIFT))
    }

    /// What chance asks of a drift in a window of this size beyond [`DRIFT`].
    fn chance(&self, signal: Signal, size: u64) -> Option<f64> {
        if let Some((reference, kind)) = bins(signal, &self.counts) {
            let bins = Groups::new(reference, kind, size).len();
            return Some(distance::excess(bins, size, self.counts.texts));
        }
        let sums = self.counts.tokens.filter(|sums| sums.tokens > 0)?;
        let tokens = real(sums.tokens);
        let expected = tokens * real(size) / real(self.counts.texts);
        Some(distance::token_noise(distance::design_effect(&sums, self.counts.texts), expected, tokens))
    }
}

/// The bins of a signal that has some.
fn bins(signal: Signal, counts: &Counts) -> Option<(&[u64], Kind)> {
    match signal {
        Signal::Labels => Some((&counts.labels, Kind::Named)),
        Signal::Confidence => Some((&counts.confidence, Kind::Ordered)),
        Signal::Lengths => Some((&counts.lengths, Kind::Ordered)),
        Signal::Unknown => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::drift::sampling::Random;

    /// Texts of even labels, the share of `surprising` ones (of 100) all of label 0, unsure and long.
    fn texts(random: &mut Random, labels: u64, texts: u64, surprising: u64) -> Counts {
        let mut counts = Counts::new(usize::try_from(labels).unwrap(), true);
        for _ in 0..texts {
            let odd = random.below(100) < surprising;
            let label = if odd { 0 } else { random.below(labels) };
            let confidence = if odd { 0.3 } else { 0.8 + 0.01 * f32::from(u8::try_from(random.below(20)).unwrap()) };
            let tokens = if odd { 40 } else { 8 + random.below(16) };
            counts.record(usize::try_from(label).ok(), confidence, usize::try_from(tokens).unwrap(), usize::from(odd));
        }
        counts
    }

    #[test]
    fn drift_is_seen_and_chance_is_not() {
        let mut random = Random(3);
        let reference = Reference::new(texts(&mut random, 77, 3_000, 0));
        for _ in 0..100 {
            let calm = texts(&mut random, 77, 1_000, 0);
            for signal in Signal::ALL {
                let found = reference.judge(signal, &calm).unwrap();
                assert!(!found.is_drift() && found.texts == 1_000, "{signal:?} {found:?}");
            }
        }
        let odd = texts(&mut random, 77, 1_000, 40);
        for signal in Signal::ALL {
            let found = reference.judge(signal, &odd).unwrap();
            assert!(found.is_drift() && found.js > distance::js_of_psi(found.noise), "{signal:?} {found:?}");
        }
    }

    #[test]
    fn a_window_needs_the_more_texts_the_more_labels_there_are() {
        let mut random = Random(4);
        let needed: Vec<u64> = [2, 10, 77, 1_000]
            .into_iter()
            .map(|labels| Reference::new(texts(&mut random, labels, 3_000, 0)).needed(Signal::Labels).unwrap())
            .collect();
        assert!(needed.is_sorted() && needed[0] == LEAST_WINDOW && needed[3] < 500, "{needed:?}");
        let reference = Reference::new(texts(&mut random, 77, 3_000, 0));
        assert_eq!(reference.judge(Signal::Labels, &texts(&mut random, 77, LEAST_WINDOW, 0)), None);
        assert!(reference.judge(Signal::Confidence, &texts(&mut random, 77, LEAST_WINDOW, 0)).is_some());
        // The smallest profile is enough for some window.
        let small = Reference::new(texts(&mut random, 77, 200, 0));
        assert!(Signal::ALL.iter().all(|&signal| small.needed(signal).is_some_and(|needed| needed < 1_000)));
    }

    #[test]
    fn what_is_not_counted_is_not_judged() {
        let mut random = Random(5);
        let mut counts = texts(&mut random, 5, 500, 0);
        counts.tokens = None;
        let reference = Reference::new(counts);
        let window = texts(&mut random, 5, 500, 0);
        assert_eq!((reference.needed(Signal::Unknown), reference.judge(Signal::Unknown, &window)), (None, None));
        assert!(Signal::ALL.iter().all(|&signal| Reference::new(Counts::new(5, true)).needed(signal).is_none()));
        assert_eq!(reference.window(), Counts::new(5, false));
    }
}
