//! Two texts in one row.

use tokenizers::Encoding;
use tokenizers::tokenizer::{Model as _, OffsetType, PreTokenizer as _};

use super::error::TokenizeError;
use super::panics::catch_panic;
use super::{TokenizedText, Tokenizer};
use crate::input::SecondText;
use crate::text_policies::OverflowPolicy;

impl Tokenizer {
    /// True if two texts fit between the special tokens of a row.
    #[must_use]
    pub fn has_pair_support(&self) -> bool {
        self.pair_capacity().is_some()
    }

    fn pair_capacity(&self) -> Option<usize> {
        self.max_tokens().checked_sub(self.pair_special_token_count?).filter(|&room| room > 1)
    }

    /// Tokenises two texts that belong together. They are never scored in windows: what is too long is cut off the
    /// longer text, as the crate's `longest_first` does, or off the first one.
    ///
    /// # Errors
    /// [`TokenizeError::TooLong`] where long texts are refused or the second one leaves no room, else only if the
    /// tokenizer fails.
    pub fn encode_pair(&self, first: &str, second: &SecondText) -> Result<TokenizedText, TokenizeError> {
        catch_panic(|| {
            let room = self.pair_capacity().ok_or(TokenizeError::Failed)?;
            let limit = self.max_tokens();
            let enough = limit.max(self.text_capacity() + 1);
            let mut a = self.encode_at_least(first, enough)?;
            let mut b = self.encode_at_least(&second.text, enough)?;
            let in_first = discard_overflow(&mut a);
            let in_second = discard_overflow(&mut b);
            let tokens = in_first + in_second + limit - room;
            let is_truncated = in_first + in_second > room;
            if is_truncated {
                let too_long = TokenizeError::TooLong { tokens, limit };
                let kept = match self.on_overflow {
                    OverflowPolicy::Error => None,
                    _ if second.truncate_only_first => {
                        room.checked_sub(in_second).filter(|&left| left > 0).map(|left| (left, in_second))
                    }
                    // Where both are halved, and one gets the odd token, their full lengths count.
                    OverflowPolicy::Truncate if room % 2 == 1 && in_first.min(in_second) > room / 2 => {
                        Some(longest_first(self.count_tokens(first)?, self.count_tokens(&second.text)?, room))
                    }
                    OverflowPolicy::Truncate | OverflowPolicy::Window => Some(longest_first(in_first, in_second, room)),
                };
                let (kept_of_first, kept_of_second) = kept.ok_or(too_long)?;
                for (encoding, kept) in [(&mut a, kept_of_first), (&mut b, kept_of_second)] {
                    encoding.truncate(kept, 0, self.truncation_direction);
                    encoding.take_overflowing();
                }
            }
            let unknown_count = self.count_unknown(a.get_ids()) + self.count_unknown(b.get_ids());
            let row = self.to_token_row(&self.add_special_tokens(a, Some(b))?);
            if row.ids.is_empty() {
                return Err(TokenizeError::NoTokens);
            }
            Ok(TokenizedText {
                rows: vec![row],
                token_count: tokens.min(limit),
                unknown_count,
                is_truncated,
                ..TokenizedText::default()
            })
        })
    }

    /// Tokens of a whole text, however long. What the crate does for one text, without its truncation, which ends early.
    fn count_tokens(&self, text: &str) -> Result<usize, TokenizeError> {
        let inner = &self.inner;
        let mut pieces = inner.get_added_vocabulary().extract_and_normalize(inner.get_normalizer(), text);
        let cut = inner.get_pre_tokenizer().map_or(Ok(()), |rule| rule.pre_tokenize(&mut pieces));
        let tokens = cut.and_then(|()| inner.get_model().tokenize_in_pretokenized(&mut pieces, None));
        let counted = tokens.and_then(|()| pieces.into_encoding(None, 0, OffsetType::None));
        counted.map(|encoding| encoding.len()).map_err(|_| TokenizeError::Failed)
    }
}

/// Tokens that were read of a text, with those that did not fit. Only the former are kept.
fn discard_overflow(encoding: &mut Encoding) -> usize {
    encoding.take_overflowing().iter().map(Encoding::len).sum::<usize>() + encoding.len()
}

/// How many tokens of two texts are kept if all of them do not fit into `room`: the longer one is cut until both are
/// equally long, then both are; an odd token is the longer one's, or the second's.
fn longest_first(first: usize, second: usize, room: usize) -> (usize, usize) {
    let short = first.min(second).min(room / 2);
    if first > second { (room - short, short) } else { (short, room - short) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn longest_first_cuts_longer_text_first() {
        assert_eq!(longest_first(3, 20, 10), (3, 7));
        assert_eq!(longest_first(20, 3, 10), (7, 3));
        assert_eq!(longest_first(20, 30, 11), (5, 6));
        assert_eq!(longest_first(30, 20, 11), (6, 5));
        assert_eq!(longest_first(20, 20, 11), (5, 6));
        assert_eq!(longest_first(5, 20, 10), (5, 5));
    }

    proptest! {
        #[test]
        fn longest_first_fills_capacity(first in 1_usize..600, second in 1_usize..600, room in 2_usize..512) {
            prop_assume!(first + second > room);
            let (a, b) = longest_first(first, second, room);
            prop_assert_eq!(a + b, room);
            prop_assert!(a > 0 && b > 0 && a <= first && b <= second);
        }
    }
}
