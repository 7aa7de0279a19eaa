//! The wire types of the API, for the server and its clients.
//!
//! - [`predictions`]: answers of `/predict` and `/batch_predict`
//! - [`served_models`]: answers of `/models`; [`health`]: of `/health`
//! - [`models`]: of `/admin/models`
//! - [`experiments`], [`experiment_results`]: of `/admin/experiments`
//! - [`reason`]: of changes of both that need a reason only
//! - [`problem`]: of errors
//! - [`feedback`]: of `/admin/feedback` and answers of `/feedback`; [`drift`]: of `/admin/drift`
//!
//! Requests refuse unknown fields. Answers accept them: the server may be newer than its client.

pub mod drift;
pub mod experiment_results;
pub mod experiments;
pub mod feedback;
pub mod health;
pub mod models;
pub mod predictions;
pub mod problem;
pub mod reason;
pub mod served_models;
