//! More work than the server can do: it refuses early, runs nothing in vain, and can be looked into all the time.

mod expired_texts;
mod many_long_texts;
mod permits_exhausted;
mod retry_storm;
mod watchdog;
