//! The certificate of the data listener.

use std::path::PathBuf;

use super::parsers::non_empty_path;
use super::serve_args::ServeArgs;

/// A certificate chain and its key, as files.
#[derive(Debug, Clone)]
pub struct TlsFiles {
    /// The chain.
    pub cert: PathBuf,
    /// The key.
    pub key: PathBuf,
}

impl TlsFiles {
    /// Takes the two files from the options; nothing if neither is named.
    ///
    /// # Errors
    /// A sentence with the options' names if only one is named.
    pub(super) fn from_args(args: &ServeArgs) -> Result<Option<Self>, String> {
        match (non_empty_path(args.tls_cert.as_ref()), non_empty_path(args.tls_key.as_ref())) {
            (Some(cert), Some(key)) => Ok(Some(Self { cert, key })),
            (None, None) => Ok(None),
            _ => Err("--tls-cert and --tls-key belong together: one of them is missing".to_owned()),
        }
    }
}
