//! Windows of live texts, one model version's: counted, closed, judged, and the last of them kept.

use std::collections::VecDeque;
use std::time::Duration;

use super::counts::DistributionCounts;
use super::divergence::Divergence;
use super::reference::{MIN_WINDOW_TEXTS, Reference};
use super::signal::DriftSignal;
use super::signal_state::{DriftLevel, DriftSignalState};

/// Closed windows that are kept.
pub const MAX_STORED_WINDOWS: usize = 24;

/// Texts of a window, without an option.
pub const DEFAULT_WINDOW_TEXTS: u64 = 1_000;

/// When a window closes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WindowSettings {
    /// After so many texts; at least one.
    pub texts: u64,
    /// So long after its first text, if it has enough of them to be judged; without it only when it is full.
    pub max_age: Option<Duration>,
}

impl Default for WindowSettings {
    fn default() -> Self {
        Self { texts: DEFAULT_WINDOW_TEXTS, max_age: None }
    }
}

/// A closed window.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct WindowResult {
    /// Windows are numbered from 1.
    pub number: u64,
    /// Texts in it.
    pub texts: u64,
    /// When its first text came, on the caller's clock.
    pub opened_at: Duration,
    /// When it was closed, on the same clock.
    pub closed_at: Duration,
    /// Its distance in each of [`DriftSignal::ALL`]; none where it was not judged.
    pub divergences: [Option<Divergence>; 4],
    /// Each signal's level after it.
    pub levels: [DriftLevel; 4],
    /// True for signals whose level it changed.
    pub level_changed: [bool; 4],
}

/// One signal as it is now.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SignalReport {
    /// Which.
    pub signal: DriftSignal,
    /// Its level.
    pub level: DriftLevel,
    /// Texts that a window must have to be judged by it; none if the signal is not there.
    pub min_window_texts: Option<u64>,
    /// The last window that was judged by it, of those that are kept.
    pub last_window: Option<u64>,
    /// How far that was away, and its thresholds.
    pub divergence: Option<Divergence>,
}

/// Compares what a model version is asked with its profile. Takes the same memory, however many texts come.
#[derive(Debug, Clone)]
pub struct DriftDetector {
    /// When a window closes.
    pub settings: WindowSettings,
    reference: Reference,
    open_counts: DistributionCounts,
    opened_at: Option<Duration>,
    closed_windows: u64,
    signal_states: [DriftSignalState; 4],
    stored_windows: VecDeque<WindowResult>,
}

impl DriftDetector {
    /// With no texts yet.
    #[must_use]
    pub fn new(reference: Reference, settings: WindowSettings) -> Self {
        Self {
            open_counts: reference.empty_counts(),
            reference,
            settings,
            opened_at: None,
            closed_windows: 0,
            signal_states: [DriftSignalState::default(); 4],
            stored_windows: VecDeque::with_capacity(MAX_STORED_WINDOWS),
        }
    }

    /// Counts a text as [`DistributionCounts::record`] does; the window, if that closed it. `now` is the time since any fixed
    /// moment.
    pub fn record(
        &mut self,
        now: Duration,
        label: Option<usize>,
        confidence: f32,
        tokens: usize,
        unknown: usize,
    ) -> Option<&WindowResult> {
        self.opened_at.get_or_insert(now);
        self.open_counts.record(label, confidence, tokens, unknown);
        if self.open_counts.texts() >= self.settings.texts { self.close(now) } else { self.close_if_due(now) }
    }

    /// Closes the window if it has been open for long and has enough texts: for when no more come.
    pub fn close_if_due(&mut self, now: Duration) -> Option<&WindowResult> {
        let longest = self.settings.max_age?;
        let age = now.saturating_sub(self.opened_at?);
        if age >= longest && self.open_counts.texts() >= self.min_window_texts() { self.close(now) } else { None }
    }

    /// Texts with which a window is judged by every signal that there is.
    ///
    /// Windows that are set to close with fewer are not judged by some signal, or by none.
    #[must_use]
    pub fn min_window_texts(&self) -> u64 {
        let needed = DriftSignal::ALL.into_iter().filter_map(|signal| self.reference.min_window_texts(signal));
        needed.max().unwrap_or(MIN_WINDOW_TEXTS)
    }

    /// Texts in the open window.
    #[must_use]
    pub fn open_texts(&self) -> u64 {
        self.open_counts.texts()
    }

    /// The last windows that were closed, oldest first: at most [`MAX_STORED_WINDOWS`].
    #[must_use]
    pub fn stored_windows(&self) -> impl DoubleEndedIterator<Item = &WindowResult> + ExactSizeIterator {
        self.stored_windows.iter()
    }

    /// Every signal as it is now.
    #[must_use]
    pub fn signal_reports(&self) -> [SignalReport; 4] {
        DriftSignal::ALL.map(|signal| {
            let judged = self
                .stored_windows
                .iter()
                .rev()
                .find_map(|window| Some((window.number, signal.select(window.divergences)?)));
            let (last_window, divergence) = judged.unzip();
            SignalReport {
                signal,
                level: signal.select(self.signal_states).level,
                min_window_texts: self.reference.min_window_texts(signal),
                last_window,
                divergence,
            }
        })
    }

