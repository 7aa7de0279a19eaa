//! Models, batches, cache, overload: from a text to its answer.

mod cache;
mod gpu;
pub(crate) mod model_kinds;
mod model_loading;
mod overload;
pub(crate) mod scheduler;
