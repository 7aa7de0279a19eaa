//! From a checked request to recorded answers: the layer between HTTP and the engine. No HTTP, no status codes.
//!
//! - [`service`]: resolves, infers, falls back; [`response`]: records each answer and signs its receipt
//! - [`arm_route`]: which version answers; [`attempt`]: one version infers; `fallback`: the control after a failed arm
//! - [`error`]: why a request or an item got no answer
//! - [`zero_shot`]: candidate labels of a request
//! - `outcome_recording`: metrics and drift of an answer
//! - [`request_summary`]: how the answers of a request came about; [`entity_memory`]: memory for found entities
//! - [`shadow_queue`], [`shadow_traffic`], `shadow_comparison`: copies of requests for shadows, their runs, their agreement
//! - [`feedback_service`]: the true labels of earlier predictions

pub mod arm_route;
pub mod attempt;
pub mod entity_memory;
pub mod error;
mod fallback;
pub mod feedback_service;
mod outcome_recording;
pub mod request_summary;
pub mod response;
pub mod service;
mod shadow_comparison;
pub mod shadow_queue;
pub mod shadow_traffic;
pub mod zero_shot;

pub use error::{InferenceFailure, RequestPart};
pub use service::{InferenceService, RoutedRequest};
