//! Windows of live texts, one model version's: counted, closed, judged, and the last of them kept.

use std::collections::VecDeque;
use std::time::Duration;

use super::Signal;
use super::counts::Counts;
use super::distance::Distance;
use super::reference::Reference;
use super::state::{Level, State};

/// Closed windows that are kept.
pub const KEPT_WINDOWS: usize = 24;

/// Texts of a window, if nobody says otherwise.
pub const WINDOW_TEXTS: u64 = 1_000;

/// When a window closes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Settings {
    /// After so many texts; at least one.
    pub texts: u64,
    /// So long after its first text, if it has enough of them to be judged; without it only when it is full.
    pub longest: Option<Duration>,
}

impl Default for Settings {
    fn default() -> Self {
        Self { texts: WINDOW_TEXTS, longest: None }
    }
}

/// A closed window.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Window {
    /// Windows are numbered from 1.
    pub number: u64,
    /// Texts in it.
    pub texts: u64,
    /// When its first text came, on the caller's clock.
    pub opened: Duration,
    /// When it was closed, on the same clock.
    pub closed: Duration,
    /// Its distance in each of [`Signal::ALL`]; none where it was not judged.
    pub distances: [Option<Distance>; 4],
    /// Each signal's level after it.
    pub levels: [Level; 4],
    /// True for signals whose level it changed.
    pub changed: [bool; 4],
}

/// One signal as it is now.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SignalReport {
    /// Which.
    pub signal: Signal,
    /// Its level.
    pub level: Level,
    /// The window that made it so; none if it has been quiet from the start.
    pub since: Option<u64>,
    /// Texts that a window must have to be judged by it; none if the signal is not there.
    pub needed: Option<u64>,
    /// The last window that was judged by it, of those that are kept.
    pub window: Option<u64>,
    /// How far that was away, and its thresholds.
    pub distance: Option<Distance>,
}

/// Compares what a model version is asked with its profile. Takes the same memory, however many texts come.
#[derive(Debug, Clone)]
pub struct Drift {
    reference: Reference,
    settings: Settings,
    open: Counts,
    opened: Option<Duration>,
    closed: u64,
    states: [State; 4],
    kept: VecDeque<Window>,
}

impl Drift {
    /// With no texts yet.
    #[must_use]
    pub fn new(reference: Reference, settings: Settings) -> Self {
        Self {
            open: reference.window(),
            reference,
            settings,
            opened: None,
            closed: 0,
            states: [State::default(); 4],
            kept: VecDeque::with_capacity(KEPT_WINDOWS),
        }
    }

    /// Counts a text as [`Counts::record`] does; the window, if that closed it. `now` is the time since any fixed
    /// moment.
    pub fn record(
        &mut self,
        now: Duration,
        label: Option<usize>,
        confidence: f32,
        tokens: usize,
        unknown: usize,
    ) -> Option<&Window> {
        self.opened.get_or_insert(now);
        self.open.record(label, confidence, tokens, unknown);
        if self.open.texts() >= self.settings.texts { self.close(now) } else { self.close_if_due(now) }
    }

    /// Closes the window if it has been open for long and has enough texts: for when no more come.
    pub fn close_if_due(&mut self, now: Duration) -> Option<&Window> {
        let longest = self.settings.longest?;
        let age = now.saturating_sub(self.opened?);
        if age >= longest && self.open.texts() >= self.needed() { self.close(now) } else { None }
    }

    /// Texts with which a window is judged by every signal that there is.
    ///
    /// Windows that are set to close with fewer are not judged by some signal, or by none.
    #[must_use]
    pub fn needed(&self) -> u64 {
        let needed = Signal::ALL.into_iter().filter_map(|signal| self.reference.needed(signal));
        needed.max().unwrap_or(super::reference::LEAST_WINDOW)
    }

    /// Texts in the open window.
    #[must_use]
    pub fn open_texts(&self) -> u64 {
        self.open.texts()
    }

    /// The last windows that were closed, oldest first: at most [`KEPT_WINDOWS`].
    #[must_use]
    pub fn windows(&self) -> impl DoubleEndedIterator<Item = &Window> + ExactSizeIterator {
        self.kept.iter()
    }

    /// Every signal as it is now.
    #[must_use]
    pub fn report(&self) -> [SignalReport; 4] {
        self.by_signal(|signal, state| {
            let of = |window: &Window| pick(signal, window.distances).map(|distance| (window.number, distance));
            let judged = self.kept.iter().rev().find_map(of);
            SignalReport {
                signal,
                level: state.level(),
                since: state.since(),
                needed: self.reference.needed(signal),
                window: judged.map(|(number, _)| number),
                distance: judged.map(|(_, distance)| distance),
            }
        })
    }

    /// Bytes that it takes, but for the reference, which never changes.
    #[must_use]
    pub fn bytes(&self) -> usize {
        size_of_val(self) + self.open.bytes() + self.kept.capacity() * size_of::<Window>()
    }

    fn close(&mut self, now: Duration) -> Option<&Window> {
        self.closed = self.closed.saturating_add(1);
        let distances = Signal::ALL.map(|signal| self.reference.judge(signal, &self.open));
        let mut changed = [false; 4];
        for ((state, distance), changed) in self.states.iter_mut().zip(&distances).zip(&mut changed) {
            if let Some(distance) = distance {
                *changed = state.observe(self.closed, distance);
            }
        }
        let window = Window {
            number: self.closed,
            texts: self.open.texts(),
            opened: self.opened.take().unwrap_or(now),
            closed: now,
            distances,
            levels: self.states.map(|state| state.level()),
            changed,
        };
        self.open.clear();
        if self.kept.len() >= KEPT_WINDOWS {
            self.kept.pop_front();
        }
        self.kept.push_back(window);
        self.kept.back()
    }

