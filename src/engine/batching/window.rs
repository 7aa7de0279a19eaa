//! Which texts of similar length are worth running beside one that must run. Pure.
//!
//! Padding is what makes naive batches slower than none: every text costs as much as the longest of its run. The window
//! is the stretch of the waiting texts in order of length, around the one that must run (the anchor), that does the
//! most work per second: the cost of its texts alone over the cost of the run.

use super::Micros;
use crate::engine::cost::Cost;
use crate::text::tensors::Shape;

/// Texts looked at on either side of the anchor on cores: more of them hardly ever fit a run there.
pub const REACH: usize = 64;
/// Least gain for which texts are run together: below it they only wait for each other.
const LEAST_GAIN: f64 = 1.03;

/// What a run may be at most. An anchor that is larger runs alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Caps {
    /// Texts.
    pub rows: usize,
    /// Tokens, padding included.
    pub tokens: usize,
    /// Predicted time.
    pub time: Micros,
    /// Texts looked at on either side of the anchor.
    pub reach: usize,
}

/// A waiting text, as far as the window goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Candidate {
    /// Its tokens, with the padding that it has in a run of its own.
    pub length: usize,
    /// Predicted time of a run of its own.
    pub alone: Micros,
    /// When its caller stops waiting.
    pub deadline: Micros,
}

/// What the window must fit.
#[derive(Debug, Clone, Copy)]
pub struct Fit<'a> {
    /// The time.
    pub now: Micros,
    /// What a run costs.
    pub cost: &'a Cost,
    /// What runs took of late, over what they were predicted to take.
    pub slowdown: f64,
    /// What a run may be at most.
    pub caps: Caps,
}

/// How many of the `shorter` and of the `longer` texts, each nearest to the anchor first, run beside it.
#[must_use]
pub fn best(anchor: Candidate, shorter: &[Candidate], longer: &[Candidate], fit: &Fit<'_>) -> (usize, usize) {
    let (mut chosen, mut most, mut most_rows) = ((0, 0), LEAST_GAIN, 1);
    let (mut alone_up, mut deadline_up, mut length) = (anchor.alone, anchor.deadline, anchor.length);
    for up in 0..=longer.len() {
        if let Some(text) = up.checked_sub(1).and_then(|last| longer.get(last)) {
            alone_up += text.alone;
            deadline_up = deadline_up.min(text.deadline);
            length = text.length;
        }
        let (mut alone, mut deadline, mut fits) = (alone_up, deadline_up, false);
        for down in 0..=shorter.len() {
            if let Some(text) = down.checked_sub(1).and_then(|last| shorter.get(last)) {
                alone += text.alone;
                deadline = deadline.min(text.deadline);
            }
            let shape = Shape { rows: 1 + up + down, length };
            if shape.rows > fit.caps.rows || shape.tokens() > fit.caps.tokens {
                break;
            }
            let time = fit.cost.micros(shape, fit.slowdown);
            if time > fit.caps.time || fit.now.saturating_add(time) > deadline {
                // More texts only take longer.
                break;
            }
            fits = true;
            #[expect(clippy::cast_precision_loss, reason = "a ratio of two times")]
            let gain = alone as f64 / (fit.cost.of(shape) * 1e6);
            if gain > most || (gain >= most && shape.rows > most_rows) {
                (chosen, most, most_rows) = ((down, up), gain, shape.rows);
            }
        }
        if !fits {
            // With longer texts it fits even less.
            break;
        }
    }
    chosen
}

#[cfg(test)]
#[expect(clippy::cast_precision_loss, reason = "small numbers")]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const COST: Cost = Cost { run: 1e-3, token: 1e-4, square: 0.0 };
    const CAPS: Caps = Caps { rows: 32, tokens: 256, time: 200_000, reach: REACH };

    fn text(length: usize) -> Candidate {
        Candidate { length, alone: COST.micros(Shape { rows: 1, length }, 1.0), deadline: 10_000_000 }
    }

    fn fit(caps: Caps) -> Fit<'static> {
        Fit { now: 0, cost: &COST, slowdown: 1.0, caps }
    }

    #[test]
    fn equal_texts_fill_the_run() {
        let equal = [text(16); 40];
        assert_eq!(best(text(16), &[], &equal, &fit(CAPS)), (0, 15));
    }

    #[test]
    fn padding_is_weighed_against_runs() {
        // Starting a run costs as much as ten tokens: less padding than that is worth it, more is not.
        assert_eq!(best(text(20), &[text(16)], &[], &fit(CAPS)), (1, 0));
        assert_eq!(best(text(40), &[text(16)], &[], &fit(CAPS)), (0, 0));
        assert_eq!(best(text(16), &[], &[text(40)], &fit(CAPS)), (0, 0));
    }

    #[test]
    fn a_long_anchor_runs_alone() {
        assert_eq!(best(text(512), &[text(500)], &[text(512)], &fit(CAPS)), (0, 0));
    }

    #[test]
    fn no_text_misses_its_deadline_for_another() {
        let hurried = Candidate { deadline: 4_000, ..text(16) };
        assert_eq!(best(hurried, &[], &[text(16); 3], &fit(CAPS)), (0, 0));
        assert_eq!(best(text(16), &[], &[hurried; 3], &fit(CAPS)), (0, 0));
        let slow = Fit { slowdown: 0.5, ..fit(CAPS) };
        assert_eq!(best(hurried, &[], &[text(16); 3], &slow), (0, 3));
    }

    proptest! {
        /// No cap is passed, and no other window within reach does more work per second.
        #[test]
        fn the_best_window_within_the_caps(
            lengths in prop::collection::vec(1_usize..64, 1..24),
            at in any::<prop::sample::Index>(),
            rows in 1_usize..16,
            tokens in 1_usize..400,
            time in 1_000_u64..60_000,
        ) {
            let mut lengths = lengths;
            lengths.sort_unstable();
            let at = at.index(lengths.len());
            let texts: Vec<Candidate> = lengths.iter().map(|&length| text(length)).collect();
            let shorter: Vec<Candidate> = texts[..at].iter().rev().copied().collect();
            let caps = Caps { rows, tokens, time, reach: REACH };
            let gain = |down: usize, up: usize| {
                let window = &texts[at - down..=at + up];
                let shape = Shape { rows: window.len(), length: window.last().unwrap().length };
                let fits = shape.rows <= rows && shape.tokens() <= tokens && COST.micros(shape, 1.0) <= time;
                let alone: Micros = window.iter().map(|text| text.alone).sum();
                fits.then_some(alone as f64 / (COST.of(shape) * 1e6))
            };
            let (down, up) = best(texts[at], &shorter, &texts[at + 1..], &fit(caps));
            let all = (0..=at).flat_map(|down| (0..texts.len() - at).map(move |up| (down, up)));
            let most = all.filter_map(|(down, up)| gain(down, up)).fold(0.0, f64::max);
            if (down, up) == (0, 0) {
                prop_assert!(most <= LEAST_GAIN + 1e-9 || gain(0, 0).is_some_and(|own| own >= most - 1e-9));
            } else {
                prop_assert!(gain(down, up).is_some_and(|found| found >= most - 1e-9));
            }
        }
    }
}
