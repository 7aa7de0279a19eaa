//! From a label for each token to entities: names of people, places, and the like.
//!
//! The rules are those of the token classification pipeline of `transformers`, so that a model finds here what it finds
//! there: which tokens make a word, whose label a word gets, which words make an entity.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::activation::{argmax, first_largest};

/// Tokens with this label belong to no entity.
const OUTSIDE_LABEL: &str = "O";

/// Where a token stands in its text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TokenSpan {
    /// First code point.
    pub start: usize,
    /// The code point after its last.
    pub end: usize,
    /// True if it goes on with the word of the token before.
    pub continues_word: bool,
}

/// A token of the text with one probability per label.
#[derive(Debug, Clone, PartialEq)]
pub struct ScoredToken {
    /// Where it stands.
    pub span: TokenSpan,
    /// In label order.
    pub probabilities: Vec<f32>,
}

/// How tokens are put together, by the names that `transformers` gives these strategies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Aggregation {
    /// Every token by itself, with its whole label.
    None,
    /// Neighbours of one kind are an entity.
    #[default]
    Simple,
    /// A word gets the label of its first token.
    First,
    /// A word gets the label with the highest mean over its tokens.
    Average,
    /// A word gets the label of its surest token.
    Max,
}

/// Something that was found in a text.
#[derive(Debug, Clone, PartialEq)]
pub struct Entity {
    /// Its kind: the label without `B-` and `I-`.
    pub label: String,
    /// Mean probability of the label over its tokens or words.
    pub score: f32,
    /// First code point in the text.
    pub start: usize,
    /// The code point after its last.
    pub end: usize,
    /// What stands there.
    pub text: String,
}

/// A token or word with the label it got.
#[derive(Debug, Clone, Copy)]
struct LabelSpan<'a> {
    label: &'a str,
    score: f32,
    start: usize,
    end: usize,
}

/// The entities of a text, in its order.
#[must_use]
pub fn extract_entities(
    text: &str,
    tokens: &[ScoredToken],
    labels: &[String],
    aggregation: Aggregation,
) -> Vec<Entity> {
    let has_words = !matches!(aggregation, Aggregation::None | Aggregation::Simple);
    let words = tokens.chunk_by(|_, next| has_words && next.span.continues_word);
    let parts: Vec<LabelSpan<'_>> = words.filter_map(|word| label_word(word, labels, aggregation)).collect();
    let joins_parts = aggregation != Aggregation::None;
    let groups = parts.chunk_by(|part, next| joins_parts && is_same_entity(part, next));
    let entities = groups.filter_map(|group| {
        let first = group.first()?;
        let kind = first.label.split_once('-').filter(|_| joins_parts);
        let label = kind.map_or(first.label, |(_, kind)| kind);
        let score = mean(group.iter().map(|part| part.score), group.len());
        let end = group.last()?.end;
        let entity = || Entity { label: label.to_owned(), score, start: first.start, end, text: String::new() };
        (label != OUTSIDE_LABEL).then(entity)
    });
    let mut entities: Vec<Entity> = entities.collect();
    let bytes = byte_offsets(text, entities.iter().flat_map(|entity| [entity.start, entity.end]));
    for entity in &mut entities {
        let range = bytes.get(&entity.start).zip(bytes.get(&entity.end));
        entity.text.push_str(range.and_then(|(&start, &end)| text.get(start..end)).unwrap_or_default());
    }
    entities
}

