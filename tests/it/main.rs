//! Integration tests: the real router on port 0, with real models wherever a model matters.

#![expect(
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    unreachable_pub,
    reason = "what is not there fails the test; nothing here is anybody else's API"
)]

mod access;
mod admin_guard;
mod api;
mod api_description;
mod backup;
mod bad_http;
mod bad_input;
mod batch_faults;
mod bench_command;
mod body_encodings;
mod cache;
mod canaries;
mod check_command;
mod cli;
mod clock;
mod connections;
mod cors;
mod counted;
mod daemon;
mod data_directory;
mod database;
mod deploy_files;
mod device;
mod drift;
mod experiments;
mod feedback;
mod fixture;
mod health_command;
mod invariants;
mod large_bodies;
mod lifecycle;
mod listen;
mod log_lines;
mod logs;
mod mlflow;
mod model_files;
mod models_command;
mod odd_texts;
mod operator;
mod overload;
mod process;
mod raw;
mod receiver;
mod replicas;
mod response_sizes;
mod scheduling;
mod server;
mod storage;
mod stored_formats;
mod terminal_output;
mod text_kinds;
mod traces;
mod unread_responses;
mod watch_command;
mod wire;
