//! What a text may hold before a model sees it: markup, control characters, foreign characters.
//!
//! Markup is found by a tokenizer that follows the HTML standard, so that a tag here is what a
//! browser would take for one: `a < b` is none.

use html5gum::{DefaultEmitter, HtmlString, StartTag, State, Token, Tokenizer};

use crate::text_policies::MarkupPolicy;

/// Attributes whose value a browser opens or shows as a page.
const URL_ATTRIBUTES: [&str; 9] =
    ["href", "src", "action", "formaction", "xlink:href", "data", "poster", "background", "srcdoc"];

/// What a model's texts may hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TextPolicy {
    /// What to do with markup and control characters.
    pub markup: MarkupPolicy,
    /// Characters that a text may hold, if not all.
    pub allowed_characters: Option<CharacterSet>,
}

/// Why a text is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PolicyError {
    /// A script element.
    #[error("a text must not contain a script element")]
    Script,
    /// A `javascript:` URL in markup.
    #[error("a text must not contain markup with a javascript: URL")]
    ScriptUrl,
    /// An attribute such as `onclick`.
    #[error("a text must not contain markup with an event handler")]
    EventHandler,
    /// An `eval(` call in markup.
    #[error("a text must not contain markup with a call of eval")]
    Eval,
    /// A control character other than tab and the ends of lines.
    #[error("a text must not contain the control character U+{0:04X}")]
    ControlCharacter(u32),
    /// A character that the model's set leaves out.
    #[error("this model takes no texts with the character U+{0:04X}")]
    DisallowedCharacter(u32),
    /// Nothing but markup.
    #[error("a text must not be empty or blank once its markup is removed")]
    OnlyMarkup,
}

impl TextPolicy {
    /// The text as the model shall see it.
    ///
    /// # Errors
    /// [`PolicyError`] if the model's policy refuses the text.
    pub fn apply(&self, text: String) -> Result<String, PolicyError> {
        let text = match self.markup {
            MarkupPolicy::Allow => text,
            MarkupPolicy::Reject => {
                if let Some(control) = find_control(&text) {
                    return Err(PolicyError::ControlCharacter(control.into()));
                }
                reject_active_markup(&text)?;
                text
            }
            MarkupPolicy::Strip => strip_markup(&text)?,
        };
        let foreign = self.allowed_characters.as_ref().and_then(|set| text.chars().find(|c| !set.contains(*c)));
        foreign.map_or(Ok(text), |c| Err(PolicyError::DisallowedCharacter(c.into())))
    }
}

/// A set of characters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CharacterSet(Vec<(char, char)>);

impl CharacterSet {
    /// Reads entries such as `"a-z"` (a range) and `".,!?"` (each of these).
    #[must_use]
    pub fn parse(entries: &[String]) -> Self {
        let ranges = entries.iter().flat_map(|entry| {
            let characters: Vec<char> = entry.chars().collect();
            match characters[..] {
                [first, '-', last] => vec![(first, last)],
                _ => characters.into_iter().map(|c| (c, c)).collect(),
            }
        });
        Self(ranges.collect())
    }

    fn contains(&self, c: char) -> bool {
        self.0.iter().any(|(first, last)| (*first..=*last).contains(&c))
    }
}

fn is_control(c: char) -> bool {
    c.is_control() && !matches!(c, '\t' | '\n' | '\r')
}

fn find_control(text: &str) -> Option<char> {
    // A vectorized scan of bytes first: a control character is ASCII, or begins with 0xC2.
    let suspects = text.bytes().fold(0, |found, byte| found | u8::from(matches!(byte, 0..b' ' | 0x7f | 0xc2)));
    if suspects > 0 { text.chars().find(|c| is_control(*c)) } else { None }
}

