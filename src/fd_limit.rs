//! File descriptors: enough for the connections, and some kept back.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Kept back for the admin listener's connections, model files, keys and certificates; half where there are fewer.
const RESERVED_DESCRIPTORS: u64 = 64;

/// Raises this process's limit as far as `connections` need it; how many connections it allows.
///
/// Without this, clients could use up the last descriptor, and then operators could not connect.
#[must_use]
pub fn raise_fd_limit(connections: usize) -> usize {
    let open = std::fs::read_dir("/proc/self/fd").map_or(RESERVED_DESCRIPTORS, |entries| entries.count() as u64);
    let required = connections as u64 + open + RESERVED_DESCRIPTORS;
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    let mut limit = current.unwrap_or(u64::MAX);
    if limit < required {
        let raised = required.min(maximum.unwrap_or(u64::MAX));
        if setrlimit(Resource::Nofile, Rlimit { current: Some(raised), maximum }).is_ok() {
            limit = raised;
        }
    }
    let free = limit.saturating_sub(open);
    let usable = free - RESERVED_DESCRIPTORS.min(free / 2);
    let allowed = connections.min(usize::try_from(usable).unwrap_or(usize::MAX)).max(1);
    if allowed < connections {
        tracing::warn!(
            max_connections = allowed,
            requested = connections,
            "open-file limit (ulimit -n) too low for --max-connections; connection limit reduced"
        );
    }
    allowed
}
