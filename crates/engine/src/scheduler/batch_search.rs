//! Which texts of similar length are worth running beside one that must run. Pure.
//!
//! Padding is what makes naive batches slower than none: every text costs as much as the longest of its run. The window
//! is the stretch of the waiting texts in order of length, around the one that must run (the anchor), that does the
//! most work per second: the cost of its texts alone over the cost of the run.

use predictd_stats::to_f64;
use predictd_text::tensors::Shape;

use super::micros::Micros;
use crate::cost_model::CostModel;

/// Texts looked at on either side of the anchor on cores: more of them hardly ever fit a run there.
pub const CPU_SEARCH_RADIUS: usize = 64;
/// Least gain for which texts are run together: below it they only wait for each other.
const MIN_BATCHING_GAIN: f64 = 1.03;

/// What a run may be at most. An anchor that is larger runs alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BatchLimits {
    /// Texts.
    pub max_rows: usize,
    /// Tokens, padding included.
    pub max_tokens: usize,
    /// Predicted time.
    pub max_time: Micros,
    /// Texts looked at on either side of the anchor.
    pub search_radius: usize,
}

/// A waiting text, as far as the window goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Candidate {
    /// Its tokens, with the padding that it has in a run of its own.
    pub length: usize,
    /// Predicted time of a run of its own.
    pub unbatched_time: Micros,
    /// When its caller stops waiting.
    pub deadline: Micros,
}

impl Candidate {
    /// True if both cost the same, alone and in a run.
    fn is_like(&self, other: &Self) -> bool {
        (self.length, self.unbatched_time) == (other.length, other.unbatched_time)
    }
}

/// What the window must fit.
#[derive(Clone, Copy)]
pub struct BatchContext<'a> {
    /// The time.
    pub now: Micros,
    /// What a run costs.
    pub cost_model: &'a CostModel,
    /// What runs took of late, over what they were predicted to take.
    pub slowdown: f64,
    /// What a run may be at most.
    pub limits: BatchLimits,
}

/// How many of the `shorter` and of the `longer` texts, each nearest to the anchor first, run beside it.
///
/// Not every window needs a look. While texts of one length and one cost are added, the gain is a ratio of two linear
/// functions of their number, so that it only rises or only falls; and among windows of the most texts that fit, of the
/// same longest one, it is linear itself. So the best window ends where such a row of texts ends, on one side at least, and
/// on the other where one ends or where nothing more fits. A row also ends before a text that is in more of a hurry: what
/// fits changes there.
#[must_use]
pub fn find_best_batch(
    anchor: Candidate,
    shorter: &[Candidate],
    longer: &[Candidate],
    fit: &BatchContext<'_>,
) -> (usize, usize) {
    let shorter = NeighbourSums::from_candidates(shorter);
    let longer = NeighbourSums::from_candidates(longer);
    let mut search = BatchSearch {
        anchor,
        shorter: &shorter,
        longer: &longer,
        context: fit,
        best_batch: (0, 0),
        best_gain: MIN_BATCHING_GAIN,
    };
    if !search.is_within_limits(0, 0) {
        return (0, 0);
    }
    // What fits beside more texts fits beside fewer: the other side only shrinks.
    let mut most_down = shorter.count();
    for &up in &longer.group_ends {
        while most_down > 0 && !search.is_within_limits(most_down, up) {
            most_down -= 1;
        }
        if !search.is_within_limits(most_down, up) {
            break;
        }
        shorter.group_ends.iter().take_while(|&&down| down < most_down).for_each(|&down| search.consider(down, up));
        search.consider(most_down, up);
    }
    let mut most_up = longer.count();
    for &down in &shorter.group_ends {
        while most_up > 0 && !search.is_within_limits(down, most_up) {
            most_up -= 1;
        }
        if !search.is_within_limits(down, most_up) {
            break;
        }
        search.consider(down, most_up);
    }
    search.best_batch
}

/// The texts on one side of the anchor.
struct NeighbourSums {
    /// What the first none, one, two and so on of them come to.
    prefix_sums: Vec<Candidate>,
    /// Those numbers of them with which a row of like texts ends, and none.
    group_ends: Vec<usize>,
}

