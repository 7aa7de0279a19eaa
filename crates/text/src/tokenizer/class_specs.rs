//! The rules that a class of tokenizers builds around the vocabulary of `tokenizer.json`.
//!
//! `AutoTokenizer` of `transformers` 5.24 takes vocabulary and merges of the file, and for these classes nothing else but
//! the post-processor: normaliser, pre-tokenizer and the parameters of the model come from the class and the settings of
//! `tokenizer_config.json`. The tables say so class by class; `tests/system/parity/tokenizer_parity.py` compares them with the
//! library.
//!
//! - `spec`: what is known of a class; `build_context`, `components`: what its rules are built of
//! - `bert_family`, `gpt2_family`, `sentencepiece_family`: the classes

mod bert_family;
mod build_context;
mod components;
mod gpt2_family;
mod sentencepiece_family;
mod spec;

pub(super) use build_context::{BuildContext, nullable_bool_setting, setting_error};
pub(super) use spec::{ClassSpec, PostProcessorSpec, TokenizerComponents};

/// The class of this name.
pub(super) fn find_spec(name: &str) -> Option<&'static ClassSpec> {
    let mut specs = bert_family::SPECS.iter().chain(&gpt2_family::SPECS).chain(&sentencepiece_family::SPECS);
    specs.find(|spec| spec.name == name)
}
