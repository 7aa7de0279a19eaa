//! The files of a model directory: whatever they hold, each is read or refused by name, in a short sentence.

#![no_main]

use std::fs;
use std::io::ErrorKind;
use std::path::Path;
use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use predictd::drift::DriftSignal;
use predictd::text::manifest::{Manifest, ManifestError};
use predictd::text::pipeline::Pipeline;
use predictd::text::signature::{GraphInput, IntegerWidth, Signature, TokenInput, TokenRole};
use predictd::text::text_policies::{MarkupPolicy, OverflowPolicy, TextPolicies};
use signatures::logits_signature;
use tempfile::TempDir;

#[path = "../it/support/signatures.rs"]
mod signatures;

/// The files in the order of the input.
const FILES: [&str; 8] = [
    "model.toml",
    "config.json",
    "labels.json",
    "tokenizer_config.json",
    "golden.json",
    "profile.json",
    "special_tokens_map.json",
    "added_tokens.json",
];
/// The tokenizer that the files say something over.
const TOKENIZER: &str = include_str!("models/short/1/tokenizer.json");
/// Ends a file of the input.
const SEPARATOR: u8 = 0x1e;
/// Longest error in bytes: it becomes a line of the log.
const LONGEST_ERROR: usize = 1_024;

static DIRECTORY: LazyLock<TempDir> = LazyLock::new(|| {
    let directory = tempfile::tempdir().expect("a temporary directory");
    fs::write(directory.path().join("model.onnx"), "no graph").expect("a file");
    fs::write(directory.path().join("tokenizer.json"), TOKENIZER).expect("a file");
    directory
});

// Up to eight files; one that is not there is empty in the input.
fuzz_target!(|input: &[u8]| {
    let directory = DIRECTORY.path();
    let mut parts = input.splitn(FILES.len(), |byte| *byte == SEPARATOR);
    for file in FILES {
        put(&directory.join(file), parts.next().unwrap_or_default());
    }
    let tokens = TokenInput { name: "input_ids".to_owned(), role: TokenRole::InputIds, width: IntegerWidth::Bits64 };
    for input in [GraphInput::Texts { name: "text".to_owned(), rank: 1 }, GraphInput::Tokens(vec![tokens])] {
        match Manifest::load(directory) {
            Ok(manifest) => assemble(manifest, input),
            Err(error) => check(&error),
        }
    }
});

fn put(path: &Path, content: &[u8]) {
    let done = if content.is_empty() { fs::remove_file(path) } else { fs::write(path, content) };
    if let Err(error) = done {
        assert_eq!(error.kind(), ErrorKind::NotFound, "{}", path.display());
    }
}

/// Fits what was read to a graph that gives two scores.
fn assemble(mut manifest: Manifest, input: GraphInput) {
    let signature = Signature { input, ..logits_signature(&[], 2) };
    let defaults = TextPolicies { on_overflow: OverflowPolicy::Truncate, markup: MarkupPolicy::Reject };
    _ = manifest.config.usable_positions();
    let profile = manifest.profile.take();
    match Pipeline::from_manifest(&mut manifest, &signature, defaults) {
        Ok(pipeline) => {
            assert!(matches!(pipeline.labels().len(), 0..=2));
            // Every text has tokens or an error, whatever is special.
            _ = pipeline.encode("[CLS] hello world".to_owned());
            if let Some(golden) = pipeline.golden() {
                _ = golden.check();
            }
            // What is taken must be what a window can be compared with.
            if let Some(Ok(reference)) = profile.map(|profile| profile.reference(pipeline.labels())) {
                let mut window = reference.empty_counts();
                (0..200).for_each(|text| window.record(Some(text), 0.5, text, text));
                for distance in DriftSignal::ALL.iter().filter_map(|&signal| reference.compare(signal, &window)) {
                    assert!(distance.value.is_finite() && distance.threshold().is_finite(), "{distance:?}");
                }
            }
        }
        Err(error) => check(&error),
    }
}

fn check(error: &ManifestError) {
    let text = error.to_string();
    assert!(!error.file.is_empty() && !error.reason.is_empty(), "{text}");
    assert!(text.len() <= LONGEST_ERROR, "{} bytes: {text}", text.len());
}
