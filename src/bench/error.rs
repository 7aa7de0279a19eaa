//! Why a benchmark did not finish.

use crate::ServerError;

pub(super) fn interrupted_error() -> ServerError {
    ServerError::Runtime("the benchmark was interrupted".to_owned())
}
