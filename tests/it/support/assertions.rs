//! Numbers compared, and fields that must not be there.

use serde_json::Value;

use crate::support::test_server::Response;

/// Asserts that an object has none of these fields, not even as `null`.
#[track_caller]
pub(crate) fn assert_fields_absent(reply: &Response, fields: &[&str]) {
    let object: Value = reply.json();
    assert!(fields.iter().all(|field| object.get(field).is_none()), "{object} has one of {fields:?}");
}

/// Equal but for the rounding of single precision.
#[track_caller]
pub(crate) fn assert_near(found: &[f64], expected: &[f64]) {
    let near = |(f, e): (&f64, &f64)| (f - e).abs() <= 1e-5 * e.abs().max(1.0);
    assert!(
        found.len() == expected.len() && found.iter().zip(expected).all(near),
        "found {found:?}, expected {expected:?}"
    );
}

pub(crate) fn softmax(logits: &[f64]) -> Vec<f64> {
    let sum: f64 = logits.iter().map(|z| z.exp()).sum();
    logits.iter().map(|z| z.exp() / sum).collect()
}