    fn close(&mut self, now: Duration) -> Option<&WindowResult> {
        self.closed_windows = self.closed_windows.saturating_add(1);
        let distances = DriftSignal::ALL.map(|signal| self.reference.compare(signal, &self.open_counts));
        let mut changed = [false; 4];
        for ((state, distance), changed) in self.signal_states.iter_mut().zip(&distances).zip(&mut changed) {
            if let Some(distance) = distance {
                *changed = state.observe(distance);
            }
        }
        let window = WindowResult {
            number: self.closed_windows,
            texts: self.open_counts.texts(),
            opened_at: self.opened_at.take().unwrap_or(now),
            closed_at: now,
            divergences: distances,
            levels: self.signal_states.map(|state| state.level),
            level_changed: changed,
        };
        self.open_counts.clear();
        if self.stored_windows.len() >= MAX_STORED_WINDOWS {
            self.stored_windows.pop_front();
        }
        self.stored_windows.push_back(window);
        self.stored_windows.back()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Duration = Duration::from_mins(1);

    /// Bytes that a detector takes, but for the reference, which never changes.
    fn memory_bytes(drift: &DriftDetector) -> usize {
        let windows = drift.stored_windows.capacity() * size_of::<WindowResult>();
        size_of_val(drift) + crate::counts::tests::memory_bytes(&drift.open_counts) + windows
    }

    /// Two labels, half of the texts each; a profile of 1,000.
    fn detector(texts: u64, longest: Option<Duration>) -> DriftDetector {
        let mut counts = DistributionCounts::new(2, true);
        (0..1_000).for_each(|i| counts.record(Some(i % 2), 0.9, 12, 0));
        DriftDetector::new(Reference::new(counts), WindowSettings { texts, max_age: longest })
    }

    /// So many texts, one of `of` with label 1 and the others with label 0; the numbers of the windows they closed.
    fn record_texts(drift: &mut DriftDetector, texts: usize, of: usize, now: Duration) -> Vec<u64> {
        let one = |i| drift.record(now, Some(usize::from(i % of == 0)), 0.9, 12, 0).map(|window| window.number);
        (0..texts).filter_map(one).collect()
    }

    #[test]
    fn window_full_closes_and_is_compared() {
        let mut drift = detector(200, None);
        assert!(record_texts(&mut drift, 199, 2, MINUTE).is_empty());
        assert!(drift.close_if_due(MINUTE * 1_000).is_none());
        assert!(
            drift
                .signal_reports()
                .iter()
                .all(|signal| signal.divergence.is_none() && signal.level == DriftLevel::Quiet)
        );
        assert_eq!(record_texts(&mut drift, 401, 2, MINUTE * 2), [1, 2, 3]);
        assert_eq!(drift.open_texts(), 0);
        let window = drift.stored_windows().next().unwrap();
        assert_eq!((window.texts, window.opened_at, window.closed_at), (200, MINUTE, MINUTE * 2));
        let [labels, ..] = drift.signal_reports();
        assert_eq!(
            (labels.level, labels.last_window, labels.min_window_texts),
            (DriftLevel::Quiet, Some(3), Some(100))
        );
        assert!(labels.divergence.unwrap().value < 0.001);
    }

    fn minute(window: u64) -> Duration {
        MINUTE * u32::try_from(window).unwrap()
    }

    #[test]
    fn detector_drift_raised_in_one_cleared_in_two_windows() {
        let mut drift = detector(200, None);
        for (window, of) in (1..).zip([2, 1_000, 1_000, 2, 2, 2]) {
            assert_eq!(record_texts(&mut drift, 200, of, minute(window)), [window]);
        }
        let levels: Vec<_> = drift.stored_windows().map(|window| (window.levels[0], window.level_changed[0])).collect();
        let quiet = DriftLevel::Quiet;
        let drifting = DriftLevel::Drifting;
        let expected = [(quiet, false), (drifting, true), (drifting, false), (drifting, false), (quiet, true)];
        assert_eq!(levels[..5], expected);
        assert_eq!(drift.signal_reports()[0].level, quiet);
        assert!(
            drift.stored_windows().all(|window| window.levels[1..] == [DriftLevel::Quiet; 3]),
            "the others are as they were"
        );
    }

    #[test]
    fn window_old_with_enough_texts_closes() {
        let mut drift = detector(1_000, Some(MINUTE));
        assert_eq!(drift.min_window_texts(), 100);
        // The time begins with the first text, not with the server.
        assert!(drift.close_if_due(MINUTE * 60).is_none());
        assert!(record_texts(&mut drift, 99, 2, MINUTE * 60).is_empty());
        assert!(drift.close_if_due(MINUTE * 99).is_none(), "too few");
        assert_eq!(record_texts(&mut drift, 2, 2, MINUTE * 99), [1]);
        assert!(record_texts(&mut drift, 300, 2, MINUTE * 99).is_empty(), "too early");
        assert!(drift.close_if_due(MINUTE * 99 + Duration::from_secs(59)).is_none());
        assert_eq!(drift.close_if_due(MINUTE * 100).map(|window| window.texts), Some(301));
        // A clock that goes back closes nothing.
        assert!(record_texts(&mut drift, 300, 2, MINUTE * 200).is_empty());
        assert!(drift.close_if_due(MINUTE).is_none());
    }

    #[test]
    fn window_too_small_keeps_levels() {
        let mut drift = detector(50, None);
        assert_eq!(record_texts(&mut drift, 100, 1_000, MINUTE), [1, 2]);
        assert!(
            drift
                .stored_windows()
                .all(|window| window.divergences == [None; 4] && window.levels == [DriftLevel::Quiet; 4])
        );
        let mut drift = super::tests::detector(0, None);
        assert_eq!(record_texts(&mut drift, 2, 2, MINUTE), [1, 2], "no window is empty");
    }

    #[test]
    fn detector_memory_constant() {
        let mut drift = detector(100, None);
        let before = memory_bytes(&drift);
        assert_eq!(record_texts(&mut drift, 50_000, 2, MINUTE).len(), 500);
        assert_eq!(memory_bytes(&drift), before);
        assert!(before < 24 * 1_024, "{before}");
        let numbers: Vec<u64> = drift.stored_windows().map(|window| window.number).collect();
        assert_eq!(numbers, (477..=500).collect::<Vec<_>>());
    }
}