impl NeighbourSums {
    fn from_candidates(texts: &[Candidate]) -> Self {
        let mut sum = Candidate { length: 0, unbatched_time: 0, deadline: Micros::MAX };
        let mut prefix_sums = Vec::with_capacity(texts.len() + 1);
        let mut group_ends = vec![0];
        prefix_sums.push(sum);
        let mut last: Option<&Candidate> = None;
        for (number, text) in texts.iter().enumerate() {
            if last.is_some_and(|last| !text.is_like(last) || text.deadline < sum.deadline) {
                group_ends.push(number);
            }
            last = Some(text);
            sum = Candidate {
                length: text.length,
                unbatched_time: sum.unbatched_time + text.unbatched_time,
                deadline: sum.deadline.min(text.deadline),
            };
            prefix_sums.push(sum);
        }
        if !texts.is_empty() {
            group_ends.push(texts.len());
        }
        Self { prefix_sums, group_ends }
    }

    fn count(&self) -> usize {
        self.prefix_sums.len().saturating_sub(1)
    }
}

struct BatchSearch<'a> {
    anchor: Candidate,
    shorter: &'a NeighbourSums,
    longer: &'a NeighbourSums,
    context: &'a BatchContext<'a>,
    /// The best window so far, and its gain.
    best_batch: (usize, usize),
    best_gain: f64,
}

impl BatchSearch<'_> {
    /// All texts of a window: the time of runs of their own, the nearest deadline, the greatest length.
    fn batch_totals(&self, down: usize, up: usize) -> Option<(Candidate, Shape)> {
        let shorter = self.shorter.prefix_sums.get(down)?;
        let longer = self.longer.prefix_sums.get(up)?;
        let length = self.anchor.length.max(longer.length);
        let unbatched_time = self.anchor.unbatched_time + shorter.unbatched_time + longer.unbatched_time;
        let deadline = self.anchor.deadline.min(shorter.deadline).min(longer.deadline);
        Some((Candidate { length, unbatched_time, deadline }, Shape { rows: 1 + down + up, length }))
    }

    fn is_within_limits(&self, down: usize, up: usize) -> bool {
        let BatchContext { now, cost_model, slowdown, limits } = *self.context;
        self.batch_totals(down, up).is_some_and(|(all, shape)| {
            let time = cost_model.predict_micros(shape, slowdown);
            let is_small =
                shape.rows <= limits.max_rows && shape.token_count() <= limits.max_tokens && time <= limits.max_time;
            is_small && now.saturating_add(time) <= all.deadline
        })
    }

    /// Takes a window that fits, if it is the best so far.
    fn consider(&mut self, down: usize, up: usize) {
        let Some((all, shape)) = self.batch_totals(down, up) else { return };
        let gain = to_f64(all.unbatched_time) / (self.context.cost_model.predict_seconds(shape) * 1e6);
        let has_more_texts = down + up > self.best_batch.0 + self.best_batch.1;
        if gain > self.best_gain || (gain >= self.best_gain && has_more_texts) {
            self.best_batch = (down, up);
            self.best_gain = gain;
        }
    }
}

