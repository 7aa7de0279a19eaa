//! When a signal is raised and cleared: at once, and not before it has been calm for a while.

use super::distance::Distance;

/// Calm windows in a row that clear a signal.
pub const CALM_WINDOWS: u8 = 2;

/// What a signal says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Level {
    /// Nothing that chance does not explain.
    #[default]
    Quiet,
    /// Live texts are not like those of the profile.
    Drifting,
}

impl Level {
    /// Its name: `quiet` or `drifting`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Quiet => "quiet",
            Self::Drifting => "drifting",
        }
    }
}

/// One signal's level and how it came to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct State {
    level: Level,
    since: Option<u64>,
    calm: u8,
}

impl State {
    /// What it says now.
    #[must_use]
    pub fn level(&self) -> Level {
        self.level
    }

    /// The number of the window that made it so; none if it has been quiet from the start.
    #[must_use]
    pub fn since(&self) -> Option<u64> {
        self.since
    }

    /// Takes a closed window into account; true if that changed the level.
    ///
    /// A window that drifts raises it. [`CALM_WINDOWS`] in a row clear it; one in between begins the row anew.
    pub fn observe(&mut self, window: u64, distance: &Distance) -> bool {
        let calm = distance.value < distance.clear_below();
        let level = match self.level {
            Level::Quiet if distance.is_drift() => Level::Drifting,
            Level::Drifting if calm && self.calm + 1 >= CALM_WINDOWS => Level::Quiet,
            level => level,
        };
        let changed = level != self.level;
        self.calm = if level == Level::Drifting && !changed && calm { self.calm + 1 } else { 0 };
        if changed {
            (self.level, self.since) = (level, Some(window));
        }
        changed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn levels(values: &[f64]) -> (String, State) {
        let mut state = State::default();
        let mut one = |(window, &value): (usize, &f64)| {
            let distance = Distance { texts: 1_000, bins: 20, value, psi: value, js: 0.0, noise: 0.1 };
            state.observe(window as u64 + 1, &distance);
            if state.level() == Level::Drifting { 'D' } else { 'q' }
        };
        let levels = values.iter().enumerate().map(&mut one).collect();
        (levels, state)
    }

    #[test]
    fn one_window_raises_and_two_calm_ones_clear() {
        // Raised from 0.3, calm below 0.2.
        assert_eq!(levels(&[0.0, 0.29, 0.31, 0.19, 0.19, 0.29]).0, "qqDDqq");
        assert_eq!(levels(&[0.31, 0.19, 0.21, 0.19, 0.29, 0.19, 0.31, 0.1, 0.1, 0.31]).0, "DDDDDDDDqD");
        assert_eq!(levels(&[0.31, 0.1, 0.1, 0.31, 0.1, 0.31]).0, "DDqDDD", "every row begins anew");
    }

    #[test]
    fn the_window_that_changed_it_is_told() {
        assert_eq!(levels(&[0.1, 0.1]).1.since(), None);
        assert_eq!(levels(&[0.1, 0.4, 0.4]).1.since(), Some(2));
        let (_, state) = levels(&[0.1, 0.4, 0.1, 0.1, 0.1]);
        assert_eq!((state.level().name(), state.since()), ("quiet", Some(4)));
    }
}
