//! Profiles, what a server says of live texts and of its answers by them, and who is told.

mod accuracy;
mod alerts;
mod live_drift;
mod profile_command;
