//! What the runtime says, as far as it is repeated.

use ort::logging::LogLevel;

use crate::engine::session::RunError;

/// Longest message of the runtime in the log, in bytes.
const LONGEST_MESSAGE: usize = 1 << 10;

/// What a `Gather` says of an index outside of its table.
const OUT_OF_BOUNDS: &str = "out of data bounds";

/// As much of the runtime's words as a log line needs: they repeat names of the graph, however long.
pub(super) fn short(message: &str) -> &str {
    message.get(..message.floor_char_boundary(LONGEST_MESSAGE)).unwrap_or_default()
}

/// A run that failed, with the runtime's reason for the log.
#[expect(clippy::needless_pass_by_value, reason = "it is what map_err wants")]
pub(super) fn failed(error: ort::Error) -> RunError {
    let message = short(error.message()).to_owned();
    if message.contains(OUT_OF_BOUNDS) { RunError::OutOfBounds(message) } else { RunError::Failed(message) }
}

pub(super) fn log(level: LogLevel, message: &str) {
    let message = short(message);
    match level {
        LogLevel::Fatal | LogLevel::Error => tracing::error!(target: "onnxruntime", "{message}"),
        LogLevel::Warning => tracing::warn!(target: "onnxruntime", "{message}"),
        LogLevel::Info | LogLevel::Verbose => tracing::trace!(target: "onnxruntime", "{message}"),
    }
}

/// The runtime's message, with the cure for the one that needs it.
pub(super) fn explain(error: &ort::Error) -> String {
    let message = error.message().lines().next().unwrap_or_default().to_owned();
    if message.contains("locale") {
        return format!("{message}. Export it with the option locale='C.UTF-8' of skl2onnx's TfidfVectorizer");
    }
    message
}
