//! Tokenizers of every class of `transformers`, with odd files and settings: the ids are those of `AutoTokenizer`.
//!
//! `tests/system/parity/tokenizer_cases.py` writes `tokenizer_classes.json` with `AutoTokenizer` of transformers 5.24.

use std::collections::BTreeMap;
use std::path::Path;

use predictd::text::input::SecondText;
use predictd::text::manifest::{Manifest, ManifestError};
use predictd::text::tensors::PaddingSide;
use predictd::text::text_policies::OverflowPolicy;
use predictd::text::tokenizer::{TokenizedText, Tokenizer};
use serde::Deserialize;
use serde_json::{Map, Value};

const CASES_JSON: &str = include_str!("tokenizer_classes.json");

#[derive(Deserialize)]
struct ReferenceCases {
    texts: Vec<String>,
    pair: [String; 2],
    bases: BTreeMap<String, Value>,
    cases: Vec<TokenizerCase>,
}

#[derive(Deserialize)]
struct TokenizerCase {
    name: String,
    base: String,
    settings: Option<Value>,
    parts: Map<String, Value>,
    config: Value,
    files: BTreeMap<String, Value>,
    /// `AutoTokenizer` refuses the files.
    refused: Option<String>,
    /// Of each text, and of the pair.
    #[serde(default)]
    ids: Vec<Vec<u32>>,
    /// The same; empty where all are zero.
    #[serde(default)]
    types: Vec<Vec<u32>>,
    #[serde(default)]
    left: bool,
    pad: Option<u32>,
}

impl TokenizerCase {
    fn write(&self, bases: &BTreeMap<String, Value>, directory: &Path) {
        let write = |name: &str, content: &Value| std::fs::write(directory.join(name), content.to_string()).unwrap();
        std::fs::write(directory.join("model.onnx"), "x").unwrap();
        let mut tokenizer = bases[&self.base].clone();
        tokenizer.as_object_mut().unwrap().extend(self.parts.clone());
        write("tokenizer.json", &tokenizer);
        write("config.json", &self.config);
        self.settings.iter().for_each(|settings| write("tokenizer_config.json", settings));
        self.files.iter().for_each(|(name, content)| write(name, content));
    }

    fn load(&self, bases: &BTreeMap<String, Value>) -> Result<Tokenizer, ManifestError> {
        let directory = tempfile::tempdir().unwrap();
        self.write(bases, directory.path());
        Tokenizer::load(&Manifest::load(directory.path())?, OverflowPolicy::Truncate)
    }

    /// What differs from `AutoTokenizer`.
    fn difference(&self, answers: &ReferenceCases) -> Option<String> {
        let tokenizer = match (self.load(&answers.bases), &self.refused) {
            (Err(_), Some(_)) => return None,
            (Err(error), None) => return Some(format!("refused: {error}")),
            (Ok(_), Some(refused)) => return Some(format!("AutoTokenizer refuses it: {refused}")),
            (Ok(tokenizer), None) => tokenizer,
        };
        let [first, second] = answers.pair.clone();
        let pair = tokenizer.encode_pair(&first, &SecondText { text: second, truncate_only_first: false });
        let rows = answers.texts.iter().map(|text| tokenizer.encode(text)).chain([pair]);
        for (number, (row, (ids, types))) in rows.zip(self.ids.iter().zip(&self.types)).enumerate() {
            let found = row.map(|TokenizedText { mut rows, .. }| rows.remove(0)).unwrap_or_default();
            let types = if types.is_empty() { vec![0; ids.len()] } else { types.clone() };
            if (&found.ids, &found.type_ids) != (ids, &types) {
                return Some(format!("text {number}: {:?} {:?}, not {ids:?} {types:?}", found.ids, found.type_ids));
            }
        }
        let padding = tokenizer.padding();
        if (padding.side == PaddingSide::Left) != self.left {
            return Some(format!("padding on the {:?}", padding.side));
        }
        self.pad.filter(|&pad| pad != padding.id).map(|pad| format!("padding with {}, not {pad}", padding.id))
    }
}

#[test]
fn tokenizer_classes_give_ids_of_autotokenizer() {
    let answers: ReferenceCases = serde_json::from_str(CASES_JSON).unwrap();
    assert!(answers.cases.len() > 100, "{}", answers.cases.len());
    let differ = answers.cases.iter().filter_map(|case| {
        assert!(case.refused.is_some() || case.ids.len() == answers.texts.len() + 1, "{}", case.name);
        case.difference(&answers).map(|difference| format!("{}: {difference}", case.name))
    });
    let differ: Vec<String> = differ.collect();
    assert!(differ.is_empty(), "{} of {} differ:\n{}", differ.len(), answers.cases.len(), differ.join("\n"));
}
