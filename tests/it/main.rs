//! Integration tests: the real router on port 0, with real models wherever a model matters.

#![expect(
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    unreachable_pub,
    reason = "what is not there fails the test; nothing here is anybody else's API"
)]

mod api;
mod cli;
mod drift;
mod engine;
mod experiments;
mod ops;
mod registry;
mod source_rules;
mod stored_formats;
mod support;
mod transport;
