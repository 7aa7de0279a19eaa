//! What the clients ask: the lines of a file, or texts made from the model's own examples.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use predictd_stats::split_mix64::SplitMix64;
use predictd_text::pipeline::{EncodedInput, Pipeline};
use predictd_text::tokenizer::Tokenizer;
use serde::{Deserialize, Serialize};

use super::measurement::percentile;

/// Texts that are made: some seconds of work for two cores and a small transformer.
const GENERATED_TEXTS: usize = 512;
/// Most texts of a file that are asked, and most bytes of it that are read.
const MAX_TEXTS: usize = 10_000;
const MAX_FILE_BYTES: u64 = 32 << 20;
/// Tokens of the texts that are made: half have no more than the first, nine of ten no more than the second.
const TOKEN_QUANTILES: (f64, f64) = (22.0, 64.0);
/// What 90 % of a normal distribution lie below, in standard deviations.
const P90_DEVIATIONS: f64 = 1.2816;
/// How often the number of words of a text is corrected by its number of tokens.
const LENGTH_ITERATIONS: usize = 3;
/// For a model that has no examples.
pub(crate) const SAMPLE_SENTENCES: [&str; 6] = [
    "The parcel was handed to a neighbour on Tuesday afternoon.",
    "Could you tell me how to change the address on my account?",
    "I have waited for an answer for more than two weeks now!",
    "Great service, friendly people, and the price was fair.",
    "Why was I charged twice for the same order, and when do I get my money back?",
    "After the last update the application closes whenever a picture is opened.",
];

/// What is asked, in this order, again and again.
#[derive(Debug)]
pub struct BenchTexts {
    /// The texts.
    pub texts: Vec<String>,
    /// As the graph gets them.
    pub encoded: Vec<EncodedInput>,
    /// What there is to say about them.
    pub summary: BenchTextsSummary,
}

/// What there is to say about the texts.
#[derive(Debug, Serialize, Deserialize)]
pub struct BenchTextsSummary {
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

impl BenchTexts {
    /// The texts of a file, or texts made for this model.
    ///
    /// # Errors
    /// A sentence: the file cannot be read, holds nothing, or holds a text that the model would refuse.
    pub fn load(file: Option<&Path>, pipeline: &Pipeline, most_chars: usize) -> Result<Self, String> {
        if let Some(path) = file {
            let encoded = |(number, text)| {
                encode_text(text, pipeline, most_chars).map_err(|error| format!("line {number}: {error}"))
            };
            let lines = read_lines(path, MAX_TEXTS);
            let texts = lines.and_then(|lines| lines.into_iter().map(encoded).collect::<Result<_, _>>());
            let path = path.display();
            let texts = texts.map_err(|error| format!("--texts {path}: {error}"))?;
            return Ok(Self::from_encoded(texts, path.to_string()));
        }
        let (examples, from): (Vec<&str>, _) = match pipeline.golden() {
            Some(golden) => {
                (golden.examples.iter().map(|example| &*example.text).collect(), "the words of golden.json")
            }
            None => (SAMPLE_SENTENCES.to_vec(), "plain sentences"),
        };
        // Recombined words may be refused where their sentences are not.
        let texts: Vec<_> = generate_texts(&examples, pipeline, GENERATED_TEXTS)
            .into_iter()
            .filter_map(|text| encode_text(text, pipeline, most_chars).ok())
            .collect();
        if texts.is_empty() {
            return Err("the model refuses every text that could be made for it: name a file with --texts".to_owned());
        }
        Ok(Self::from_encoded(texts, from.to_owned()))
    }

    fn from_encoded(fit: Vec<(String, EncodedInput)>, from: String) -> Self {
        let (texts, encoded): (Vec<_>, Vec<EncodedInput>) = fit.into_iter().unzip();
        let mut tokens: Vec<usize> = encoded.iter().map(|encoded| encoded.token_count).collect();
        tokens.sort_unstable();
        let [tokens_p50, tokens_p90, tokens_most] =
            [50, 90, 100].map(|percent| percentile(&tokens, percent).unwrap_or(0));
        Self {
            summary: BenchTextsSummary { count: texts.len(), from, tokens_p50, tokens_p90, tokens_most },
            texts,
            encoded,
        }
    }
}

/// What is in a regular file that is not too large.
pub(crate) fn read_bounded(path: &Path, max_bytes: u64) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::new();
    // To open a pipe would wait for its other end.
    if !std::fs::metadata(path).map_err(|error| error.to_string())?.is_file() {
        return Err("it is no regular file".to_owned());
    }
    let file = File::open(path).map_err(|error| error.to_string())?;
    file.take(max_bytes + 1).read_to_end(&mut bytes).map_err(|error| error.to_string())?;
    if bytes.len() as u64 > max_bytes { Err(format!("it is larger than {max_bytes} bytes")) } else { Ok(bytes) }
}

