//! The body of a change that needs no more than a reason: of a rollback, and of the start, pause and end of an experiment.

use serde::{Deserialize, Serialize};

/// Why something is done.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StateChangeRequest {
    /// For the history.
    pub reason: Option<String>,
}
