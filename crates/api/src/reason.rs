//! The body of a change that says only why: a rollback, and the start, pause and end of an experiment.

use serde::{Deserialize, Serialize};

/// Why something is done.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReasonBody {
    /// For the history.
    pub reason: Option<String>,
}
