//! Settings of listeners, middleware and routes.

use std::path::PathBuf;
use std::time::Duration;

use super::listen_address::ListenAddress;

/// The listeners and their access control.
#[derive(Debug, Clone)]
pub struct AccessSettings {
    /// Address of the data listener.
    pub listen: ListenAddress,
    /// When the data listener takes connections.
    pub accept_mode: AcceptMode,
    /// Address of the admin listener.
    pub admin_listen: ListenAddress,
    /// Names and addresses that clients may use for the admin listener, besides those of loopback. Lower case, without a
    /// dot at the end.
    pub admin_hosts: Vec<String>,
    /// File of the API keys.
    pub key_file: PathBuf,
    /// That file was named: it must be there.
    pub is_key_file_explicit: bool,
    /// Predictions and feedback need no key.
    pub allow_anonymous: bool,
}

/// When the data listener takes connections.
#[derive(Debug, Clone, Copy)]
#[cfg_attr(feature = "clap", derive(clap::ValueEnum))]
pub enum AcceptMode {
    /// From the start: requests for a model that is still being loaded get 503.
    Start,
    /// Once every model was tried and the default one answers; until then connections are refused, and a proxy asks another
    /// replica.
    Ready,
}

/// When an answer says where the time of its request went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "clap", derive(clap::ValueEnum))]
pub enum ServerTimingMode {
    /// Never.
    Off,
    /// Only to a client that asks for it.
    OnRequest,
    /// Always.
    Always,
}

impl ServerTimingMode {
    /// True for a client that asks for it, or does not.
    #[must_use]
    pub fn is_enabled_for(self, is_requested: bool) -> bool {
        self == Self::Always || (self == Self::OnRequest && is_requested)
    }
}

/// A certificate chain and its key, as files.
#[derive(Debug, Clone)]
pub struct TlsFiles {
    /// The chain.
    pub cert: PathBuf,
    /// The key.
    pub key: PathBuf,
}

/// What a request may be at most.
#[derive(Debug, Clone, Copy)]
pub struct RequestLimits {
    /// Headers.
    pub max_headers: usize,
    /// Bytes of all headers, names and values and the four bytes between and after them.
    pub max_header_bytes: usize,
    /// Bytes of a URI.
    pub max_uri_bytes: usize,
    /// Bytes of a body.
    pub max_body_bytes: usize,
    /// Characters of a text.
    pub max_text_chars: usize,
    /// Texts of a request.
    pub max_client_batch_size: usize,
    /// Texts in flight over all requests.
    pub max_inflight_items: usize,
    /// Open connections.
    pub max_connections: usize,
    /// Time for a request without a timeout of its own.
    pub timeout: Duration,
    /// Longest timeout that a request can ask for.
    pub max_timeout: Duration,
}

/// Time limits of a client.
#[derive(Debug, Clone, Copy)]
pub struct ClientTimeouts {
    /// For the first byte on a new connection.
    pub first_byte: Duration,
    /// For a whole head, from its first byte; and for a TLS handshake.
    pub header: Duration,
    /// For the next bytes of a body.
    pub body_idle: Duration,
    /// For a whole body.
    pub body: Duration,
    /// For an answer to be taken, from its first pause.
    pub write: Duration,
    /// For the next request on an open connection.
    pub keep_alive: Duration,
}
