//! When a signal is raised and cleared: at once, and not before it has been calm for a while.

use super::divergence::Divergence;

/// Calm windows in a row that clear a signal.
const CLEAR_AFTER_WINDOWS: u8 = 2;

/// What a signal says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum DriftLevel {
    /// Nothing that chance does not explain.
    #[default]
    Quiet,
    /// Live texts are not like those of the profile.
    Drifting,
}

impl DriftLevel {
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
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct DriftSignalState {
    /// What it says now.
    pub(crate) level: DriftLevel,
    calm_windows: u8,
}

impl DriftSignalState {
    /// Takes a closed window into account; true if that changed the level.
    ///
    /// A window that drifts raises it. [`CLEAR_AFTER_WINDOWS`] in a row clear it; one in between restarts the count.
    pub(crate) fn observe(&mut self, distance: &Divergence) -> bool {
        let calm = distance.value < distance.clear_threshold();
        let level = match self.level {
            DriftLevel::Quiet if distance.is_drift() => DriftLevel::Drifting,
            DriftLevel::Drifting if calm && self.calm_windows + 1 >= CLEAR_AFTER_WINDOWS => DriftLevel::Quiet,
            level => level,
        };
        let changed = level != self.level;
        self.calm_windows = if level == DriftLevel::Drifting && !changed && calm { self.calm_windows + 1 } else { 0 };
        self.level = level;
        changed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn observe_values(values: &[f64]) -> String {
        let mut state = DriftSignalState::default();
        let mut one = |&value: &f64| {
            let distance = Divergence { value, psi: value, js: 0.0, noise: 0.1 };
            state.observe(&distance);
            if state.level == DriftLevel::Drifting { 'D' } else { 'q' }
        };
        values.iter().map(&mut one).collect()
    }

    #[test]
    fn signal_calm_for_two_windows_clears() {
        // Raised from 0.3, calm below 0.2.
        assert_eq!(observe_values(&[0.0, 0.29, 0.31, 0.19, 0.19, 0.29]), "qqDDqq");
        assert_eq!(observe_values(&[0.31, 0.19, 0.21, 0.19, 0.29, 0.19, 0.31, 0.1, 0.1, 0.31]), "DDDDDDDDqD");
        assert_eq!(observe_values(&[0.31, 0.1, 0.1, 0.31, 0.1, 0.31]), "DDqDDD", "each count restarts");
    }
}
