//! The command line.

mod bench;
mod check;
mod health;
mod help;
mod keys;
mod serve_options;
mod terminal_escaping;
mod watch;
