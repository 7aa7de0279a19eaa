//! Token rows to one rectangular batch.

use std::iter::repeat_n;

use serde::Deserialize;

/// The shape of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shape {
    /// Texts, or windows of one.
    pub rows: usize,
    /// Tokens of the longest; 1 where the graph takes the text itself.
    pub length: usize,
}

impl Shape {
    /// Tokens, padding included.
    #[must_use]
    pub fn token_count(self) -> usize {
        self.rows.saturating_mul(self.length)
    }
}

/// The tokens of one sequence, as a tokenizer gives them: special tokens in, padding out.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TokenRow {
    /// Vocabulary ids.
    pub ids: Vec<u32>,
    /// Segment ids, as long as `ids`.
    pub type_ids: Vec<u32>,
}

/// On which side of a row padding goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PaddingSide {
    /// After the text: BERT and nearly all other models.
    #[default]
    Right,
    /// Before the text: models that read their score from the last position.
    Left,
}

/// How rows are padded to one length.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Padding {
    /// Id written into padded places.
    pub id: u32,
    /// Segment id written into padded places.
    pub type_id: u32,
    /// Where the padding goes.
    pub side: PaddingSide,
}

/// A batch of shape `[rows, length]`, row-major.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TokenBatch {
    /// Number of sequences.
    pub rows: usize,
    /// Length of the longest sequence: every row has this many places.
    pub length: usize,
    /// Vocabulary ids.
    pub input_ids: Vec<i64>,
    /// 1 for a real token, 0 for padding.
    pub attention_mask: Vec<i64>,
    /// Segment ids.
    pub token_type_ids: Vec<i64>,
    /// Position of each real token within its row; 1 in padded places, as Hugging Face has it.
    pub position_ids: Vec<i64>,
}

/// Packs rows into one batch, padded to the longest, and to `least` places.
#[must_use]
pub fn pack_rows(rows: &[&TokenRow], padding: Padding, least: usize) -> TokenBatch {
    let length = rows.iter().map(|row| row.ids.len()).max().unwrap_or(0).max(least);
    let token_count = rows.len() * length;
    let mut batch = TokenBatch {
        rows: rows.len(),
        length,
        input_ids: Vec::with_capacity(token_count),
        attention_mask: Vec::with_capacity(token_count),
        token_type_ids: Vec::with_capacity(token_count),
        position_ids: Vec::with_capacity(token_count),
    };
    for row in rows {
        let gap = length - row.ids.len();
        if padding.side == PaddingSide::Left {
            batch.push_padding(gap, padding);
        }
        batch.push_row(row);
        if padding.side == PaddingSide::Right {
            batch.push_padding(gap, padding);
        }
    }
    batch
}

impl TokenBatch {
    fn push_row(&mut self, row: &TokenRow) {
        self.input_ids.extend(row.ids.iter().map(|&id| i64::from(id)));
        self.attention_mask.extend(repeat_n(1, row.ids.len()));
        self.token_type_ids.extend(row.type_ids.iter().map(|&id| i64::from(id)));
        self.position_ids.extend((0_i64..).take(row.ids.len()));
    }

    fn push_padding(&mut self, gap: usize, padding: Padding) {
        self.input_ids.extend(repeat_n(i64::from(padding.id), gap));
        self.attention_mask.extend(repeat_n(0, gap));
        self.token_type_ids.extend(repeat_n(i64::from(padding.type_id), gap));
        self.position_ids.extend(repeat_n(1, gap));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(ids: &[u32]) -> TokenRow {
        TokenRow { ids: ids.to_vec(), type_ids: vec![0; ids.len()] }
    }

    #[test]
    fn pack_rows_right_side_pads_after_text() {
        let a = row(&[5, 6, 7]);
        let b = row(&[8]);
        let batch = pack_rows(&[&a, &b], Padding { id: 9, type_id: 2, side: PaddingSide::Right }, 0);
        assert_eq!((batch.rows, batch.length), (2, 3));
        assert_eq!(batch.input_ids, [5, 6, 7, 8, 9, 9]);
        assert_eq!(batch.attention_mask, [1, 1, 1, 1, 0, 0]);
        assert_eq!(batch.token_type_ids, [0, 0, 0, 0, 2, 2]);
        assert_eq!(batch.position_ids, [0, 1, 2, 0, 1, 1]);
    }

    #[test]
    fn pack_rows_min_length_pads_beyond_longest() {
        let batch = pack_rows(&[&row(&[5]), &row(&[6, 7])], Padding::default(), 4);
        assert_eq!(batch.input_ids, [5, 0, 0, 0, 6, 7, 0, 0]);
        assert_eq!((batch.length, batch.attention_mask.iter().sum::<i64>()), (4, 3));
        assert_eq!(pack_rows(&[&row(&[5, 6, 7])], Padding::default(), 2).length, 3);
    }

    #[test]
    fn pack_rows_left_side_pads_before_text() {
        let a = row(&[5, 6]);
        let b = row(&[8]);
        let batch = pack_rows(&[&a, &b], Padding { id: 0, type_id: 0, side: PaddingSide::Left }, 0);
        assert_eq!(batch.input_ids, [5, 6, 0, 8]);
        assert_eq!(batch.attention_mask, [1, 1, 0, 1]);
        assert_eq!(batch.position_ids, [0, 1, 1, 0]);
    }
}
