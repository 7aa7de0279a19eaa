//! Models that an MLflow server keeps.
//!
//! - [`uri`]: how people write which one they mean
//! - [`client`]: what the server is asked
//! - [`file_layout`]: which of its files make a version
//! - [`pull`]: from the one to the other
//!
//! Only the server that the operator named is asked, and those that it gives presigned addresses of. Nothing of what they
//! keep is run but the graph: no pickle, no code.

pub mod client;
pub mod file_layout;
pub mod pull;
pub mod server_settings;
pub mod uri;
