//! The files that a tokenizer is read from, and errors about them.

use std::fmt::Display;

use crate::manifest::ManifestError;

/// The tokenizer itself.
pub(super) const TOKENIZER_FILE: &str = "tokenizer.json";

/// Its settings.
pub(super) const TOKENIZER_CONFIG_FILE: &str = "tokenizer_config.json";

pub(super) fn file_error(reason: impl Display) -> ManifestError {
    ManifestError::new(TOKENIZER_FILE, reason.to_string())
}

pub(super) fn config_error(reason: String) -> ManifestError {
    ManifestError::new(TOKENIZER_CONFIG_FILE, reason)
}
