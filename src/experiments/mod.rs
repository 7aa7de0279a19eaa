//! Which version answered whom, and whether it was right.
//!
//! - [`receipts`]: prediction ids that prove what was answered

pub mod receipts;
