//! Which version answers whom, and whether it was right.
//!
//! - [`receipts`]: prediction ids that prove what was answered
//! - [`design`]: what is compared; [`experiment`]: how that may change; [`bucketing`]: who is in which arm
//! - [`counters`]: what arms did; [`results`]: what that and feedback say, by way of [`predictd_stats`]
//! - [`rollout`]: a version that comes step by step

pub mod bucketing;
pub mod counters;
pub mod design;
pub mod error;
pub mod experiment;
pub mod receipts;
pub mod results;
pub mod rollout;
