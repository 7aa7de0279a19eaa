//! The wire types of the admin API, for the server and its clients.
//!
//! - [`models`]: of `/admin/models`
//! - [`experiments`], [`experiment_results`]: of `/admin/experiments`
//! - [`reason`]: of changes of both that need a reason only
//! - [`problem`]: of errors
//! - [`feedback`]: of `/admin/feedback`; [`drift`]: of `/admin/drift`
//!
//! Requests refuse unknown fields. Answers accept them: the server may be newer than its client.

pub mod drift;
pub mod experiment_results;
pub mod experiments;
pub mod feedback;
pub mod models;
pub mod problem;
pub mod reason;
