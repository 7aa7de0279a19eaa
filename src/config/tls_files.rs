//! The certificate of the data listener.

use predictd_http::settings::TlsFiles;

use super::parsers::is_set;
use super::serve_args::ServeArgs;

/// Takes the two files from the options; nothing if neither is named.
///
/// # Errors
/// A sentence with the options' names if only one is named.
pub(super) fn resolve_tls_files(args: &ServeArgs) -> Result<Option<TlsFiles>, String> {
    match (args.tls_cert.clone().filter(is_set), args.tls_key.clone().filter(is_set)) {
        (Some(cert), Some(key)) => Ok(Some(TlsFiles { cert, key })),
        (None, None) => Ok(None),
        _ => Err("--tls-cert and --tls-key belong together: one of them is missing".to_owned()),
    }
}
