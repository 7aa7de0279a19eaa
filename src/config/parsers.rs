//! Parsers of values that several groups of options share.

use std::path::{Path, PathBuf};

use clap::builder::{OsStringValueParser, TypedValueParser};
use reqwest::Url;

/// Parses a path. It may be empty: container files set variables to nothing to mean "not set".
pub(crate) fn path_parser() -> impl TypedValueParser<Value = PathBuf> {
    OsStringValueParser::new().map(PathBuf::from)
}

/// True for a path of an option that is set: for one that is not empty.
pub(crate) fn is_set(path: &impl AsRef<Path>) -> bool {
    !path.as_ref().as_os_str().is_empty()
}

/// Parses the HTTP address of a server, which may be logged. `example` is one, and `secrets` says where secrets belong.
///
/// # Errors
/// What is wrong with it, a sentence with the option's name. The address is not quoted: it may hold a secret.
pub(super) fn parse_server_url(option: &str, typed: &str, example: &str, secrets: &str) -> Result<Url, String> {
    let url = Url::parse(typed).map_err(|_| format!("{option}: this is no URL such as {example}"))?;
    if !matches!(url.scheme(), "http" | "https") {
        return Err(format!("{option}: the URL must begin with http:// or https://"));
    }
    if !url.username().is_empty() || url.password().is_some() || url.query().is_some() || url.fragment().is_some() {
        return Err(format!(
            "{option}: the URL must have no user, no password and nothing after ? or #: put secrets into {secrets}"
        ));
    }
    Ok(url)
}
