//! How large the files of a model may be, and how many labels it may have.

/// Largest graph or weight file: protobuf itself ends at 2 GiB.
pub(super) const MAX_GRAPH_BYTES: u64 = 2 << 30;
/// Largest tokenizer: the biggest vocabularies in use are about 35 MB of JSON.
pub(super) const MAX_TOKENIZER_BYTES: u64 = 64 << 20;
/// Largest of the other files.
pub(super) const MAX_JSON_BYTES: u64 = 16 << 20;
/// Most labels a model may have.
pub(super) const MAX_LABELS: usize = 100_000;
