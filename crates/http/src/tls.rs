//! TLS 1.2 and 1.3 by rustls, with a certificate that can be replaced while the server runs.

use std::fmt::Display;
use std::fs::File;
use std::sync::Arc;

use predictd_metrics::Metrics;
use predictd_platform::clock;
use predictd_platform::file_watcher::FileWatcher;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use tokio_rustls::rustls::time_provider::TimeProvider;

use crate::settings::TlsFiles;

/// The configuration in force.
pub type WatchedTlsConfig = Arc<FileWatcher<ServerConfig>>;

/// The time, for session tickets. That of rustls panics before 1970.
#[derive(Debug)]
struct TlsClock;

impl TimeProvider for TlsClock {
    fn current_time(&self) -> Option<UnixTime> {
        Some(UnixTime::since_unix_epoch(clock::since_unix_epoch(clock::now())))
    }
}

/// Loads the certificate and follows its changes. `metrics` gets its expiry.
///
/// # Errors
/// A sentence that names the option and the file.
pub fn open(files: &TlsFiles, metrics: &Arc<Metrics>) -> Result<WatchedTlsConfig, String> {
    let watched = FileWatcher::open("certificate", vec![files.cert.clone(), files.key.clone()], {
        let files = files.clone();
        let metrics = Arc::clone(metrics);
        move || {
            let (config, expiry) = load_config(&files)?;
            metrics.http.set_certificate_expiry(expiry);
            Ok(config)
        }
    })?;
    watched.watch().map_err(|error| format!("--tls-cert: {error}"))?;
    Ok(watched)
}

fn cert_error(files: &TlsFiles, error: impl Display) -> String {
    format!("--tls-cert {}: {error}", files.cert.display())
}

fn key_error(files: &TlsFiles, error: impl Display) -> String {
    format!("--tls-key {}: {error}", files.key.display())
}

/// The configuration, and the Unix time at which the first certificate of the chain ends to be valid.
fn load_config(files: &TlsFiles) -> Result<(ServerConfig, i64), String> {
    File::open(&files.cert).map_err(|error| cert_error(files, error))?;
    File::open(&files.key).map_err(|error| key_error(files, error))?;
    let chain: Vec<_> = CertificateDer::pem_file_iter(&files.cert)
        .and_then(Iterator::collect)
        .map_err(|_| cert_error(files, "it is not PEM with certificates"))?;
    let first = chain.first().ok_or_else(|| cert_error(files, "there is no certificate in it"))?;
    let (_, parsed) = x509_parser::parse_x509_certificate(first)
        .map_err(|_| cert_error(files, "its first certificate is not X.509"))?;
    let expiry = parsed.validity().not_after.timestamp();
    // What the parser says of a key could repeat part of it.
    let key =
        PrivateKeyDer::from_pem_file(&files.key).map_err(|_| key_error(files, "it is not PEM with one private key"))?;
    let mut config = ServerConfig::builder_with_details(Arc::new(ring::default_provider()), Arc::new(TlsClock))
        .with_safe_default_protocol_versions()
        .map_err(|error| cert_error(files, error))?
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .map_err(|error| cert_error(files, format!("it does not fit --tls-key: {error}")))?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok((config, expiry))
}
