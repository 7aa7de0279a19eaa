//! Which version answered whom, and whether it was right.
//!
//! - [`receipts`]: prediction ids that prove what was answered
//! - [`statistics`]: what feedback says about the arms of an experiment

pub mod receipts;
pub mod statistics;
