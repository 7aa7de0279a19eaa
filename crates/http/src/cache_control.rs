//! What a client wants of the result cache: the header `Cache-Control`.

use axum::http::HeaderMap;
use axum::http::header::CACHE_CONTROL;
use predictd_engine::cache_lookup::CacheMode;

/// `no-cache` and `no-store`; everything else that the header can say is about caches on the way.
#[must_use]
pub fn cache_mode(headers: &HeaderMap) -> CacheMode {
    let lines = headers.get_all(CACHE_CONTROL).iter();
    lines.map(|line| parse_cache_mode(line.as_bytes())).max().unwrap_or_default()
}

/// What one line of the header asks for: a list of directives, some with a value, which may be quoted.
fn parse_cache_mode(line: &[u8]) -> CacheMode {
    let mut quoted = false;
    let mut escaped = false;
    let ends_directive = |byte: &u8| {
        let inside = quoted;
        match byte {
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' => quoted = !quoted,
            _ => {}
        }
        *byte == b',' && !inside
    };
    let directive = |part: &[u8]| {
        let name = part.split(|byte| *byte == b'=').next().unwrap_or_default().trim_ascii();
        if name.eq_ignore_ascii_case(b"no-store") {
            CacheMode::Bypass
        } else if name.eq_ignore_ascii_case(b"no-cache") {
            CacheMode::Refresh
        } else {
            CacheMode::ReadWrite
        }
    };
    line.split(ends_directive).map(directive).max().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cache_control_directive_anywhere_is_found() {
        for line in [
            "no-cache",
            "No-Cache",
            " no-cache ",
            "max-age=0, no-cache",
            "no-cache,max-age=5",
            ",,no-cache,,",
            "x=\"a\", no-cache",
            "no-cache=1",
        ] {
            assert_eq!(parse_cache_mode(line.as_bytes()), CacheMode::Refresh, "{line}");
        }
        for line in ["no-store", "no-cache, NO-STORE", "no-store, no-cache", "x=\"\\\"\", no-store"] {
            assert_eq!(parse_cache_mode(line.as_bytes()), CacheMode::Bypass, "{line}");
        }
    }

    #[test]
    fn cache_control_lookalike_directive_is_ignored() {
        for line in [
            "",
            "no",
            "no-caches",
            "x=no-cache",
            "x=\"a, no-cache, b\"",
            "x=\"\\\", no-store\"",
            "nocache",
            "no-cache no-store",
            "\u{ff}",
        ] {
            assert_eq!(parse_cache_mode(line.as_bytes()), CacheMode::ReadWrite, "{line}");
        }
    }
}
