//! What is known of one server: when it counts as unhealthy, and when as healthy again (pure).

use std::time::SystemTime;

use serde::{Deserialize, Serialize};

/// How many checks in a row change what a server counts as.
#[derive(Debug, Clone, Copy)]
pub struct HealthThresholds {
    /// Failed ones that make it unhealthy.
    pub unhealthy_after: u32,
    /// Good ones that make it healthy again.
    pub healthy_after: u32,
}

/// What a server counts as.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TargetHealth {
    /// It was not checked often enough.
    #[default]
    Unknown,
    /// It answers.
    Healthy,
    /// It does not, or says that it is not healthy.
    Unhealthy,
}

/// What is known of one server.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Target {
    /// What it counts as.
    pub health: TargetHealth,
    /// Checks in a row that said otherwise.
    pub streak: u32,
    /// Since when it counts as that.
    #[serde(default)]
    pub since: Option<SystemTime>,
}

impl Target {
    /// One more check. The new state of the server, if it has changed and an alert is due.
    ///
    /// A server that is found healthy at first is no news.
    pub fn record_check(&mut self, good: bool, thresholds: HealthThresholds, now: SystemTime) -> Option<TargetHealth> {
        let (next, needed) = match (self.health, good) {
            (TargetHealth::Healthy, true) | (TargetHealth::Unhealthy, false) => {
                self.streak = 0;
                return None;
            }
            (TargetHealth::Unknown, true) => (TargetHealth::Healthy, 1),
            (TargetHealth::Unhealthy, true) => (TargetHealth::Healthy, thresholds.healthy_after),
            (TargetHealth::Unknown | TargetHealth::Healthy, false) => {
                (TargetHealth::Unhealthy, thresholds.unhealthy_after)
            }
        };
        self.streak += 1;
        if self.streak < needed {
            return None;
        }
        let first = self.health == TargetHealth::Unknown && next == TargetHealth::Healthy;
        *self = Self { health: next, streak: 0, since: Some(now) };
        (!first).then_some(next)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What changes with each check: `u` for unhealthy, `h` for healthy again, `.` for nothing.
    fn changes(checks: &str) -> String {
        let thresholds = HealthThresholds { unhealthy_after: 3, healthy_after: 2 };
        let mut target = Target::default();
        let change = |check| match target.record_check(check == '+', thresholds, SystemTime::UNIX_EPOCH) {
            None => '.',
            Some(TargetHealth::Unhealthy) => 'u',
            Some(TargetHealth::Healthy) => 'h',
            Some(TargetHealth::Unknown) => '?',
        };
        checks.chars().map(change).collect()
    }

    #[test]
    fn target_enough_checks_in_a_row_change_health() {
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
