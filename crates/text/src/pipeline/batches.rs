//! The runs that texts need.

use super::{Batch, EncodedContent, EncodedInput, Pipeline};
use crate::tensors::{Shape, TokenRow, pack_rows};
use crate::text_policies::OverflowPolicy;
use crate::tokenizer::Tokenizer;

/// Most padded tokens in one run of a windowed text: attention memory grows with the square
/// of the length, and a text of a hundred windows must not take it all at once.
const MAX_BATCH_TOKENS: usize = 2_048;

impl Pipeline {
    /// Rounds lengths of runs up to multiples of `multiple`, as far as the model takes texts.
    pub fn set_pad_multiple(&mut self, multiple: usize) {
        self.pad_multiple = multiple.max(1);
    }

    /// Length to which a row of so many tokens is padded.
    #[must_use]
    pub fn padded_length(&self, length: usize) -> usize {
        if let Some(fixed) = self.fixed_axes.length {
            return fixed.max(length);
        }
        let most = self.tokenizer().map_or(length, Tokenizer::max_tokens);
        length.next_multiple_of(self.pad_multiple).min(most).max(length)
    }

    /// What a text of one row counts for in a run, padding included; nothing for a text of several windows.
    #[must_use]
    pub fn padded_row_length(&self, encoded: &EncodedInput) -> Option<usize> {
        encoded.row_length().map(|length| self.padded_length(length))
    }

    /// One run for texts of one row each, padded to the longest.
    #[must_use]
    pub fn batch<'a>(&self, texts: impl IntoIterator<Item = &'a EncodedInput>) -> Batch {
        let mut rows = Vec::new();
        let mut strings = Vec::new();
        for encoded in texts {
            match &encoded.content {
                EncodedContent::Rows(windows) => rows.extend(windows),
                EncodedContent::Text(text) => strings.push(text.clone()),
            }
        }
        let Some(tokenizer) = &self.tokenizer else { return Batch::Texts(strings) };
        let length = rows.iter().map(|row| row.ids.len()).max().unwrap_or(0);
        Batch::Tokens(pack_rows(&rows, tokenizer.padding, self.padded_length(length)))
    }

    /// The largest run of one text of `length` tokens: several windows of it, for a model that reads long texts so.
    #[must_use]
    pub fn largest_batch_shape(&self, length: usize) -> Shape {
        let windows = self.tokenizer().is_some_and(|tokenizer| tokenizer.on_overflow() == OverflowPolicy::Window);
        Shape { rows: if windows && !self.fixed_axes.single_row { rows_per_batch(length) } else { 1 }, length }
    }

    /// The shapes of the runs that one text needs.
    pub fn batch_shapes<'a>(&'a self, encoded: &'a EncodedInput) -> impl Iterator<Item = Shape> + 'a {
        let text = matches!(encoded.content, EncodedContent::Text(_)).then_some(Shape { rows: 1, length: 1 });
        let chunks = self.chunks(encoded).map(|(chunk, length)| Shape { rows: chunk.len(), length });
        text.into_iter().chain(chunks)
    }

    /// The runs that one text needs: one, unless it has more windows than a run may hold.
    pub fn batches<'a>(&'a self, encoded: &'a EncodedInput) -> impl Iterator<Item = Batch> + 'a {
        let text = match &encoded.content {
            EncodedContent::Rows(_) => None,
            EncodedContent::Text(text) => Some(Batch::Texts(vec![text.clone()])),
        };
        let padding = self.tokenizer().map(Tokenizer::padding).unwrap_or_default();
        let pack = move |(chunk, length): (&[TokenRow], usize)| {
            Batch::Tokens(pack_rows(&chunk.iter().collect::<Vec<_>>(), padding, length))
        };
        text.into_iter().chain(self.chunks(encoded).map(pack))
    }

    /// The windows of each run that a text needs, and the length that they are padded to: that of their own longest.
    fn chunks<'a>(&'a self, encoded: &'a EncodedInput) -> impl Iterator<Item = (&'a [TokenRow], usize)> + 'a {
        let rows: &[TokenRow] = match &encoded.content {
            EncodedContent::Rows(rows) => rows,
            EncodedContent::Text(_) => &[],
        };
        let most = if self.fixed_axes.single_row { 1 } else { rows_per_batch(self.padded_length(longest_row(rows))) };
        rows.chunks(most).map(|chunk| (chunk, self.padded_length(longest_row(chunk))))
    }
}

