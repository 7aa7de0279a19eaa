//! Names that models and versions may have.

/// Names of models and versions: no path, no surprise in a log line or a metric.
#[must_use]
pub fn is_valid_name(name: &str) -> bool {
    let plain = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit();
    name.len() <= 64
        && name.bytes().next().is_some_and(plain)
        && name.bytes().all(|c| plain(c) || matches!(c, b'.' | b'_' | b'-'))
        && !name.contains("..")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn name_with_path_characters_is_invalid() {
        for good in ["a", "1", "banking77-minilm", "v1.2_3", &"a".repeat(64)] {
            assert!(is_valid_name(good), "{good}");
        }
        for bad in
            ["", ".", "..", "a..b", ".hidden", "A", "a/b", "a\\b", "a b", "ä", "a\n", "a\0", "%2e", &"a".repeat(65)]
        {
            assert!(!is_valid_name(bad), "{bad:?}");
        }
    }
}
