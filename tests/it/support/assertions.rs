//! Numbers compared.

use serde_json::Value;

/// The numbers of a JSON list.
pub(crate) fn to_f64s(list: &Value) -> Vec<f64> {
    list.as_array().unwrap_or_else(|| panic!("{list} is not a list")).iter().map(|n| n.as_f64().unwrap()).collect()
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
