//! What the program's own HTTP clients share: the watcher, `predictd models`, the reader of MLflow's models.

use reqwest::redirect::Policy;
use reqwest::{ClientBuilder, Response};

/// A client that goes nowhere but where it is sent.
pub fn client_builder() -> ClientBuilder {
    install_crypto_provider();
    ClientBuilder::new().redirect(Policy::none())
}

/// Chooses how certificates are checked.
pub fn install_crypto_provider() {
    // Another part of the process may have chosen the same already.
    tokio_rustls::rustls::crypto::ring::default_provider().install_default().ok();
}

/// The innermost reason, which names no URL: one may hold a secret.
#[must_use]
pub fn root_cause(error: &reqwest::Error) -> String {
    let mut reason: &dyn std::error::Error = error;
    while let Some(inner) = reason.source() {
        reason = inner;
    }
    reason.to_string()
}

/// The body of an answer.
///
/// # Errors
/// If it does not come, or is longer than `most` bytes.
pub async fn read_body(mut response: Response, most: usize) -> Result<Vec<u8>, String> {
    let mut body = Vec::new();
    while let Some(part) = response.chunk().await.map_err(|error| root_cause(&error))? {
        if body.len() + part.len() > most {
            return Err(format!("its answer has more than {most} bytes"));
        }
        body.extend_from_slice(&part);
    }
    Ok(body)
}
