//! The database that outlasts the process: models, versions, what was done by whom.
//!
//! SQLite or PostgreSQL, with the same statements. A change is one transaction that begins by counting the epoch, whose
//! row it holds until its end: changes follow each other, in all processes that share the database.

mod change;
mod error;
pub mod experiments;
pub mod feedback;
mod file_health;
mod idempotency;
mod model_changes;
mod pool;
pub mod retention;
mod rows;
mod setup;
mod timeouts;
mod transactions;

pub use change::{AuditDetails, AuditEntry, ChangeOutcome, ChangeRequest, HistoryFilter};
pub use error::{ChangeError, OpenError};
pub use file_health::StorageFault;
pub(crate) use idempotency::find_first_outcome;
pub use model_changes::{change_model, history};
pub use pool::{Database, sqlite_url};
