//! Options, from what was typed to what the server runs with.
//!
//! [`ServeArgs`] is what was typed; [`ServerSettings`] is what the server runs with. Everything that can
//! be wrong is found in between, all of it at once, before a socket is bound. This is the only
//! place that reads the environment.

mod batching;
pub mod database;
pub mod device;
pub mod drift;
mod feedback;
pub mod mlflow;
pub mod model_command_args;
mod network;
mod option_ranges;
pub(crate) mod parsers;
pub mod serve_args;
mod server_settings;
pub mod telemetry;

pub use batching::BatchSettings;
pub use mlflow::{FollowedAlias, MlflowSettings};
pub use serve_args::ServeArgs;
pub use server_settings::ServerSettings;
pub use telemetry::{LogFormat, LogSettings, TraceSettings};

/// Exit code for a configuration that cannot work (`EX_USAGE` of sysexits).
pub const EXIT_CONFIGURATION: u8 = 64;

/// Variables that libraries read when they are loaded, and what they have to be.
///
/// ONNX Runtime's telemetry is off. The C library gives blocks of this many bytes back to the system when ONNX Runtime
/// frees them: it would keep those of the long texts' runs, and more with each length (twice the memory after 60,000
/// mixed requests).
pub const LIBRARY_VARIABLES: [(&str, &str); 2] = [("ORT_DISABLE_TELEMETRY", "1"), ("MALLOC_MMAP_THRESHOLD_", "262144")];

/// Returns those of [`LIBRARY_VARIABLES`] that do not have their value.
#[must_use]
#[expect(clippy::disallowed_methods, reason = "this is the file that reads the environment")]
pub fn missing_library_variables() -> Vec<(&'static str, &'static str)> {
    LIBRARY_VARIABLES
        .into_iter()
        .filter(|(name, value)| std::env::var_os(name).is_none_or(|set| set != *value))
        .collect()
}
