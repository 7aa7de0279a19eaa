//! Every kind of text model, as its exporters write it, with scores computed by hand.

mod activation;
mod beginnings;
mod choice;
mod classes;
mod company;
mod configs;
mod fixed_axes;
mod heads;
mod inputs;
mod limits;
mod long_text;
mod no_tokens;
mod output_choice;
mod outputs;
pub(crate) mod pairs;
mod scikit;
mod scikit_outputs;
mod token_range;
pub(crate) mod tokens;
pub(crate) mod zero_shot;
