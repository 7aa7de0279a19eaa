//! What a request may be at most, and how long a client may keep the server waiting.

use std::time::Duration;

use super::serve_args::ServeArgs;

/// What a request may be at most.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
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
    /// Texts in work over all requests.
    pub max_inflight_items: usize,
    /// Open connections.
    pub max_connections: usize,
    /// Time of a request that names none.
    pub timeout: Duration,
    /// Time that a request can name.
    pub max_timeout: Duration,
}

impl RequestLimits {
    pub(super) fn from_args(args: &ServeArgs) -> Self {
        Self {
            max_headers: args.max_headers,
            max_header_bytes: args.max_header_bytes,
            max_uri_bytes: args.max_uri,
            max_body_bytes: args.max_body,
            max_text_chars: args.max_text_chars,
            max_client_batch_size: args.max_client_batch_size,
            max_inflight_items: args.max_inflight_items,
            max_connections: args.max_connections,
            timeout: args.timeout,
            max_timeout: args.max_timeout,
        }
    }
}

/// How long a client may keep the server waiting.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
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

impl ClientTimeouts {
    pub(super) fn from_args(args: &ServeArgs) -> Self {
        Self {
            first_byte: args.first_byte_timeout,
            header: args.header_timeout,
            body_idle: args.body_idle_timeout,
            body: args.body_timeout,
            write: args.write_timeout,
            keep_alive: args.keep_alive,
        }
    }
}
