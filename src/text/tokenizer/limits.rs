//! What the files of a model say about lengths and padding.

use tokenizers::{PaddingDirection, TruncationDirection};

use crate::text::manifest::Manifest;
use crate::text::tensors::{Padding, PaddingSide};

/// Longest input of a model that names no limit.
pub(super) const DEFAULT_MAX_TOKENS: usize = 512;

/// The smallest of the limits that the files name, if any does.
pub(super) fn named_max_tokens(manifest: &Manifest, tokenizer: &tokenizers::Tokenizer) -> Option<usize> {
    // 1e30 and its kind mean "no limit".
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "in range by the filter")]
    let model_max_length =
        manifest.tokenizer_config.model_max_length.filter(|n| (1.0..1e9).contains(n)).map(|n| n as usize);
    let limits = [
        tokenizer.get_truncation().map(|truncation| truncation.max_length),
        model_max_length,
        manifest.config.usable_positions(),
        manifest.options.max_tokens,
    ];
    limits.into_iter().flatten().min()
}

/// The end that is cut off.
pub(super) fn cut_from(manifest: &Manifest, tokenizer: &tokenizers::Tokenizer) -> TruncationDirection {
    match manifest.tokenizer_config.truncation_side {
        Some(PaddingSide::Right) => TruncationDirection::Right,
        Some(PaddingSide::Left) => TruncationDirection::Left,
        None => tokenizer.get_truncation().map_or(TruncationDirection::Right, |truncation| truncation.direction),
    }
}

/// How rows are padded.
pub(super) fn padding(manifest: &Manifest, tokenizer: &tokenizers::Tokenizer) -> Padding {
    let named = || ["[PAD]", "<pad>", "<|endoftext|>"].into_iter().find_map(|token| tokenizer.token_to_id(token));
    let from_file = tokenizer.get_padding();
    Padding {
        id: from_file.map(|p| p.pad_id).or(manifest.config.pad_token_id).or_else(named).unwrap_or(0),
        type_id: from_file.map_or(0, |p| p.pad_type_id),
        side: manifest.tokenizer_config.padding_side.unwrap_or_else(|| match from_file.map(|p| p.direction) {
            Some(PaddingDirection::Left) => PaddingSide::Left,
            Some(PaddingDirection::Right) | None => PaddingSide::Right,
        }),
    }
}
