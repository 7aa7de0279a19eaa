//! The runs that texts need.

use super::{Batch, Content, Encoded, Encoder, Pipeline};
use crate::config::OnOverflow;
use crate::text::tensors::{Shape, TokenRow, pack_to};
use crate::text::tokenizer::Tokenizer;

/// Most padded tokens in one run of a windowed text: attention memory grows with the square
/// of the length, and a text of a hundred windows must not take it all at once.
const MAX_RUN_TOKENS: usize = 2_048;

impl Pipeline {
    /// Rounds lengths of runs up to multiples of `multiple`, as far as the model takes texts.
    pub fn pad_to(&mut self, multiple: usize) {
        self.pad_to = multiple.max(1);
    }

    /// Length to which a row of so many tokens is padded.
    #[must_use]
    pub fn padded(&self, length: usize) -> usize {
        if let Some(fixed) = self.fixed.length {
            return fixed.max(length);
        }
        let most = self.tokenizer().map_or(length, Tokenizer::max_tokens);
        length.next_multiple_of(self.pad_to).min(most).max(length)
    }

    /// What a text of one row counts for in a run, padding included; nothing for a text of several windows.
    #[must_use]
    pub fn run_length(&self, encoded: &Encoded) -> Option<usize> {
        encoded.row_length().map(|length| self.padded(length))
    }

    /// One run for texts of one row each, padded to the longest.
    #[must_use]
    pub fn batch<'a>(&self, texts: impl IntoIterator<Item = &'a Encoded>) -> Batch {
        let (mut rows, mut strings) = (Vec::new(), Vec::new());
        for encoded in texts {
            match &encoded.content {
                Content::Rows(windows) => rows.extend(windows),
                Content::Text(text) => strings.push(text.clone()),
            }
        }
        match &self.encoder {
            Encoder::Tokens(tokenizer) => {
                let length = rows.iter().map(|row| row.ids.len()).max().unwrap_or(0);
                Batch::Tokens(pack_to(&rows, tokenizer.padding(), self.padded(length)))
            }
            Encoder::Texts => Batch::Texts(strings),
        }
    }

    /// The largest run of one text of `length` tokens: several windows of it, for a model that reads long texts so.
    #[must_use]
    pub fn largest_run(&self, length: usize) -> Shape {
        let windows = self.tokenizer().is_some_and(|tokenizer| tokenizer.on_overflow() == OnOverflow::Window);
        Shape { rows: if windows && !self.fixed.one_row { rows_per_run(length) } else { 1 }, length }
    }

    /// The shapes of the runs that one text needs.
    pub fn shapes<'a>(&'a self, encoded: &'a Encoded) -> impl Iterator<Item = Shape> + 'a {
        let text = matches!(encoded.content, Content::Text(_)).then_some(Shape { rows: 1, length: 1 });
        let chunks = self.chunks(encoded).map(|(chunk, length)| Shape { rows: chunk.len(), length });
        text.into_iter().chain(chunks)
    }

    /// The runs that one text needs: one, unless it has more windows than a run may hold.
    pub fn runs<'a>(&'a self, encoded: &'a Encoded) -> impl Iterator<Item = Batch> + 'a {
        let text = match &encoded.content {
            Content::Rows(_) => None,
            Content::Text(text) => Some(Batch::Texts(vec![text.clone()])),
        };
        let padding = self.tokenizer().map(Tokenizer::padding).unwrap_or_default();
        let pack = move |(chunk, length): (&[TokenRow], usize)| {
            Batch::Tokens(pack_to(&chunk.iter().collect::<Vec<_>>(), padding, length))
        };
        text.into_iter().chain(self.chunks(encoded).map(pack))
    }

    /// The windows of each run that a text needs, and the length that they are padded to: that of their own longest.
    fn chunks<'a>(&'a self, encoded: &'a Encoded) -> impl Iterator<Item = (&'a [TokenRow], usize)> + 'a {
        let rows: &[TokenRow] = match &encoded.content {
            Content::Rows(rows) => rows,
            Content::Text(_) => &[],
        };
        let most = if self.fixed.one_row { 1 } else { rows_per_run(self.padded(longest(rows))) };
        rows.chunks(most).map(|chunk| (chunk, self.padded(longest(chunk))))
    }
}

