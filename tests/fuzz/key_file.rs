//! The file of API keys: whatever it holds, it is read, or refused in a short sentence that shows no key.

#![no_main]

use libfuzzer_sys::fuzz_target;
use predictd::http::api_keys::KeyFile;

/// Longest refusal in bytes: it becomes a line on the terminal and in the log.
const LONGEST_ERROR: usize = 512;
/// As many characters of a file in a refusal could be a key's.
const TELLING: usize = 32;

fuzz_target!(|input: &[u8]| {
    let text = String::from_utf8_lossy(input);
    let Err(error) = KeyFile::parse(&text) else { return };
    assert!((1..=LONGEST_ERROR).contains(&error.len()), "{} bytes: {error}", error.len());
    for word in text.split_whitespace().filter(|word| word.len() >= TELLING) {
        assert!(!error.contains(word), "the refusal repeats {word:?}");
    }
});
