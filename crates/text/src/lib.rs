//! From text to tensors and from scores to labels: pure functions and values.
//!
//! Nothing here waits, locks, reads a clock or knows HTTP and ONNX Runtime.
//!
//! - [`manifest`]: what a model directory says about itself; [`mlmodel`]: what MLflow says of it
//! - [`signature`]: what its graph wants and gives
//! - [`input`]: one text, or two that belong together
//! - [`policy`]: markup, control and foreign characters
//! - [`tokenizer`]: text to token rows, truncation and windows; [`prefix`]: how much of a long text is read
//! - [`tensors`]: token rows to one padded batch
//! - [`activation`]: scores to probabilities; [`heads`]: scores to labels, probabilities, a number; [`entities`]: labels of tokens to entities
//! - [`zero_shot`]: labels of a request to questions about two texts
//! - [`golden`]: examples a model must reproduce before it serves
//! - [`pipeline`]: all of the above for one model

pub mod activation;
pub mod entities;
pub mod golden;
pub mod heads;
pub mod input;
pub mod manifest;
pub mod mlmodel;
pub mod pipeline;
pub mod policy;
pub mod prefix;
pub mod signature;
pub mod tensors;
pub mod text_policies;
pub mod tokenizer;
pub mod zero_shot;
