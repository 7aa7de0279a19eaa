//! More work than the server can do: it refuses early, runs nothing in vain, and can be looked into all the time.

mod descriptors;
mod endless;
mod full;
mod late;
mod long_texts;
mod storm;
