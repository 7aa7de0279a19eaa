//! Every kind of text model, as its exporters write it, with scores computed by hand.

mod batch_invariance;
mod classification_heads;
mod config_json;
mod empty_tokenization;
mod fixed_input_sizes;
mod invalid_outputs;
mod long_texts;
mod output_activation;
mod output_selection;
mod sklearn_decisions;
mod sklearn_outputs;
mod sklearn_pipelines;
mod text_pairs;
mod token_classification;
mod token_limits;
mod tokenizer_classes;
mod transformer_inputs;
mod truncation_prefix;
mod vocabulary_size;
mod zero_shot;
