//! Why a file is not an acceptable ONNX graph.

/// Deepest nesting of graphs, functions and attributes.
pub(super) const MAX_DEPTH: usize = 64;
/// Most nodes of the main graph: the largest language models have some ten thousand.
pub(super) const MAX_NODES: usize = 1_000_000;

/// Why a file is not an acceptable ONNX graph.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum ScanError {
    /// Cut off or not protobuf.
    #[error("it is damaged or not an ONNX file")]
    Malformed,
    /// Nested too deeply.
    #[error("its graphs are nested more than {MAX_DEPTH} deep")]
    TooDeep,
    /// More nodes than any model needs.
    #[error("it has more than {MAX_NODES} nodes")]
    TooManyNodes,
    /// Protobuf, but no graph in it.
    #[error("it holds no graph")]
    NoGraph,
    /// External data where it is not allowed, or described twice.
    #[error("it keeps the data of a tensor in another file in a way that is not accepted: only plain initializers may")]
    ExternalData,
    /// A division of integers that can end the process.
    #[error("a node Div divides integers by a constant -1, which ends the process for the smallest integer: use Neg")]
    MinusOneDivisor,
}

impl From<prost::DecodeError> for ScanError {
    fn from(_: prost::DecodeError) -> Self {
        Self::Malformed
    }
}
