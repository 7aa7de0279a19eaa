//! What a text may hold: every mode on any text, and what each mode promises of a text it lets through.

#![no_main]

use html5gum::{Token, Tokenizer};
use libfuzzer_sys::fuzz_target;
use predictd::text::policy::{CharacterSet, PolicyError, TextPolicy};
use predictd::text::text_policies::MarkupPolicy;

// The first line is the set of allowed characters, the rest is the text.
fuzz_target!(|input: &[u8]| {
    let input = String::from_utf8_lossy(input);
    let (entries, text) = input.split_once('\n').unwrap_or(("", &input));
    for markup in [MarkupPolicy::Allow, MarkupPolicy::Reject, MarkupPolicy::Strip] {
        let outcome = TextPolicy { markup, allowed_characters: None }.apply(text.to_owned());
        match markup {
            MarkupPolicy::Allow => assert_eq!(outcome.as_deref(), Ok(text)),
            MarkupPolicy::Reject => reject(text, &outcome),
            MarkupPolicy::Strip => strip(text, &outcome),
        }
        allowed(entries, text, markup, &outcome);
    }
});

fn is_control(c: char) -> bool {
    c.is_control() && !matches!(c, '\t' | '\n' | '\r')
}

/// A text passes as it is. Only control characters and markup are refused.
fn reject(text: &str, outcome: &Result<String, PolicyError>) {
    match outcome {
        Ok(passed) => assert!(passed == text && !text.contains(is_control)),
        Err(PolicyError::ControlCharacter(c)) => {
            assert!(text.chars().any(|found| is_control(found) && u32::from(found) == *c));
        }
        Err(PolicyError::Script | PolicyError::ScriptUrl | PolicyError::EventHandler | PolicyError::Eval) => {
            assert!(text.contains('<') && !text.contains(is_control));
        }
        Err(other) => panic!("{other:?}"),
    }
}

/// Words with one space between them, and no markup but what entities spell.
fn strip(text: &str, outcome: &Result<String, PolicyError>) {
    let plain = match outcome {
        Ok(plain) => plain,
        Err(PolicyError::OnlyMarkup) => {
            let blank = text.chars().all(|c| c.is_whitespace() || c.is_control());
            assert!(blank || text.contains(['<', '&']));
            return;
        }
        Err(other) => panic!("{other:?}"),
    };
    assert!(!plain.is_empty() && !plain.contains(char::is_control), "{plain:?}");
    assert_eq!(plain.split_whitespace().collect::<Vec<_>>().join(" "), *plain);
    // `&lt;b&gt;` is a text about a tag.
    if !text.contains('&') {
        for Ok(token) in Tokenizer::new(plain.as_str()) {
            assert!(matches!(token, Token::String(_) | Token::Error(_)), "{plain:?} has {token:?}");
        }
    }
}

/// A set of characters takes nothing else away and adds nothing.
fn allowed(entries: &str, text: &str, markup: MarkupPolicy, without: &Result<String, PolicyError>) {
    let entries: Vec<String> = entries.split(' ').map(str::to_owned).collect();
    let in_set = |c: char| {
        entries.iter().any(|entry| match entry.chars().collect::<Vec<_>>()[..] {
            [first, '-', last] => (first..=last).contains(&c),
            _ => entry.contains(c),
        })
    };
    let allowed = Some(CharacterSet::parse(&entries));
    let policy = TextPolicy { markup, allowed_characters: allowed };
    match policy.apply(text.to_owned()) {
        Ok(passed) => assert!(without.as_ref() == Ok(&passed) && passed.chars().all(in_set)),
        Err(PolicyError::DisallowedCharacter(c)) => {
            let c = char::from_u32(c).expect("a character");
            assert!(!in_set(c) && without.as_ref().is_ok_and(|text| text.contains(c)));
        }
        Err(error) => assert_eq!(without.as_ref(), Err(&error)),
    }
}
