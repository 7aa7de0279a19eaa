//! Panics of the `tokenizers` crate, turned into errors.

use std::panic::{AssertUnwindSafe, catch_unwind};

use super::error::TokenizeError;
use super::file_names::file_error;
use crate::manifest::ManifestError;

/// Runs code of the crate that reads a file, which may panic on a crafted one.
pub(super) fn catch_load_panic<T>(run: impl FnOnce() -> T) -> Result<T, ManifestError> {
    catch_unwind(AssertUnwindSafe(run)).map_err(|_| file_error("the tokenizer panicked while loading"))
}

/// Runs code of the crate, which may panic on a crafted file or text.
pub(super) fn catch_panic<T>(run: impl FnOnce() -> Result<T, TokenizeError>) -> Result<T, TokenizeError> {
    catch_unwind(AssertUnwindSafe(run)).unwrap_or(Err(TokenizeError::Panicked))
}