/// The label of a word.
fn label_word<'a>(word: &[ScoredToken], labels: &'a [String], aggregation: Aggregation) -> Option<LabelSpan<'a>> {
    let first = word.first()?;
    let last = word.last()?;
    let average: Vec<f32>;
    let probabilities = match aggregation {
        Aggregation::None | Aggregation::Simple | Aggregation::First => &first.probabilities,
        Aggregation::Max => {
            let scores = word.iter().map(|token| {
                let best = argmax(&token.probabilities);
                (token, best.map_or(f32::NEG_INFINITY, |(_, score)| score))
            });
            &first_largest(scores)?.0.probabilities
        }
        Aggregation::Average => {
            let means = (0..labels.len()).map(|label| {
                let scores = word.iter().filter_map(|token| token.probabilities.get(label).copied());
                mean(scores, word.len())
            });
            average = means.collect();
            &average
        }
    };
    let (label, score) = argmax(probabilities)?;
    Some(LabelSpan { label: labels.get(label)?, score, start: first.span.start, end: last.span.end })
}

/// True if `next` belongs to the entity that `part` is of.
fn is_same_entity(part: &LabelSpan<'_>, next: &LabelSpan<'_>) -> bool {
    let [part, kind] =
        [part, next].map(|span| span.label.strip_prefix("B-").or(span.label.strip_prefix("I-")).unwrap_or(span.label));
    !next.label.starts_with("B-") && part == kind
}

#[expect(clippy::cast_precision_loss, reason = "a text has far fewer tokens than 2^24")]
fn mean(values: impl Iterator<Item = f32>, count: usize) -> f32 {
    values.sum::<f32>() / count as f32
}

/// Byte places of some code points of a text.
fn byte_offsets(text: &str, code_points: impl Iterator<Item = usize>) -> BTreeMap<usize, usize> {
    let mut bytes: BTreeMap<usize, usize> = code_points.map(|code_point| (code_point, text.len())).collect();
    for (number, (byte, _)) in text.char_indices().enumerate() {
        bytes.entry(number).and_modify(|offset| *offset = byte);
    }
    bytes
}

