//! Who may use the server: keys, scopes, rates, certificates.

mod keys;
mod rates;
mod tls;
