//! The wire types of the admin API, for the server and its clients.
//!
//! - [`models`]: `/admin/models`
//! - [`experiments`], [`experiment_results`]: `/admin/experiments`
//! - [`feedback`]: `/admin/feedback`; [`drift`]: `/admin/drift`
//!
//! Requests refuse unknown fields. Answers accept them: the server may be newer than its client.

pub mod drift;
pub mod experiment_results;
pub mod experiments;
pub mod feedback;
pub mod models;