    fn by_signal<T>(&self, of: impl Fn(Signal, State) -> T) -> [T; 4] {
        Signal::ALL.map(|signal| of(signal, pick(signal, self.states)))
    }
}

/// One signal's of four things.
fn pick<T>(signal: Signal, of: [T; 4]) -> T {
    let [labels, confidence, lengths, unknown] = of;
    match signal {
        Signal::Labels => labels,
        Signal::Confidence => confidence,
        Signal::Lengths => lengths,
        Signal::Unknown => unknown,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Duration = Duration::from_mins(1);

    /// Two labels, half of the texts each; a profile of 1,000.
    fn drift(texts: u64, longest: Option<Duration>) -> Drift {
        let mut counts = Counts::new(2, true);
        (0..1_000).for_each(|i| counts.record(Some(i % 2), 0.9, 12, 0));
        Drift::new(Reference::new(counts), Settings { texts, longest })
    }

    /// So many texts, one of `of` with label 1 and the others with label 0; the numbers of the windows they closed.
    fn send(drift: &mut Drift, texts: usize, of: usize, now: Duration) -> Vec<u64> {
        let one = |i| drift.record(now, Some(usize::from(i % of == 0)), 0.9, 12, 0).map(|window| window.number);
        (0..texts).filter_map(one).collect()
    }

    #[test]
    fn a_full_window_is_closed_and_judged() {
        let mut drift = drift(200, None);
        assert!(send(&mut drift, 199, 2, MINUTE).is_empty());
        assert!(drift.close_if_due(MINUTE * 1_000).is_none());
        assert!(drift.report().iter().all(|signal| signal.distance.is_none() && signal.level == Level::Quiet));
        assert_eq!(send(&mut drift, 401, 2, MINUTE * 2), [1, 2, 3]);
        assert_eq!(drift.open_texts(), 0);
        let window = drift.windows().next().unwrap();
        assert_eq!((window.texts, window.opened, window.closed), (200, MINUTE, MINUTE * 2));
        let [labels, ..] = drift.report();
        assert_eq!(
            (labels.level, labels.since, labels.window, labels.needed),
            (Level::Quiet, None, Some(3), Some(100))
        );
        assert!(labels.distance.unwrap().value < 0.001);
    }

    #[test]
    fn drift_is_told_within_a_window_and_over_after_two() {
        let mut drift = drift(200, None);
        let at = |window: u64| MINUTE * u32::try_from(window).unwrap();
        for (window, of) in (1..).zip([2, 1_000, 1_000, 2, 2, 2]) {
            assert_eq!(send(&mut drift, 200, of, at(window)), [window]);
        }
        let told: Vec<_> = drift.windows().map(|window| (window.levels[0], window.changed[0])).collect();
        let (quiet, drifting) = (Level::Quiet, Level::Drifting);
        let wanted = [(quiet, false), (drifting, true), (drifting, false), (drifting, false), (quiet, true)];
        assert_eq!(told[..5], wanted);
        assert_eq!(drift.report()[0].since, Some(5));
        assert!(drift.windows().all(|window| window.levels[1..] == [Level::Quiet; 3]), "the others are as they were");
    }

    #[test]
    fn a_window_closes_in_time_if_it_has_enough_texts() {
        let mut drift = drift(1_000, Some(MINUTE));
        assert_eq!(drift.needed(), 100);
        // The time begins with the first text, not with the server.
        assert!(drift.close_if_due(MINUTE * 60).is_none());
        assert!(send(&mut drift, 99, 2, MINUTE * 60).is_empty());
        assert!(drift.close_if_due(MINUTE * 99).is_none(), "too few");
        assert_eq!(send(&mut drift, 2, 2, MINUTE * 99), [1]);
        assert!(send(&mut drift, 300, 2, MINUTE * 99).is_empty(), "too early");
        assert!(drift.close_if_due(MINUTE * 99 + Duration::from_secs(59)).is_none());
        assert_eq!(drift.close_if_due(MINUTE * 100).map(|window| window.texts), Some(301));
        // A clock that goes back closes nothing.
        assert!(send(&mut drift, 300, 2, MINUTE * 200).is_empty());
        assert!(drift.close_if_due(MINUTE).is_none());
    }

    #[test]
    fn windows_too_small_to_be_judged_change_nothing() {
        let mut drift = drift(50, None);
        assert_eq!(send(&mut drift, 100, 1_000, MINUTE), [1, 2]);
        assert!(drift.windows().all(|window| window.distances == [None; 4] && window.levels == [Level::Quiet; 4]));
        let mut drift = super::tests::drift(0, None);
        assert_eq!(send(&mut drift, 2, 2, MINUTE), [1, 2], "no window is empty");
    }

    #[test]
    fn memory_does_not_grow_with_texts() {
        let mut drift = drift(100, None);
        let before = drift.bytes();
        assert_eq!(send(&mut drift, 50_000, 2, MINUTE).len(), 500);
        assert_eq!(drift.bytes(), before);
        assert!(before < 24 * 1_024, "{before}");
        let numbers: Vec<u64> = drift.windows().map(|window| window.number).collect();
        assert_eq!(numbers, (477..=500).collect::<Vec<_>>());
    }
}
