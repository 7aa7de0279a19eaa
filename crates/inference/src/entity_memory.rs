//! The memory that the entities of an answer need, before and after they are found.

use predictd_engine::ItemOutput;
use predictd_engine::loaded_version::LoadedVersion;
use predictd_text::entities::Entity;
use predictd_text::heads::{Head, HeadOutcome};
use predictd_text::text_policies::OverflowPolicy;
use predictd_text::tokenizer::Tokenizer;

/// The most entities in a text of so many bytes: one per token. Text windows multiply the tokens.
#[must_use]
pub fn max_entities(model: &LoadedVersion, bytes: usize) -> usize {
    let pipeline = model.pipeline();
    if !matches!(pipeline.head(), Head::Entities(..)) {
        return 0;
    }
    bytes.min(pipeline.tokenizer().map_or(usize::MAX, max_tokens))
}

fn max_tokens(tokenizer: &Tokenizer) -> usize {
    match tokenizer.on_overflow() {
        OverflowPolicy::Window => tokenizer.max_tokens().saturating_mul(Tokenizer::MAX_WINDOWS),
        OverflowPolicy::Error | OverflowPolicy::Truncate => tokenizer.max_tokens(),
    }
}

/// The most memory for the entities of a text of so many bytes, in bytes.
#[must_use]
pub fn max_entity_bytes(model: &LoadedVersion, bytes: usize) -> usize {
    let count = max_entities(model, bytes);
    let longest_label = model.pipeline().labels().iter().map(String::len).max().unwrap_or_default();
    count * (size_of::<Entity>() + longest_label) + count.min(1) * bytes
}

/// Memory for the entities of an answer, in bytes.
#[must_use]
pub(super) fn entity_bytes(output: &ItemOutput) -> usize {
    match &output.prediction.outcome {
        HeadOutcome::Entities(entities) => {
            entities.iter().map(|entity| size_of::<Entity>() + entity.label.len() + entity.text.len()).sum()
        }
        HeadOutcome::Label(_) | HeadOutcome::Labels(_) | HeadOutcome::Score(_) => 0,
    }
}
