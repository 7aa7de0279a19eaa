//! What a request may be at most, and how long a client may keep the server waiting.

use predictd_http::settings::{ClientTimeouts, RequestLimits};

use super::serve_args::ServeArgs;

pub(super) fn request_limits(args: &ServeArgs) -> RequestLimits {
    RequestLimits {
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

pub(super) fn client_timeouts(args: &ServeArgs) -> ClientTimeouts {
    ClientTimeouts {
        first_byte: args.first_byte_timeout,
        header: args.header_timeout,
        body_idle: args.body_idle_timeout,
        body: args.body_timeout,
        write: args.write_timeout,
        keep_alive: args.keep_alive,
    }
}
