//! Models, batches, cache, overload: from a text to its answer.

mod cache;
mod gpu;
mod model_kinds;
mod model_loading;
mod overload;
mod scheduler;