fn reject_active_markup(text: &str) -> Result<(), PolicyError> {
    if !text.contains('<') {
        return Ok(());
    }
    // A tag that the text leaves open is closed by whatever follows the text in a page.
    for closing in [">", "\">", "'>"] {
        for Ok(token) in Tokenizer::new([text, closing].concat().as_str()) {
            if let Token::StartTag(tag) = token {
                reject_active_tag(&tag)?;
            }
        }
    }
    Ok(())
}

fn reject_active_tag(tag: &StartTag<()>) -> Result<(), PolicyError> {
    if tag.name.as_slice() == b"script" {
        return Err(PolicyError::Script);
    }
    for (name, value) in &tag.attributes {
        let value = value.value.to_ascii_lowercase();
        // Browsers skip these inside a URL's scheme.
        let visible: Vec<u8> =
            value.iter().copied().filter(|c| !c.is_ascii_whitespace() && !c.is_ascii_control()).collect();
        if name.len() > 2 && name.starts_with(b"on") {
            return Err(PolicyError::EventHandler);
        }
        if URL_ATTRIBUTES.map(str::as_bytes).contains(&name.as_slice()) && visible.starts_with(b"javascript:") {
            return Err(PolicyError::ScriptUrl);
        }
        if visible.windows(5).any(|window| window == b"eval(") {
            return Err(PolicyError::Eval);
        }
    }
    Ok(())
}

/// The text of a page: tags and comments become white space, script and style go with their
/// content, runs of white space become one space, control characters go, entities become characters.
fn strip_markup(text: &str) -> Result<String, PolicyError> {
    // What goes must not leave a tag behind where there was none, as in `<</>b>`.
    let mut text = text.replace("\r\n", "\n").replace('\r', "\n");
    text.retain(|c| !is_control(c));
    let text = text.replace("</>", " ");
    let mut tokens = Tokenizer::new_with_emitter(text.as_str(), DefaultEmitter::<usize>::new_with_span());
    let mut plain = String::with_capacity(text.len());
    let mut hidden = false;
    let mut end = 0;
    while let Some(Ok(token)) = tokens.next() {
        if !matches!(token, Token::String(_) | Token::Error(_)) {
            plain.push(' ');
        }
        let span = match token {
            Token::String(string) => {
                if !hidden {
                    plain.push_str(&String::from_utf8_lossy(&string.value));
                }
                string.span
            }
            Token::StartTag(tag) => {
                hidden = is_hidden_element(&tag.name);
                if hidden {
                    // Up to the end tag of that name, as a browser reads it. The content of elements such as
                    // textarea is read as markup here, though it is none: shown as it is, it could pass for a script.
                    tokens.set_state(if tag.name.as_slice() == b"script" { State::ScriptData } else { State::RawText });
                }
                tag.span
            }
            Token::EndTag(tag) => {
                hidden &= !is_hidden_element(&tag.name);
                tag.span
            }
            Token::Comment(comment) => comment.span,
            Token::Doctype(doctype) => doctype.span,
            Token::Error(_) => continue,
        };
        end = span.end;
    }
    if !hidden {
        // A tag that never ends is none: "a <b" is a comparison.
        plain.push_str(text.get(end..).unwrap_or_default());
    }
    // An entity can be a control character.
    plain.retain(|c| !is_control(c));
    let folded = plain.split_whitespace().collect::<Vec<_>>().join(" ");
    if folded.is_empty() { Err(PolicyError::OnlyMarkup) } else { Ok(folded) }
}

