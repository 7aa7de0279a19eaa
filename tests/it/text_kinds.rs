//! Every kind of text model, as its exporters write it, with scores computed by hand.

mod beginnings;
mod choice;
mod classes;
mod company;
mod configs;
mod heads;
mod inputs;
mod limits;
mod long_text;
mod no_tokens;
mod outputs;
pub(crate) mod pairs;
mod scikit;
pub(crate) mod tokens;
pub(crate) mod zero_shot;
