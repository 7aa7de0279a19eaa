//! The command line.

mod bench;
pub(crate) mod check;
mod health;
pub(crate) mod serve_options;
mod terminal_escaping;
mod watch;
