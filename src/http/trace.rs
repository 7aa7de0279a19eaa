//! Distributed traces: whose span a request belongs to, and what its own says.

use std::net::IpAddr;

use axum::http::{HeaderMap, HeaderName, StatusCode};
use ipnet::IpNet;

use super::client_address::client_address;
use super::error::ApiError;
use super::story::Story;
use crate::engine::spent::Spent;
use crate::telemetry::spans::{Caller, RequestSpan};

const TRACE_PARENT: HeaderName = HeaderName::from_static("traceparent");
const TRACE_STATE: HeaderName = HeaderName::from_static("tracestate");
/// Longest state that is passed on: what the standard asks for. Each span that waits has it.
const MAX_STATE: usize = 512;

/// The span that a request belongs to, if its headers name one (W3C Trace Context).
///
/// Whether it is recorded is decided by who can be trusted: this machine, and the networks of trusted proxies.
pub fn caller<'a>(headers: &'a HeaderMap, peer: IpAddr, trusted: &[IpNet]) -> Option<Caller<'a>> {
    let mut parts = headers.get(TRACE_PARENT)?.to_str().ok()?.split('-');
    let (version, trace, span, flags) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
    let hexadecimal = |part: &str, digits: usize| {
        part.len() == digits && part.bytes().all(|c| matches!(c, b'0'..=b'9' | b'a'..=b'f'))
    };
    let well = hexadecimal(version, 2) && hexadecimal(trace, 32) && hexadecimal(span, 16) && hexadecimal(flags, 2);
    let known = well && version != "ff" && (version != "00" || parts.next().is_none());
    let zeros = |part: &str| part.bytes().all(|c| c == b'0');
    let sampled = u8::from_str_radix(flags, 16).is_ok_and(|flags| flags & 1 == 1);
    let mut states = headers.get_all(TRACE_STATE).iter();
    let state = states.next().filter(|state| state.len() <= MAX_STATE && states.next().is_none());
    let state = state.and_then(|state| state.to_str().ok()).unwrap_or_default();
    (known && !zeros(trace) && !zeros(span)).then(|| Caller {
        trace,
        span,
        sampled,
        state,
        trusted: is_trusted(peer, headers, trusted),
    })
}

fn is_trusted(peer: IpAddr, headers: &HeaderMap, trusted: &[IpNet]) -> bool {
    let client = client_address(peer, headers, trusted);
    client.is_loopback() || trusted.iter().any(|network| network.contains(&client))
}

/// Says how a request was answered, with a span for each part of its time.
pub fn tell(span: &mut RequestSpan, status: StatusCode, error: Option<&ApiError>, story: Option<&Story>) {
    span.set("http.response.status_code", i64::from(status.as_u16()));
    if let Some(error) = error {
        span.set("error.type", error.code.kind());
    }
    if status.is_server_error() {
        span.fail();
    }
    let Some(Story { model, texts, cached, tokens, spent, .. }) = story else { return };
    span.set("predictd.model", model.name().to_owned());
    span.set("predictd.version", model.version().to_owned());
    for (name, count) in [("predictd.texts", texts), ("predictd.cached", cached), ("predictd.tokens", tokens)] {
        span.set(name, i64::try_from(*count).unwrap_or(i64::MAX));
    }
    let Spent { since: Some(since), tokenise, queue, run, run_texts } = *spent else { return };
    let run_texts = i64::try_from(run_texts).unwrap_or(i64::MAX);
    span.part("tokenise", since, tokenise, None);
    span.part("queue", since + tokenise, queue, None);
    span.part("run", since + tokenise + queue, run, Some(("predictd.run_texts", run_texts)));
}
