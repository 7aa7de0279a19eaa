//! Why a benchmark did not finish.

use crate::ServerError;

pub(super) fn interrupted_error() -> ServerError {
    ServerError::Runtime("the benchmark was interrupted".to_owned())
}

pub(super) fn output_error(error: &std::io::Error) -> ServerError {
    ServerError::Runtime(format!("standard output: {error}"))
}
