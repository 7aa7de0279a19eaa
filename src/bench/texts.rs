//! What the clients ask: the lines of a file, or texts made from the model's own examples.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use serde::Serialize;

use super::figures::percentile;
use crate::text::pipeline::{Encoded, Pipeline};
use crate::text::tokenizer::Tokenizer;

/// Texts that are made: some seconds of work for two cores and a small transformer.
const MADE: usize = 512;
/// Most texts of a file that are asked, and most bytes of it that are read.
const MOST_TEXTS: usize = 10_000;
const MOST_BYTES: u64 = 32 << 20;
/// Tokens of the texts that are made: half have no more than the first, nine of ten no more than the second.
const TOKENS: (f64, f64) = (22.0, 64.0);
/// What 90 % of a normal distribution lie below, in standard deviations.
const P90: f64 = 1.2816;
/// How often the words of a text are counted anew to come nearer to its tokens.
const TRIES: usize = 3;
/// For a model that has no examples.
pub(crate) const PLAIN: [&str; 6] = [
    "The parcel was handed to a neighbour on Tuesday afternoon.",
    "Could you tell me how to change the address on my account?",
    "I have waited for an answer for more than two weeks now!",
    "Great service, friendly people, and the price was fair.",
    "Why was I charged twice for the same order, and when do I get my money back?",
    "After the last update the application closes whenever a picture is opened.",
];

/// What is asked, in this order, again and again.
#[derive(Debug)]
pub struct Texts {
    /// The texts.
    pub texts: Vec<String>,
    /// As the graph gets them.
    pub encoded: Vec<Encoded>,
    /// What there is to say about them.
    pub summary: Summary,
}

/// What there is to say about the texts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Summary {
    /// How many there are.
    pub count: usize,
    /// Where they are from.
    pub from: String,
    /// Half of them have no more tokens; words, where the graph takes the text itself.
    pub tokens_p50: usize,
    /// Nine of ten of them have no more.
    pub tokens_p90: usize,
    /// None has more.
    pub tokens_most: usize,
}

impl Texts {
    /// The texts of a file, or texts made for this model.
    ///
    /// # Errors
    /// A sentence: the file cannot be read, holds nothing, or holds a text that the model would refuse.
    pub fn find(file: Option<&Path>, pipeline: &Pipeline, most_chars: usize) -> Result<Self, String> {
        let fit = |text: String| fitting(text, pipeline, most_chars);
        if let Some(path) = file {
            let said = |error: String| format!("--texts {}: {error}", path.display());
            let in_line = |(number, text)| fit(text).map_err(|error| said(format!("line {number}: {error}")));
            let texts =
                read(path, MOST_TEXTS).map_err(said)?.into_iter().map(in_line).collect::<Result<Vec<_>, _>>()?;
            return Ok(Self::of(texts, path.display().to_string()));
        }
        let golden = pipeline.golden().map(|golden| golden.examples.iter());
        let own: Vec<&str> = golden.into_iter().flatten().map(|example| example.text.as_str()).collect();
        let (examples, from) =
            if own.is_empty() { (&PLAIN[..], "plain sentences") } else { (&own[..], "the words of golden.json") };
        // Words put together anew may be refused, where the sentences they are from are not.
        let texts: Vec<_> = made(examples, pipeline, MADE).into_iter().filter_map(|text| fit(text).ok()).collect();
        if texts.is_empty() {
            return Err("the model refuses every text that could be made for it: name a file with --texts".to_owned());
        }
        Ok(Self::of(texts, from.to_owned()))
    }

    fn of(fit: Vec<(String, Encoded)>, from: String) -> Self {
        let (texts, encoded): (Vec<_>, Vec<Encoded>) = fit.into_iter().unzip();
        let mut tokens: Vec<usize> = encoded.iter().map(|encoded| encoded.tokens).collect();
        tokens.sort_unstable();
        let [tokens_p50, tokens_p90, tokens_most] =
            [50, 90, 100].map(|percent| percentile(&tokens, percent).unwrap_or(0));
        Self { summary: Summary { count: texts.len(), from, tokens_p50, tokens_p90, tokens_most }, texts, encoded }
    }
}

/// The lines of a file that are not blank, with their numbers.
pub(crate) fn read(path: &Path, most_texts: usize) -> Result<Vec<(usize, String)>, String> {
    let mut bytes = Vec::new();
    // To open a pipe would wait for its other end.
    if !std::fs::metadata(path).map_err(|error| error.to_string())?.is_file() {
        return Err("it is no regular file".to_owned());
    }
    let file = File::open(path).map_err(|error| error.to_string())?;
    file.take(MOST_BYTES + 1).read_to_end(&mut bytes).map_err(|error| error.to_string())?;
    if bytes.len() as u64 > MOST_BYTES {
        return Err(format!("it is larger than {MOST_BYTES} bytes"));
    }
    let text = String::from_utf8(bytes).map_err(|_| "it is not UTF-8")?;
    let text = text.strip_prefix('\u{feff}').unwrap_or(&text);
    let lines = (1..).zip(text.lines()).filter(|(_, line)| !line.trim().is_empty());
    let lines: Vec<_> = lines.map(|(number, line)| (number, line.to_owned())).collect();
    match lines.len() {
        0 => Err("it holds no text: one stands on each line".to_owned()),
        count if count <= most_texts => Ok(lines),
        more => Err(format!("it holds {more} texts, where {most_texts} are possible")),
    }
}

