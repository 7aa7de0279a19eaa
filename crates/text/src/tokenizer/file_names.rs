//! The files that a tokenizer is read from.

/// The tokenizer itself.
pub(super) const TOKENIZER_FILE: &str = "tokenizer.json";

/// Its settings.
pub(super) const TOKENIZER_CONFIG_FILE: &str = "tokenizer_config.json";
