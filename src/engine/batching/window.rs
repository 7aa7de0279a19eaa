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
///
/// Not every window needs a look. While texts of one length and one cost are added, the gain is a ratio of two linear
/// functions of their number, so that it only rises or only falls; and among windows of the most texts that fit, of the
/// same longest one, it is linear itself. So the best window ends where such a row of texts ends, on one side at least, and
/// on the other where one ends or where nothing more fits. A row also ends before a text that is in more of a hurry: what
/// fits changes there.
#[must_use]
pub fn best(anchor: Candidate, shorter: &[Candidate], longer: &[Candidate], fit: &Fit<'_>) -> (usize, usize) {
    let (shorter, longer) = (Side::of(shorter), Side::of(longer));
    let mut search =
        Search { anchor, shorter: &shorter, longer: &longer, fit, chosen: (0, 0), most: LEAST_GAIN, rows: 1 };
    if !search.fits(0, 0) {
        return (0, 0);
    }
    // What fits beside more texts fits beside fewer: the other side only shrinks.
    let mut most_down = shorter.texts();
    for &up in &longer.ends {
        while most_down > 0 && !search.fits(most_down, up) {
            most_down -= 1;
        }
        if !search.fits(most_down, up) {
            break;
        }
        shorter.ends.iter().take_while(|&&down| down < most_down).for_each(|&down| search.look_at(down, up));
        search.look_at(most_down, up);
    }
    let mut most_up = longer.texts();
    for &down in &shorter.ends {
        while most_up > 0 && !search.fits(down, most_up) {
            most_up -= 1;
        }
        if !search.fits(down, most_up) {
            break;
        }
        search.look_at(down, most_up);
    }
    search.chosen
}

/// The texts on one side of the anchor.
struct Side {
    /// What the first none, one, two and so on of them come to.
    first: Vec<Candidate>,
    /// Those numbers of them with which a row of like texts ends, and none.
    ends: Vec<usize>,
}

impl Side {
    fn of(texts: &[Candidate]) -> Self {
        let mut sum = Candidate { length: 0, alone: 0, deadline: Micros::MAX };
        let (mut first, mut ends) = (Vec::with_capacity(texts.len() + 1), vec![0]);
        first.push(sum);
        let mut last = None;
        for (number, text) in texts.iter().enumerate() {
            let like = |last: &Candidate| (text.length, text.alone) == (last.length, last.alone);
            if last.is_some_and(|last| !like(last) || text.deadline < sum.deadline) {
                ends.push(number);
            }
            last = Some(text);
            let (alone, deadline) = (sum.alone + text.alone, sum.deadline.min(text.deadline));
            sum = Candidate { length: text.length, alone, deadline };
            first.push(sum);
        }
        if !texts.is_empty() {
            ends.push(texts.len());
        }
        Self { first, ends }
    }

    fn texts(&self) -> usize {
        self.first.len().saturating_sub(1)
    }
}

struct Search<'a> {
    anchor: Candidate,
    shorter: &'a Side,
    longer: &'a Side,
    fit: &'a Fit<'a>,
    /// The best window so far, its gain, and its texts.
    chosen: (usize, usize),
    most: f64,
    rows: usize,
}

impl Search<'_> {
    /// All texts of a window: the time of runs of their own, the nearest deadline, the greatest length.
    fn all(&self, down: usize, up: usize) -> Option<(Candidate, Shape)> {
        let (shorter, longer) = (self.shorter.first.get(down)?, self.longer.first.get(up)?);
        let length = self.anchor.length.max(longer.length);
        let alone = self.anchor.alone + shorter.alone + longer.alone;
        let deadline = self.anchor.deadline.min(shorter.deadline).min(longer.deadline);
        Some((Candidate { length, alone, deadline }, Shape { rows: 1 + down + up, length }))
    }

    fn fits(&self, down: usize, up: usize) -> bool {
        let (fit, caps) = (self.fit, self.fit.caps);
        self.all(down, up).is_some_and(|(all, shape)| {
            let time = fit.cost.micros(shape, fit.slowdown);
            let small = shape.rows <= caps.rows && shape.tokens() <= caps.tokens && time <= caps.time;
            small && fit.now.saturating_add(time) <= all.deadline
        })
    }

    /// Takes a window that fits, if it is the best so far.
    fn look_at(&mut self, down: usize, up: usize) {
        let Some((all, shape)) = self.all(down, up) else { return };
        #[expect(clippy::cast_precision_loss, reason = "a ratio of two times")]
        let gain = all.alone as f64 / (self.fit.cost.of(shape) * 1e6);
        if gain > self.most || (gain >= self.most && shape.rows > self.rows) {
            (self.chosen, self.most, self.rows) = ((down, up), gain, shape.rows);
        }
    }
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
            texts in prop_oneof![
                prop::collection::vec((1_usize..64, Just(1.0), Just(10_000_000)), 1..24),
                // Many of few lengths, as on a GPU; costs that were predicted at different times, and a few in a hurry.
                prop::collection::vec((eights(), prop_oneof![Just(1.0), 0.8_f64..1.2], hurries()), 1..40),
            ],
            at in any::<prop::sample::Index>(),
            rows in 1_usize..32,
            tokens in 1_usize..1_000,
            time in 1_000_u64..60_000,
        ) {
            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a small number of microseconds")]
            let candidate = |(length, part, deadline): (usize, f64, Micros)| {
                let text = text(length);
                Candidate { alone: (text.alone as f64 * part) as Micros, deadline, ..text }
            };
            let mut texts: Vec<Candidate> = texts.into_iter().map(candidate).collect();
            // Texts of one length keep the order in which they came.
            texts.sort_by_key(|text| text.length);
            let at = at.index(texts.len());
            let shorter: Vec<Candidate> = texts[..at].iter().rev().copied().collect();
            let caps = Caps { rows, tokens, time, reach: REACH };
            let gain = |down: usize, up: usize| {
                let window = &texts[at - down..=at + up];
                let shape = Shape { rows: window.len(), length: window.last().unwrap().length };
                let took = COST.micros(shape, 1.0);
                let small = shape.rows <= rows && shape.tokens() <= tokens && took <= time;
                let alone: Micros = window.iter().map(|text| text.alone).sum();
                let fits = small && window.iter().all(|text| took <= text.deadline);
                fits.then_some(alone as f64 / (COST.of(shape) * 1e6))
            };
            let (down, up) = best(texts[at], &shorter, &texts[at + 1..], &fit(caps));
            let all = (0..=at).flat_map(|down| (0..texts.len() - at).map(move |up| (down, up)));
            let most = all.filter_map(|(down, up)| gain(down, up)).fold(0.0, f64::max);
            if (down, up) == (0, 0) {
                prop_assert!(most <= LEAST_GAIN + 1e-9 || gain(0, 0).is_none_or(|own| own >= most - 1e-9));
            } else {
                prop_assert!(gain(down, up).is_some_and(|found| found >= most - 1e-9));
            }
        }
    }

    fn eights() -> impl Strategy<Value = usize> {
        (1_usize..6).prop_map(|eights| 8 * eights)
    }

    /// When callers stop waiting: mostly none of them soon.
    fn hurries() -> impl Strategy<Value = Micros> {
        prop_oneof![9 => Just(10_000_000), 1 => 1_000_u64..60_000]
    }
}
