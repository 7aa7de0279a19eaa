//! What the runtime says, as far as it is repeated.

use ort::logging::LogLevel;
use predictd_engine::backend::BackendError;

/// Longest message of the runtime in the log, in bytes.
const MAX_MESSAGE_BYTES: usize = 1 << 10;

/// What a `Gather` says of an index outside of its table.
const OUT_OF_BOUNDS_MESSAGE: &str = "out of data bounds";

/// As much of the runtime's words as a log line needs: they repeat names of the graph, however long.
fn truncate_message(message: &str) -> &str {
    message.get(..message.floor_char_boundary(MAX_MESSAGE_BYTES)).unwrap_or_default()
}

/// A run that failed, with the runtime's reason for the log.
#[expect(clippy::needless_pass_by_value, reason = "it is what map_err wants")]
pub(super) fn to_run_error(error: ort::Error) -> BackendError {
    let message = truncate_message(error.message()).to_owned();
    if message.contains(OUT_OF_BOUNDS_MESSAGE) {
        BackendError::OutOfBounds(message)
    } else {
        BackendError::Failed(message)
    }
}

pub(super) fn log_message(level: LogLevel, message: &str) {
    let message = truncate_message(message);
    match level {
        LogLevel::Fatal | LogLevel::Error => tracing::error!(target: "onnxruntime", "{message}"),
        LogLevel::Warning => tracing::warn!(target: "onnxruntime", "{message}"),
        LogLevel::Info | LogLevel::Verbose => tracing::trace!(target: "onnxruntime", "{message}"),
    }
}

/// The runtime's message, with the cure for the one that needs it.
pub(super) fn explain_load_error(error: &ort::Error) -> String {
    let message = error.message().lines().next().unwrap_or_default().to_owned();
    if message.contains("locale") {
        return format!("{message}. Export it with the option locale='C.UTF-8' of skl2onnx's TfidfVectorizer");
    }
    message
}