/// The text as it is asked, and as the graph gets it.
fn fitting(text: String, pipeline: &Pipeline, most_chars: usize) -> Result<(String, Encoded), String> {
    if text.chars().count() > most_chars {
        return Err(format!("the text has more than {most_chars} characters"));
    }
    let fit = pipeline.policy().apply(text.clone()).map_err(|error| error.to_string())?;
    Ok((text, pipeline.encode(fit).map_err(|error| error.to_string())?))
}

/// Texts of the words of these examples whose tokens are distributed as those of people's messages: most are short,
/// and some are long. The same every time.
pub(crate) fn made(examples: &[&str], pipeline: &Pipeline, number: usize) -> Vec<String> {
    let words: Vec<&str> = examples.iter().flat_map(|example| example.split_whitespace()).collect();
    let longest = pipeline.tokenizer().map_or(usize::MAX, Tokenizer::max_tokens);
    let mut chance = Chance(0);
    let mut made = Vec::with_capacity(number);
    for _ in 0..number {
        let tokens = log_normal(chance.normal()).clamp(1, longest);
        let first = chance.below(words.len());
        let text = |words_of_it: usize| {
            words.iter().cycle().skip(first).take(words_of_it).copied().collect::<Vec<_>>().join(" ")
        };
        let mut count = tokens;
        for _ in 0..TRIES {
            // A text that is refused for its length is halved.
            let found = pipeline.encode(text(count)).map_or(2 * tokens, |encoded| encoded.tokens);
            count = (count * tokens / found.max(1)).max(1);
        }
        made.push(text(count));
    }
    made
}

/// A number of tokens for a place on the normal distribution.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "positive, and `as` saturates")]
fn log_normal(deviations: f64) -> usize {
    let (p50, p90) = TOKENS;
    (p50 * (deviations * (p90 / p50).ln() / P90).exp()).round() as usize
}

/// Numbers as if by chance, the same every time (`SplitMix64`).
#[derive(Debug)]
pub struct Chance(pub u64);

impl Chance {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `end`; 0 if that is 0.
    pub fn below(&mut self, end: usize) -> usize {
        let end = u64::try_from(end).unwrap_or(u64::MAX).max(1);
        usize::try_from(self.next() % end).unwrap_or(0)
    }

    /// About normally distributed: the sum of twelve even numbers has a variance of one.
    fn normal(&mut self) -> f64 {
        #[expect(clippy::cast_precision_loss, reason = "chance")]
        let even = |number: u64| number as f64 / u64::MAX as f64;
        (0..12).map(|_| even(self.next())).sum::<f64>() - 6.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn made_lengths_are_those_of_messages() {
        let mut chance = Chance(0);
        let mut tokens: Vec<usize> = (0..20_000).map(|_| log_normal(chance.normal())).collect();
        tokens.sort_unstable();
        let near = |percent, expected: usize| {
            let found = percentile(&tokens, percent).unwrap();
            assert!(found.abs_diff(expected) <= expected / 20 + 1, "p{percent} is {found}, not {expected}");
        };
        near(50, 22);
        near(90, 64);
    }

    #[test]
    fn chance_is_the_same_every_time() {
        let draw = || {
            let mut chance = Chance(0);
            (0..100).map(|_| chance.below(10)).collect::<Vec<_>>()
        };
        assert_eq!(draw(), draw());
        assert!((0..10).all(|number| draw().contains(&number)));
        assert_eq!(Chance(0).below(0), 0);
    }

    #[test]
    fn lines_are_texts() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("texts");
        let reads = |content: &[u8]| {
            std::fs::write(&path, content).unwrap();
            read(&path, MOST_TEXTS)
        };
        let texts = reads("one \n\n \ttwo\r\nümlaut".as_bytes()).unwrap();
        assert_eq!(texts, [(1, "one ".to_owned()), (3, " \ttwo".to_owned()), (4, "ümlaut".to_owned())]);
        assert!(reads(b" \n\n").unwrap_err().contains("no text"));
        assert!(reads(b"a\xff").unwrap_err().contains("UTF-8"));
        assert!(reads("a\n".repeat(MOST_TEXTS + 1).as_bytes()).unwrap_err().contains("10001 texts"));
        assert!(read(directory.path(), MOST_TEXTS).is_err());
    }
}
