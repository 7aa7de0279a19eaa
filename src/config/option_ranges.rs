//! The ranges of options that are numbers or times.

use std::ops::RangeInclusive;
use std::time::Duration;

use super::serve_args::ServeArgs;

/// Most threads that an option can ask for.
pub(super) const MAX_THREADS: usize = 1_024;
/// The range of a cache that is not off, in bytes.
const CACHE_BYTES_RANGE: RangeInclusive<usize> = 1 << 20..=1 << 40;
/// The longest time that an option can ask for: a day.
const MAX_TIMEOUT: Duration = Duration::from_hours(24);

/// Finds the options that are out of range.
///
/// Returns a sentence for each, with the option's name.
pub(super) fn range_errors(args: &ServeArgs, workers: usize) -> Vec<String> {
    let mut errors = Vec::new();
    for (name, value, least, most) in size_ranges(args, workers) {
        if !(least..=most).contains(&value) {
            errors.push(format!("--{name} {value} is not between {least} and {most}"));
        }
    }
    if !(1..=args.max_inflight_items).contains(&args.max_client_batch_size) {
        errors.push(format!(
            "--max-client-batch-size {} is not between 1 and --max-inflight-items {}",
            args.max_client_batch_size, args.max_inflight_items
        ));
    }
    let cache_bytes = args.cache_bytes.unwrap_or_default();
    if cache_bytes != 0 && !CACHE_BYTES_RANGE.contains(&cache_bytes) {
        errors.push(format!(
            "--cache-bytes {cache_bytes} is neither 0 nor between {} and {}",
            CACHE_BYTES_RANGE.start(),
            CACHE_BYTES_RANGE.end()
        ));
    }
    if args.timeout.is_zero() || args.timeout > args.max_timeout {
        errors
            .push(format!("--timeout {:?} is not between 1 ms and --max-timeout {:?}", args.timeout, args.max_timeout));
    }
    for (name, time, may_be_zero) in duration_options(args) {
        let least = if may_be_zero { Duration::ZERO } else { Duration::from_millis(1) };
        if !(least..=MAX_TIMEOUT).contains(&time) {
            errors.push(format!("--{name} {time:?} is not between {least:?} and a day"));
        }
    }
    errors
}

/// Lists the options that are sizes: name, value, least and most.
fn size_ranges(args: &ServeArgs, workers: usize) -> [(&'static str, usize, usize, usize); 12] {
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

/// Lists the options that are times, without `--timeout`: name, value, whether it can be 0.
fn duration_options(args: &ServeArgs) -> [(&'static str, Duration, bool); 11] {
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
