//! What is known of one server: when it counts as unhealthy, and when as healthy again (pure).

use std::time::SystemTime;

use serde::{Deserialize, Serialize};

/// How many checks in a row change what a server counts as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Thresholds {
    /// Failed ones that make it unhealthy.
    pub unhealthy_after: u32,
    /// Good ones that make it healthy again.
    pub healthy_after: u32,
}

/// What a server counts as.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Health {
    /// It was not checked often enough.
    #[default]
    Unknown,
    /// It answers.
    Healthy,
    /// It does not, or says that it is not healthy.
    Unhealthy,
}

/// What is known of one server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Target {
    /// What it counts as.
    pub health: Health,
    /// Checks in a row that said otherwise.
    pub streak: u32,
    /// Since when it counts as that.
    #[serde(default)]
    pub since: Option<SystemTime>,
}

impl Target {
    /// One more check. What the server counts as from now on, if it counts as something else and somebody should know.
    ///
    /// A server that is found healthy at first is no news.
    pub fn checked(&mut self, good: bool, thresholds: Thresholds, now: SystemTime) -> Option<Health> {
        let (next, needed) = match (self.health, good) {
            (Health::Healthy, true) | (Health::Unhealthy, false) => {
                self.streak = 0;
                return None;
            }
            (Health::Unknown, true) => (Health::Healthy, 1),
            (Health::Unhealthy, true) => (Health::Healthy, thresholds.healthy_after),
            (Health::Unknown | Health::Healthy, false) => (Health::Unhealthy, thresholds.unhealthy_after),
        };
        self.streak += 1;
        if self.streak < needed {
            return None;
        }
        let first = self.health == Health::Unknown && next == Health::Healthy;
        *self = Self { health: next, streak: 0, since: Some(now) };
        (!first).then_some(next)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What changes with each check: `u` for unhealthy, `h` for healthy again, `.` for nothing.
    fn changes(checks: &str) -> String {
        let thresholds = Thresholds { unhealthy_after: 3, healthy_after: 2 };
        let mut target = Target::default();
        let change = |check| match target.checked(check == '+', thresholds, SystemTime::UNIX_EPOCH) {
            None => '.',
            Some(Health::Unhealthy) => 'u',
            Some(Health::Healthy) => 'h',
            Some(Health::Unknown) => '?',
        };
        checks.chars().map(change).collect()
    }

    #[test]
    fn a_server_changes_after_enough_checks_in_a_row() {
        for (checks, expected) in [
            ("++++", "...."),
            ("---+++", "..u.h."),
            ("+--+---", "......u"),
            ("+---+-+-++-", "...u.....h."),
            ("-----", "..u.."),
            ("--+---", ".....u"),
            ("+---++---", "...u.h..u"),
        ] {
            assert_eq!(changes(checks), expected, "{checks}");
        }
    }
}
