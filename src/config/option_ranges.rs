//! What options that are numbers or times may be.

use std::time::Duration;

use super::serve_args::ServeArgs;

/// Most threads that an option can ask for.
pub(super) const MAX_THREADS: usize = 1_024;

/// Options that are sizes, each with what it may be.
pub(super) fn size_ranges(args: &ServeArgs, workers: usize) -> [(&'static str, usize, usize, usize); 12] {
    [
        ("workers", workers, 1, MAX_THREADS),
        ("max-batch-tokens", args.max_batch_tokens.unwrap_or(1), 1, 1 << 20),
        ("max-batch-size", args.max_batch_size.unwrap_or(1), 1, 1_024),
        ("intra-op-threads", args.intra_op_threads, 1, MAX_THREADS),
        ("max-body", args.max_body, 1_024, 1 << 30),
        // hyper's own limits are a little higher: what passes these must pass its.
        ("max-headers", args.max_headers, 8, 96),
        ("max-header-bytes", args.max_header_bytes, 1_024, 40 << 10),
        ("max-uri", args.max_uri, 64, 16 << 10),
        ("max-text-chars", args.max_text_chars, 1, 1 << 24),
        ("max-inflight-items", args.max_inflight_items, 1, 1 << 20),
        ("max-connections", args.max_connections, 1, 1 << 20),
        ("response-memory", args.response_memory.unwrap_or(1 << 20), 1 << 20, 1 << 40),
    ]
}

/// The options that are times, but for `--timeout`: name, value, whether it can be 0.
pub(super) fn duration_options(args: &ServeArgs) -> [(&'static str, Duration, bool); 11] {
    [
        ("max-timeout", args.max_timeout, false),
        ("max-queue-wait", args.max_queue_wait, false),
        ("max-batch-time", args.max_batch_time.unwrap_or(Duration::from_millis(1)), false),
        ("first-byte-timeout", args.first_byte_timeout, false),
        ("header-timeout", args.header_timeout, false),
        ("body-idle-timeout", args.body_idle_timeout, false),
        ("body-timeout", args.body_timeout, false),
        ("write-timeout", args.write_timeout, false),
        ("keep-alive", args.keep_alive, false),
        ("drain-delay", args.drain_delay, true),
        ("drain-timeout", args.drain_timeout, true),
    ]
}
