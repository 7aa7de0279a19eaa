//! Drift profiles, the report of drift and accuracy, and its alerts.

mod accuracy;
mod alerts;
mod live_drift;
mod profile_command;
