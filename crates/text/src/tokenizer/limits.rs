//! What the files of a model say about lengths and padding.

use tokenizers::{PaddingDirection, TruncationDirection};

use super::builder::BuiltTokenizer;
use crate::manifest::Manifest;
use crate::tensors::{Padding, PaddingSide};

/// Longest input of a model that names no limit.
pub(super) const DEFAULT_MAX_TOKENS: usize = 512;

/// The longest input that the files allow, if any says so.
///
/// The operator's `max_tokens` comes before `model_max_length`; neither is more than the positions of the model, as a
/// longer row makes the graph fail. A truncation in `tokenizer.json` is no limit: `AutoTokenizer` passes over it.
pub(super) fn declared_max_tokens(manifest: &Manifest) -> Option<usize> {
    // 1e30 and its kind mean "no limit".
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "in range by the filter")]
    let model_max_length =
        manifest.tokenizer_config.max_length().filter(|n| (1.0..1e9).contains(n)).map(|n| n as usize);
    let stated = manifest.options.max_tokens.or(model_max_length);
    [stated, manifest.config.usable_positions()].into_iter().flatten().min()
}

/// The end that is cut off.
pub(super) fn truncation_direction(manifest: &Manifest, tokenizer: &tokenizers::Tokenizer) -> TruncationDirection {
    match manifest.tokenizer_config.truncation_side {
        Some(PaddingSide::Right) => TruncationDirection::Right,
        Some(PaddingSide::Left) => TruncationDirection::Left,
        None => tokenizer.get_truncation().map_or(TruncationDirection::Right, |truncation| truncation.direction),
    }
}

/// How rows are padded: as the settings say, then `tokenizer.json`, then the class.
pub(super) fn padding(manifest: &Manifest, built: &BuiltTokenizer) -> Padding {
    let tokenizer = &built.inner;
    let named = built.special_tokens.padding_token().and_then(|token| tokenizer.token_to_id(token));
    let usual = ["[PAD]", "<pad>", "<|endoftext|>"].into_iter().find_map(|token| tokenizer.token_to_id(token));
    let in_file = tokenizer.get_padding();
    let side = match in_file.map(|padding| padding.direction) {
        Some(PaddingDirection::Left) => PaddingSide::Left,
        None if built.pads_left => PaddingSide::Left,
        _ => PaddingSide::Right,
    };
    Padding {
        id: named.or(in_file.map(|padding| padding.pad_id)).or(manifest.config.pad_id()).or(usual).unwrap_or(0),
        type_id: in_file.map_or(0, |padding| padding.pad_type_id),
        side: manifest.tokenizer_config.padding_side.unwrap_or(side),
    }
}
