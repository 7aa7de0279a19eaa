//! From an async caller to a worker thread and back. No HTTP, no ONNX Runtime.
//!
//! - [`admission`]: the engine, which admits requests; [`error`]: why one got no answer
//! - [`backend`]: what the engine needs from an inference runtime
//! - [`model_source`]: what to load; [`load_context`]: what all models are loaded with
//! - [`loader`]: how a model comes into service; `calibration`: what its runs cost here; [`placement_result`]: where they run
//! - [`cost_model`]: what a run costs by its shape (pure)
//! - [`loaded_version`]: one served version; [`tokenization`]: its texts on their way to the queue
//! - [`batch_invariance`]: whether scores depend on the texts of a batch
//! - [`scheduler`]: which waiting texts run next, and together (pure); [`scheduler_config`]: its settings
//! - [`queue`]: the waiting texts of one model; `cancel_guard`: what becomes of those of a caller that left
//! - [`group_permits`]: run permits over all models: [`cpu_permits`] of the cores, or [`gpu_permits`] of each GPU; [`active_run`]:
//!   what holds one
//! - [`execution_group`]: what the models share that run in one place
//! - [`wait_estimator`]: how long a text would wait
//! - [`model_runner`]: runs a model's texts; [`worker`]: a thread that does so with a session of its own
//! - [`session_recycler`]: replaces a worker's session
//! - [`gpu_pipeline`]: the threads of a GPU, of which one prepares while another runs; [`gpu_health`]: a GPU that fails for good
//! - [`cache`]: earlier answers, and texts that several clients wait for; [`item_output`]: one answer
//! - [`cache_lookup`]: a request's texts against the cache
//! - [`trial_session`]: a session that is checked and measured before its model serves
//! - [`timings`]: where the time of a text went
//! - [`drift_monitor`]: whether texts and answers are still like the model's profile

pub mod active_run;
pub mod admission;
pub mod backend;
pub mod batch_invariance;
pub mod cache;
pub mod cache_lookup;
mod calibration;
mod cancel_guard;
pub mod cost_model;
pub mod cpu_permits;
pub mod drift_monitor;
pub mod error;
pub mod execution_group;
pub mod gpu_health;
pub mod gpu_permits;
pub mod gpu_pipeline;
pub mod group_permits;
pub mod item_output;
pub mod load_context;
pub mod loaded_version;
pub mod loader;
pub mod model_runner;
pub mod model_source;
pub mod placement_result;
pub mod queue;
pub mod scheduler;
pub mod scheduler_config;
pub mod session_recycler;
pub mod timings;
pub mod tokenization;
pub mod trial_session;
pub mod wait_estimator;
pub mod worker;

pub use admission::Engine;
pub use error::{InferenceError, ItemError};
pub use item_output::{ItemOutput, ItemResult};
