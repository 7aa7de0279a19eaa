//! Which experiments come into force.

/// Which experiments come into force.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum PublishScope<'a> {
    /// Changes of those that run here already, and their ends.
    RunningOnly,
    /// Also this one, whose versions are loaded.
    RunningAnd(&'a str),
    /// Also those whose versions were all tried to load.
    LoadAttempted,
    /// All.
    All,
}
