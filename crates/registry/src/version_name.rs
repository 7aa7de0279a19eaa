//! The order of versions: numbers as numbers, the rest as text.

use std::cmp::Ordering;

use serde::{Deserialize, Serialize};

/// A version's name, ordered so that 9 comes before 10 and 1.9 before 1.10.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct VersionName(String);

impl VersionName {
    /// A version of this name.
    #[must_use]
    pub fn new(name: &str) -> Self {
        Self(name.to_owned())
    }

    /// Its name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Ord for VersionName {
    fn cmp(&self, other: &Self) -> Ordering {
        // 1 and 01 are the same number, but two names.
        split_parts(&self.0).cmp(split_parts(&other.0)).then_with(|| self.0.cmp(&other.0))
    }
}

impl PartialOrd for VersionName {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// Runs of digits, and of anything else. Text has no number of digits and comes before a number, so 1.0-rc1 before 1.0.1.
/// A number has the number of its digits without leading zeros, then the digits: any length compares as a number.
fn split_parts(name: &str) -> impl Iterator<Item = (Option<usize>, &str)> {
    let mut rest = name;
    std::iter::from_fn(move || {
        let first = rest.chars().next()?.is_ascii_digit();
        let end = rest.find(|c: char| c.is_ascii_digit() != first).unwrap_or(rest.len());
        let (part, tail) = rest.split_at(end);
        rest = tail;
        let digits = part.trim_start_matches('0');
        Some(if first { (Some(digits.len()), digits) } else { (None, part) })
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn version_order_compares_numbers() {
        let mut versions = ["10", "9", "1.10", "1.9", "2024-11-01", "v2", "v10", "1", "01", "99999999999999999999999"]
            .map(VersionName::new);
        versions.sort();
        let names: Vec<&str> = versions.iter().map(VersionName::as_str).collect();
        assert_eq!(names, ["v2", "v10", "01", "1", "1.9", "1.10", "9", "10", "2024-11-01", "99999999999999999999999"]);
    }

    proptest! {
        #[test]
        fn version_order_is_total(a in "[0-9a-z.]{1,8}", b in "[0-9a-z.]{1,8}", c in "[0-9a-z.]{1,8}") {
            let a = VersionName::new(&a);
            let b = VersionName::new(&b);
            let c = VersionName::new(&c);
            prop_assert_eq!(a.cmp(&b), b.cmp(&a).reverse());
            prop_assert_eq!(a == b, a.cmp(&b) == Ordering::Equal);
            if a <= b && b <= c { prop_assert!(a <= c); }
        }
    }
}
