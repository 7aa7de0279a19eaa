//! Distributed traces: the parent span of a request, and the attributes of its own.

use std::net::IpAddr;

use axum::http::{HeaderMap, StatusCode};
use ipnet::IpNet;
use predictd_engine::timings::Timings;
use predictd_inference::request_summary::RequestSummary;
use predictd_telemetry::spans::{ParentSpan, RequestSpan};

use super::client_address::client_address;
use super::error::ApiError;

/// Longest state that is passed on: what the standard asks for. Each span that waits has it.
const MAX_TRACE_STATE_BYTES: usize = 512;

/// The span that a request belongs to, if its headers name one (W3C Trace Context).
///
/// The sampling flag counts only from this machine and from trusted proxies.
#[must_use]
pub fn parse_trace_parent<'a>(headers: &'a HeaderMap, peer: IpAddr, trusted: &[IpNet]) -> Option<ParentSpan<'a>> {
    let mut parts = headers.get("traceparent")?.to_str().ok()?.split('-');
    let version = parts.next()?;
    let trace_id = parts.next()?;
    let span_id = parts.next()?;
    let flags = parts.next()?;
    let is_well_formed = is_hexadecimal(version, 2)
        && is_hexadecimal(trace_id, 32)
        && is_hexadecimal(span_id, 16)
        && is_hexadecimal(flags, 2);
    let is_known = is_well_formed && version != "ff" && (version != "00" || parts.next().is_none());
    let is_sampled = u8::from_str_radix(flags, 16).is_ok_and(|flags| flags & 1 == 1);
    let mut states = headers.get_all("tracestate").iter();
    let state = states.next().filter(|state| state.len() <= MAX_TRACE_STATE_BYTES && states.next().is_none());
    let trace_state = state.and_then(|state| state.to_str().ok()).unwrap_or_default();
    let client = client_address(peer, headers, trusted);
    let has_ids = [trace_id, span_id].iter().all(|id| !id.trim_start_matches('0').is_empty());
    (is_known && has_ids).then(|| ParentSpan {
        trace_id,
        span_id,
        is_sampled,
        trace_state,
        is_trusted: client.is_loopback() || trusted.iter().any(|network| network.contains(&client)),
    })
}

/// True for this many lower-case hexadecimal digits.
fn is_hexadecimal(part: &str, digits: usize) -> bool {
    part.len() == digits && part.bytes().all(|c| matches!(c, b'0'..=b'9' | b'a'..=b'f'))
}

/// Records the response in the span, with a child span for each part of its time.
pub fn record_response(
    span: &mut RequestSpan,
    status: StatusCode,
    error: Option<&ApiError>,
    summary: Option<&RequestSummary>,
) {
    span.set_attribute("http.response.status_code", i64::from(status.as_u16()));
    if let Some(error) = error {
        span.set_attribute("error.type", error.code.kind());
    }
    if status.is_server_error() {
        span.set_error();
    }
    let Some(RequestSummary { model, texts, cached, tokens, timings, .. }) = summary else { return };
    span.set_attribute("predictd.model", model.name.clone());
    span.set_attribute("predictd.version", model.version.clone());
    for (name, count) in [("predictd.texts", texts), ("predictd.cached", cached), ("predictd.tokens", tokens)] {
        span.set_attribute(name, i64::try_from(*count).unwrap_or(i64::MAX));
    }
    let Timings { arrived_at: Some(since), tokenize_time, queue_time, run_time, batch_size } = *timings else { return };
    let batch_size = i64::try_from(batch_size).unwrap_or(i64::MAX);
    span.record_child("tokenize", since, tokenize_time, None);
    span.record_child("queue", since + tokenize_time, queue_time, None);
    let inference_start = since + tokenize_time + queue_time;
    span.record_child("inference", inference_start, run_time, Some(("predictd.batch_size", batch_size)));
}