/// Elements whose content is not text.
fn is_hidden_element(name: &HtmlString) -> bool {
    matches!(name.as_slice(), b"script" | b"style")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn apply(markup: MarkupPolicy, text: &str) -> Result<String, PolicyError> {
        TextPolicy { markup, allowed_characters: None }.apply(text.to_owned())
    }

    #[test]
    fn policy_active_markup_is_rejected() {
        for (text, error) in [
            ("<script>alert(1)</script>", PolicyError::Script),
            ("hello <SCRIPT src=//x", PolicyError::Script),
            ("<style><script></style>", PolicyError::Script),
            ("<a href=\"javascript:alert(1)\">x</a>", PolicyError::ScriptUrl),
            ("<a href=' JaVa\tScript:alert(1)'>x</a>", PolicyError::ScriptUrl),
            ("<a href=\"&#106;avascript:alert(1)\">x</a>", PolicyError::ScriptUrl),
            ("<img src=x onerror=alert(1)>", PolicyError::EventHandler),
            ("<img src=\"x\" onerror=\"alert(1)", PolicyError::EventHandler),
            ("<svg/onload=alert(1)>", PolicyError::EventHandler),
            ("<p style=\"width: eval (1)\">x</p>", PolicyError::Eval),
        ] {
            assert_eq!(apply(MarkupPolicy::Reject, text), Err(error), "{text}");
            assert_eq!(apply(MarkupPolicy::Allow, text).unwrap(), text);
        }
    }

    #[test]
    fn policy_ordinary_sentences_pass() {
        for text in [
            "Is 3 < 5, and is a<b when b > a?",
            "I <3 my card",
            "What does eval(x) do in JavaScript: is it safe?",
            "javascript:void(0) is what the page shows me",
            "The tag <b>bold</b> and <a href='https://example.org/on'>a link</a>",
            "My e-mail is <me@example.org>, on one line\nor two\tor three",
            "onclick=buy",
        ] {
            assert_eq!(apply(MarkupPolicy::Reject, text).unwrap(), text);
        }
    }

    #[test]
    fn policy_strip_removes_markup() {
        for (text, plain) in [
            ("<p>My card</p><p>is <b>lost</b>.</p>", "My card is lost ."),
            ("a<script>let x = '<b>';</script>b<style>p {}</style>c", "a b c"),
            ("if a < b &amp; b <c", "if a < b & b <c"),
            ("  two\r\n lines <!-- and a comment -->\u{7}end ", "two lines end"),
            ("<script>never closed", "<nothing>"),
            ("<style>a </style x='>'> b <script>\"</scrip>\"</SCRIPT> c <STYLE/><i>d</style>", "b c"),
            ("<textarea><script>a</script>b</textarea><xmp><i>c</xmp>", "b c"),
            ("<noframe><b>a</b> <plaintext><i>b", "a b"),
            ("<\u{1}b>a</b>", "a"),
            ("<<!-- a comment -->b>", "< b>"),
            ("<<!doctype html>b>", "< b>"),
            ("<</>b>", "< b>"),
            ("a&#1;b", "ab"),
        ] {
            let expected = if plain == "<nothing>" { Err(PolicyError::OnlyMarkup) } else { Ok(plain.to_owned()) };
            assert_eq!(apply(MarkupPolicy::Strip, text), expected, "{text}");
        }
    }

    #[test]
    fn policy_control_and_disallowed_characters_are_rejected() {
        assert_eq!(apply(MarkupPolicy::Reject, "a\u{1b}[31m"), Err(PolicyError::ControlCharacter(0x1b)));
        assert_eq!(
            apply(MarkupPolicy::Reject, "a\u{200d}\u{202e}\u{1f469}\u{301}"),
            Ok("a\u{200d}\u{202e}\u{1f469}\u{301}".to_owned())
        );
        let allowed = Some(CharacterSet::parse(&["a-z".to_owned(), " .,-".to_owned()]));
        let policy = TextPolicy { markup: MarkupPolicy::Reject, allowed_characters: allowed };
        assert!(policy.apply("plain text, well-formed.".to_owned()).is_ok());
        assert_eq!(policy.apply("Upper".to_owned()), Err(PolicyError::DisallowedCharacter(0x55)));
    }

    proptest! {
        #[test]
        fn policy_arbitrary_text_never_panics(text in "[a-c<>/\"'=! \r\n&;-]{0,60}") {
            _ = apply(MarkupPolicy::Reject, &text);
            if let Ok(plain) = apply(MarkupPolicy::Strip, &text) {
                prop_assert!(!plain.trim().is_empty());
            }
        }
    }
}
