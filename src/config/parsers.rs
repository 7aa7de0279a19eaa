//! Parsers of values that several groups of options share.

use std::path::PathBuf;

use clap::builder::{OsStringValueParser, TypedValueParser};

/// Parses a path. It may be empty: container files set variables to nothing to mean "not set".
pub(crate) fn path_parser() -> impl TypedValueParser<Value = PathBuf> {
    OsStringValueParser::new().map(PathBuf::from)
}

/// Returns a path, or nothing if it is not set or empty.
pub(super) fn non_empty_path(path: Option<&PathBuf>) -> Option<PathBuf> {
    path.filter(|path| !path.as_os_str().is_empty()).cloned()
}
