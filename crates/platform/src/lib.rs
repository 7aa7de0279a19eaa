//! What the operating system gives: time, files, memory.
//!
//! - [`atomic_file`]: replaces files atomically; [`file_watcher`]: notices changed files
//! - [`clock`]: the time of day, identifiers in its order
//! - [`memory`]: memory and its limits

pub mod atomic_file;
pub mod clock;
pub mod file_watcher;
pub mod memory;
