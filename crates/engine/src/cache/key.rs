//! The name of an answer in the cache.

/// Names an answer: a keyed hash of a text and of the load of a model.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct CacheKey(pub(super) u128);