fn longest(rows: &[TokenRow]) -> usize {
    rows.iter().map(|row| row.ids.len()).max().unwrap_or(1).max(1)
}

/// Windows of a text that are run at a time.
fn rows_per_run(longest: usize) -> usize {
    (MAX_RUN_TOKENS / longest).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::text::activation::Activation;
    use crate::text::heads::Head;
    use crate::text::manifest::Manifest;
    use crate::text::policy::TextPolicy;
    use crate::text::signature::FixedAxes;

    /// A pipeline of a model that takes up to 512 tokens.
    fn pipeline(pad_to: usize) -> Pipeline {
        let manifest = Manifest::read(std::path::Path::new("models/banking77-minilm/1")).unwrap();
        let tokenizer = Tokenizer::load(&manifest, OnOverflow::Window).unwrap();
        let policy = TextPolicy { markup: crate::config::Markup::Allow, allowed: None };
        let encoder = Encoder::Tokens(Box::new(tokenizer));
        Pipeline {
            policy,
            encoder,
            head: Head::SingleLabel(Activation::Softmax),
            labels: Vec::new(),
            golden: None,
            pad_to,
            fixed: FixedAxes::default(),
            token_range: None,
            pairs: true,
            output: "logits".to_owned(),
            applied: None,
            warnings: Vec::new(),
        }
    }

    fn windows(lengths: &[usize]) -> Encoded {
        let row = |&length: &usize| TokenRow { ids: vec![5; length], type_ids: vec![0; length] };
        let content = Content::Rows(lengths.iter().map(row).collect());
        Encoded { content, tokens: lengths.iter().sum(), unknown: 0, truncated: false, places: None }
    }

    /// Rows and length of each run, as told and as done.
    fn shapes(pipeline: &Pipeline, lengths: &[usize]) -> Vec<(usize, usize)> {
        let encoded = windows(lengths);
        let told: Vec<Shape> = pipeline.shapes(&encoded).collect();
        let done: Vec<Shape> = pipeline.runs(&encoded).map(|batch| batch.shape()).collect();
        assert_eq!(told, done);
        done.iter().map(|shape| (shape.rows, shape.length)).collect()
    }

    #[test]
    fn each_run_is_as_long_as_its_own_longest_window() {
        let cores = pipeline(1);
        // Four windows of 512 tokens fit one run of 2048.
        assert_eq!(shapes(&cores, &[512, 512, 512, 512, 21]), [(4, 512), (1, 21)]);
        assert_eq!(shapes(&cores, &[512, 512, 512, 512, 21, 33]), [(4, 512), (2, 33)]);
        // Of more than 1024 tokens each runs by itself.
        assert_eq!(shapes(&cores, &[1_025, 1_025, 7]), [(1, 1_025), (1, 1_025), (1, 7)]);
        assert_eq!(shapes(&cores, &[5]), [(1, 5)]);
    }

    #[test]
    fn lengths_are_rounded_up_as_far_as_the_model_takes_texts() {
        let gpu = pipeline(8);
        assert_eq!(shapes(&gpu, &[512, 512, 512, 512, 21]), [(4, 512), (1, 24)]);
        assert_eq!(shapes(&gpu, &[509]), [(1, 512)]);
        assert_eq!(shapes(&pipeline(100), &[509]), [(1, 512)]);
        assert_eq!(shapes(&gpu, &[1_025]), [(1, 1_025)]);
        assert_eq!((gpu.run_length(&windows(&[5])), gpu.run_length(&windows(&[5, 5]))), (Some(8), None));
    }
}