/// One list of tokens from those of several windows, which come in any order and overlap by `overlap` tokens: a token
/// that two windows have is taken from the one that has more of its neighbours.
#[must_use]
pub fn merge_windows(mut windows: Vec<Vec<ScoredToken>>, overlap: usize) -> Vec<ScoredToken> {
    windows.retain(|window| !window.is_empty());
    windows.sort_by_key(|window| window.first().map(|token| token.span.start));
    let mut all: Vec<ScoredToken> = Vec::new();
    for (number, mut window) in windows.into_iter().enumerate() {
        if number > 0 {
            let twice = overlap.min(window.len()).min(all.len());
            all.truncate(all.len() - twice / 2);
            window.drain(..twice - twice / 2);
        }
        all.append(&mut window);
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    const LABELS: [&str; 5] = ["O", "B-PER", "I-PER", "B-LOC", "I-LOC"];

    fn labels() -> Vec<String> {
        LABELS.iter().map(|&label| label.to_owned()).collect()
    }

    /// A token with this label, as sure as that.
    fn token(start: usize, end: usize, continues: bool, label: usize, score: f32) -> ScoredToken {
        let mut probabilities = vec![(1.0 - score) / 4.0; LABELS.len()];
        probabilities[label] = score;
        ScoredToken { span: TokenSpan { start, end, continues_word: continues }, probabilities }
    }

    fn entity_tuples(
        text: &str,
        tokens: &[ScoredToken],
        aggregation: Aggregation,
    ) -> Vec<(String, usize, usize, String)> {
        let entities = extract_entities(text, tokens, &labels(), aggregation);
        entities.into_iter().map(|e| (e.label, e.start, e.end, e.text)).collect()
    }

    fn expected(entities: &[(&str, usize, usize, &str)]) -> Vec<(String, usize, usize, String)> {
        entities.iter().map(|&(label, start, end, text)| (label.to_owned(), start, end, text.to_owned())).collect()
    }

    #[test]
    fn entities_adjacent_tokens_of_one_kind_merge() {
        let text = "Ada Lovelace Bob in Paris";
        let tokens = [
            token(0, 3, false, 1, 0.9),
            token(4, 12, false, 2, 0.7),
            token(13, 16, false, 1, 0.8),
            token(17, 19, false, 0, 0.9),
            token(20, 25, false, 4, 0.6),
        ];
        let simple = extract_entities(text, &tokens, &labels(), Aggregation::Simple);
        assert!((simple[0].score - 0.8).abs() < 1e-6);
        let entities = [("PER", 0, 12, "Ada Lovelace"), ("PER", 13, 16, "Bob"), ("LOC", 20, 25, "Paris")];
        assert_eq!(entity_tuples(text, &tokens, Aggregation::Simple), expected(&entities));
        let alone = [
            ("B-PER", 0, 3, "Ada"),
            ("I-PER", 4, 12, "Lovelace"),
            ("B-PER", 13, 16, "Bob"),
            ("I-LOC", 20, 25, "Paris"),
        ];
        assert_eq!(entity_tuples(text, &tokens, Aggregation::None), expected(&alone));
    }

    #[test]
    fn entities_word_gets_label_by_aggregation() {
        let text = "microsoft";
        let tokens = [token(0, 5, false, 1, 0.5), token(5, 7, true, 4, 0.9), token(7, 9, true, 1, 0.45)];
        assert_eq!(entity_tuples(text, &tokens, Aggregation::First), expected(&[("PER", 0, 9, "microsoft")]));
        assert_eq!(entity_tuples(text, &tokens, Aggregation::Max), expected(&[("LOC", 0, 9, "microsoft")]));
        // 0.5 + 0.025 + 0.45 for the one, 0.125 + 0.9 + 0.1375 for the other.
        assert_eq!(entity_tuples(text, &tokens, Aggregation::Average), expected(&[("LOC", 0, 9, "microsoft")]));
        assert_eq!(entity_tuples(text, &tokens, Aggregation::Simple).len(), 3);
    }

    fn char_range(text: &str, part: &str) -> (usize, usize) {
        let start = text[..text.find(part).unwrap()].chars().count();
        (start, start + part.chars().count())
    }

    #[test]
    fn entities_offsets_count_code_points() {
        let text = "👩‍💻 𝒜𝒹𝒶 lebt in Zürich 🇨🇭";
        let (a, b) = char_range(text, "𝒜𝒹𝒶");
        let (c, d) = char_range(text, "Zürich");
        let tokens = [token(a, b, false, 1, 0.9), token(b + 1, b + 5, false, 0, 0.9), token(c, d, false, 3, 0.9)];
        assert_eq!((a, b, c, d), (4, 7, 16, 22));
        let entities = [("PER", a, b, "𝒜𝒹𝒶"), ("LOC", c, d, "Zürich")];
        assert_eq!(entity_tuples(text, &tokens, Aggregation::Simple), expected(&entities));
    }

    #[test]
    fn entities_empty_text_yields_none() {
        for aggregation in [Aggregation::None, Aggregation::Simple, Aggregation::Average, Aggregation::Max] {
            assert_eq!(entity_tuples("", &[], aggregation), []);
            assert_eq!(entity_tuples("so", &[token(0, 2, false, 0, 0.9)], aggregation), []);
        }
    }

    fn window_tokens(from: usize, to: usize, score: f32) -> Vec<ScoredToken> {
        (from..to).map(|n| token(n, n + 1, false, 0, score)).collect::<Vec<_>>()
    }

    #[test]
    fn merge_windows_overlap_counts_tokens_once() {
        // In the order in which windows are cut from the end.
        let all =
            merge_windows(vec![window_tokens(12, 20, 0.4), window_tokens(6, 14, 0.6), window_tokens(0, 8, 0.8)], 2);
        assert_eq!(all.iter().map(|token| token.span.start).collect::<Vec<_>>(), (0..20).collect::<Vec<_>>());
        let scores: Vec<f32> = all.iter().map(|token| token.probabilities[0]).collect();
        assert_eq!(scores[..7], [0.8; 7]);
        assert_eq!(scores[7..13], [0.6; 6]);
        assert_eq!(scores[13..], [0.4; 7]);
    }
}