fn longest_row(rows: &[TokenRow]) -> usize {
    rows.iter().map(|row| row.ids.len()).max().unwrap_or(1).max(1)
}

/// Windows of a text that are run at a time.
fn rows_per_batch(longest: usize) -> usize {
    (MAX_BATCH_TOKENS / longest).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::activation::Activation;
    use crate::heads::Head;
    use crate::manifest::Manifest;
    use crate::policy::TextPolicy;
    use crate::signature::FixedAxes;

    /// A pipeline of a model that takes up to 512 tokens.
    fn pipeline(pad_to: usize) -> Pipeline {
        let manifest = Manifest::load(std::path::Path::new("../../models/banking77-minilm/1")).unwrap();
        let tokenizer = Tokenizer::load(&manifest, OverflowPolicy::Window).unwrap();
        let policy = TextPolicy { markup: crate::text_policies::MarkupPolicy::Allow, allowed_characters: None };
        Pipeline {
            policy,
            tokenizer: Some(tokenizer),
            head: Head::SingleLabel(Activation::Softmax),
            labels: Vec::new(),
            golden: None,
            pad_multiple: pad_to,
            fixed_axes: FixedAxes::default(),
            token_range: None,
            pairs_enabled: true,
            output_name: "logits".to_owned(),
            applied_activation: None,
            warnings: Vec::new(),
        }
    }

    fn windows(lengths: &[usize]) -> EncodedInput {
        let row = |&length: &usize| TokenRow { ids: vec![5; length], type_ids: vec![0; length] };
        let content = EncodedContent::Rows(lengths.iter().map(row).collect());
        EncodedInput { content, token_count: lengths.iter().sum(), unknown_count: 0, is_truncated: false, spans: None }
    }

    /// Rows and length of each batch, predicted and actual.
    fn checked_shapes(pipeline: &Pipeline, lengths: &[usize]) -> Vec<(usize, usize)> {
        let encoded = windows(lengths);
        let predicted: Vec<Shape> = pipeline.batch_shapes(&encoded).collect();
        let actual: Vec<Shape> = pipeline.batches(&encoded).map(|batch| batch.shape()).collect();
        assert_eq!(predicted, actual);
        actual.iter().map(|shape| (shape.rows, shape.length)).collect()
    }

    #[test]
    fn batches_padded_to_their_own_longest_window() {
        let cores = pipeline(1);
        // Four windows of 512 tokens fit one run of 2048.
        assert_eq!(checked_shapes(&cores, &[512, 512, 512, 512, 21]), [(4, 512), (1, 21)]);
        assert_eq!(checked_shapes(&cores, &[512, 512, 512, 512, 21, 33]), [(4, 512), (2, 33)]);
        // Of more than 1024 tokens each runs by itself.
        assert_eq!(checked_shapes(&cores, &[1_025, 1_025, 7]), [(1, 1_025), (1, 1_025), (1, 7)]);
        assert_eq!(checked_shapes(&cores, &[5]), [(1, 5)]);
    }

    #[test]
    fn batches_rounded_length_capped_at_max_tokens() {
        let gpu = pipeline(8);
        assert_eq!(checked_shapes(&gpu, &[512, 512, 512, 512, 21]), [(4, 512), (1, 24)]);
        assert_eq!(checked_shapes(&gpu, &[509]), [(1, 512)]);
        assert_eq!(checked_shapes(&pipeline(100), &[509]), [(1, 512)]);
        assert_eq!(checked_shapes(&gpu, &[1_025]), [(1, 1_025)]);
        assert_eq!((gpu.padded_row_length(&windows(&[5])), gpu.padded_row_length(&windows(&[5, 5]))), (Some(8), None));
    }
}