#[expect(clippy::cast_precision_loss, reason = "small numbers")]
#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const COST: CostModel = CostModel { overhead: 1e-3, per_token: 1e-4, per_token_squared: 0.0 };
    const LIMITS: BatchLimits =
        BatchLimits { max_rows: 32, max_tokens: 256, max_time: 200_000, search_radius: CPU_SEARCH_RADIUS };

    fn candidate_of_length(length: usize) -> Candidate {
        Candidate { length, unbatched_time: COST.predict_micros(Shape { rows: 1, length }, 1.0), deadline: 10_000_000 }
    }

    fn context(caps: BatchLimits) -> BatchContext<'static> {
        BatchContext { now: 0, cost_model: &COST, slowdown: 1.0, limits: caps }
    }

    #[test]
    fn batch_of_equal_items_filled_to_limit() {
        let equal = [candidate_of_length(16); 40];
        assert_eq!(find_best_batch(candidate_of_length(16), &[], &equal, &context(LIMITS)), (0, 15));
    }

    #[test]
    fn batch_excludes_items_with_too_much_padding() {
        // Starting a run costs as much as ten tokens: less padding than that is worth it, more is not.
        assert_eq!(find_best_batch(candidate_of_length(20), &[candidate_of_length(16)], &[], &context(LIMITS)), (1, 0));
        assert_eq!(find_best_batch(candidate_of_length(40), &[candidate_of_length(16)], &[], &context(LIMITS)), (0, 0));
        assert_eq!(find_best_batch(candidate_of_length(16), &[], &[candidate_of_length(40)], &context(LIMITS)), (0, 0));
    }

    #[test]
    fn batch_with_oversized_anchor_is_single() {
        assert_eq!(
            find_best_batch(
                candidate_of_length(512),
                &[candidate_of_length(500)],
                &[candidate_of_length(512)],
                &context(LIMITS)
            ),
            (0, 0)
        );
    }

    #[test]
    fn batch_respects_every_deadline() {
        let hurried = Candidate { deadline: 4_000, ..candidate_of_length(16) };
        assert_eq!(find_best_batch(hurried, &[], &[candidate_of_length(16); 3], &context(LIMITS)), (0, 0));
        assert_eq!(find_best_batch(candidate_of_length(16), &[], &[hurried; 3], &context(LIMITS)), (0, 0));
        let slow = BatchContext { slowdown: 0.5, ..context(LIMITS) };
        assert_eq!(find_best_batch(hurried, &[], &[candidate_of_length(16); 3], &slow), (0, 3));
    }

    proptest! {
        /// No cap is passed, and no other window within reach does more work per second.
        #[test]
        fn batch_found_is_best_within_limits(
            texts in prop_oneof![
                prop::collection::vec((1_usize..64, Just(1.0), Just(10_000_000)), 1..24),
                // Many of few lengths, as on a GPU; costs that were predicted at different times, and a few in a hurry.
                prop::collection::vec((multiples_of_eight(), prop_oneof![Just(1.0), 0.8_f64..1.2], deadline_strategy()), 1..40),
            ],
            at in any::<prop::sample::Index>(),
            rows in 1_usize..32,
            tokens in 1_usize..1_000,
            time in 1_000_u64..60_000,
        ) {
            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a small number of microseconds")]
            let candidate = |(length, part, deadline): (usize, f64, Micros)| {
                let text = candidate_of_length(length);
                Candidate { unbatched_time: (text.unbatched_time as f64 * part) as Micros, deadline, ..text }
            };
            let mut texts: Vec<Candidate> = texts.into_iter().map(candidate).collect();
            // Texts of one length keep the order in which they came.
            texts.sort_by_key(|text| text.length);
            let at = at.index(texts.len());
            let shorter: Vec<Candidate> = texts[..at].iter().rev().copied().collect();
            let caps = BatchLimits { max_rows: rows, max_tokens: tokens, max_time: time, search_radius: CPU_SEARCH_RADIUS };
            let (down, up) = find_best_batch(texts[at], &shorter, &texts[at + 1..], &context(caps));
            let all = (0..=at).flat_map(|down| (0..texts.len() - at).map(move |up| (down, up)));
            let most = all.filter_map(|(down, up)| batching_gain(&texts[at - down..=at + up], caps)).fold(0.0, f64::max);
            if (down, up) == (0, 0) {
                prop_assert!(most <= MIN_BATCHING_GAIN + 1e-9 || batching_gain(&texts[at..=at], caps).is_none_or(|own| own >= most - 1e-9));
            } else {
                prop_assert!(batching_gain(&texts[at - down..=at + up], caps).is_some_and(|found| found >= most - 1e-9));
            }
        }
    }

    /// By how much these texts are faster together, if they fit the limits and end in time.
    fn batching_gain(batch: &[Candidate], limits: BatchLimits) -> Option<f64> {
        let shape = Shape { rows: batch.len(), length: batch.last().unwrap().length };
        let time = COST.predict_micros(shape, 1.0);
        let fits = shape.rows <= limits.max_rows && shape.token_count() <= limits.max_tokens && time <= limits.max_time;
        let alone: Micros = batch.iter().map(|text| text.unbatched_time).sum();
        (fits && batch.iter().all(|text| time <= text.deadline))
            .then_some(alone as f64 / (COST.predict_seconds(shape) * 1e6))
    }

    fn multiples_of_eight() -> impl Strategy<Value = usize> {
        (1_usize..6).prop_map(|eights| 8 * eights)
    }

    /// When callers stop waiting: mostly none of them soon.
    fn deadline_strategy() -> impl Strategy<Value = Micros> {
        prop_oneof![9 => Just(10_000_000), 1 => 1_000_u64..60_000]
    }
}