/// The lines of a file that are not blank, with their numbers.
pub(crate) fn non_blank_lines(bytes: &[u8]) -> Result<impl Iterator<Item = (usize, &str)>, String> {
    let text = std::str::from_utf8(bytes).map_err(|_| "it is not UTF-8")?;
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    Ok((1..).zip(text.lines()).filter(|(_, line)| !line.trim().is_empty()))
}

/// The texts of a file, one on each line that is not blank, with the numbers of their lines.
pub(crate) fn read_lines(path: &Path, most_texts: usize) -> Result<Vec<(usize, String)>, String> {
    let bytes = read_bounded(path, MAX_FILE_BYTES)?;
    let lines: Vec<_> = non_blank_lines(&bytes)?.map(|(number, line)| (number, line.to_owned())).collect();
    match lines.len() {
        0 => Err("it holds no text: one stands on each line".to_owned()),
        count if count <= most_texts => Ok(lines),
        more => Err(format!("it holds {more} texts, where {most_texts} are possible")),
    }
}

/// Returns a text as it is asked, and as the graph gets it.
fn encode_text(text: String, pipeline: &Pipeline, most_chars: usize) -> Result<(String, EncodedInput), String> {
    if text.chars().count() > most_chars {
        return Err(format!("the text has more than {most_chars} characters"));
    }
    let fit = pipeline.policy().apply(text.clone()).map_err(|error| error.to_string())?;
    Ok((text, pipeline.encode(fit).map_err(|error| error.to_string())?))
}

/// Texts of the words of these examples whose tokens are distributed as those of people's messages: most are short,
/// and some are long. The same every time.
pub(crate) fn generate_texts(examples: &[&str], pipeline: &Pipeline, number: usize) -> Vec<String> {
    let words: Vec<&str> = examples.iter().flat_map(|example| example.split_whitespace()).collect();
    let longest = pipeline.tokenizer().map_or(usize::MAX, Tokenizer::max_tokens);
    let mut random = SplitMix64(0);
    let generated = (0..number).map(|_| {
        let tokens = log_normal_length(random.next_normal()).clamp(1, longest);
        let first = random.next_index(words.len());
        let mut count = tokens;
        for _ in 0..LENGTH_ITERATIONS {
            // A text that is refused for its length is halved.
            let found =
                pipeline.encode(join_words(&words, first, count)).map_or(2 * tokens, |encoded| encoded.token_count);
            count = (count * tokens / found.max(1)).max(1);
        }
        join_words(&words, first, count)
    });
    generated.collect()
}

/// So many words from the word with this index on, around the end.
fn join_words(words: &[&str], first: usize, count: usize) -> String {
    words.iter().cycle().skip(first).take(count).copied().collect::<Vec<_>>().join(" ")
}

/// A number of tokens for a place on the normal distribution.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "positive, and `as` saturates")]
fn log_normal_length(deviations: f64) -> usize {
    let (p50, p90) = TOKEN_QUANTILES;
    (p50 * (deviations * (p90 / p50).ln() / P90_DEVIATIONS).exp()).round() as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    fn assert_percentile(tokens: &[usize], percent: usize, expected: usize) {
        let found = percentile(tokens, percent).unwrap();
        assert!(found.abs_diff(expected) <= expected / 20 + 1, "p{percent} is {found}, not {expected}");
    }

    #[test]
    fn log_normal_length_drawn_has_given_quantiles() {
        let mut random = SplitMix64(0);
        let mut tokens: Vec<usize> = (0..20_000).map(|_| log_normal_length(random.next_normal())).collect();
        tokens.sort_unstable();
        assert_percentile(&tokens, 50, 22);
        assert_percentile(&tokens, 90, 64);
    }

    fn read_content(path: &Path, content: &[u8]) -> Result<Vec<(usize, String)>, String> {
        std::fs::write(path, content).unwrap();
        read_lines(path, MAX_TEXTS)
    }

    #[test]
    fn read_lines_blank_or_bad_are_skipped_or_refused() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("texts");
        let texts = read_content(&path, "one \n\n \ttwo\r\nümlaut".as_bytes()).unwrap();
        assert_eq!(texts, [(1, "one ".to_owned()), (3, " \ttwo".to_owned()), (4, "ümlaut".to_owned())]);
        assert!(read_content(&path, b" \n\n").unwrap_err().contains("no text"));
        assert!(read_content(&path, b"a\xff").unwrap_err().contains("UTF-8"));
        assert!(read_content(&path, "a\n".repeat(MAX_TEXTS + 1).as_bytes()).unwrap_err().contains("10001 texts"));
        assert!(read_lines(directory.path(), MAX_TEXTS).is_err());
    }
}
