//! Token ids that the graph has no row for: a run with one of them fails.

use crate::manifest::ManifestError;
use crate::tokenizer::{TokenizeError, TokenizedText, Tokenizer};

/// The ids that the graph can look up, where the tokenizer knows others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct TokenRange {
    /// Rows of the graph's table: the smallest id that it does not have.
    pub(super) rows: u32,
    /// Largest id of the tokenizer.
    largest_id: u32,
    /// The token that stands for what the model does not know, if the graph has a row for it.
    unknown_id: Option<u32>,
}

impl TokenRange {
    /// Nothing if the graph has a row for each id of the tokenizer, or does not say how many it has.
    ///
    /// # Errors
    /// [`ManifestError`] if it has none for a special token around a text: then no text can be answered.
    pub(super) fn new(tokenizer: &Tokenizer, rows: Option<usize>) -> Result<Option<Self>, ManifestError> {
        let Some(rows) = rows.and_then(|rows| u32::try_from(rows).ok()) else { return Ok(None) };
        let largest_id = tokenizer.largest_id();
        if largest_id < rows {
            return Ok(None);
        }
        let special = tokenizer.row_from_ids(Vec::new()).map(|row| row.ids).unwrap_or_default();
        if let Some(id) = special.into_iter().find(|&id| id >= rows) {
            let reason = format!(
                "a special token around every text has the id {id}, and the graph looks up those below {rows} only: the tokenizer is that of another model"
            );
            return Err(ManifestError::new("tokenizer.json", reason));
        }
        let unknown = tokenizer.unknown_id.filter(|&id| id < rows);
        Ok(Some(Self { rows, largest_id, unknown_id: unknown }))
    }

    /// A sentence for the operator.
    pub(super) fn warning(self) -> String {
        let meaning = match self.unknown_id {
            Some(_) => "a text with one of the others gets the unknown token in its place",
            None => "a text with one of the others is refused",
        };
        format!(
            "the tokenizer has ids up to {}, and the graph looks up those below {} only: {meaning}",
            self.largest_id, self.rows
        )
    }

    /// Puts the unknown token in place of those that the graph does not have.
    ///
    /// # Errors
    /// [`TokenizeError::OutOfRange`] if the tokenizer has no such token.
    pub(super) fn replace_out_of_range(&self, tokens: &mut TokenizedText) -> Result<(), TokenizeError> {
        for row in &mut tokens.rows {
            for id in row.ids.iter_mut().filter(|id| **id >= self.rows) {
                *id = self.unknown_id.ok_or(TokenizeError::OutOfRange { id: *id, rows: self.rows })?;
                tokens.unknown_count += 1;
            }
        }
        Ok(())
    }
}
