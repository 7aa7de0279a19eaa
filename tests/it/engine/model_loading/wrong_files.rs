//! What stands in the place of a file when a download or a copy went wrong: said in a sentence that tells what to do.

use serde_json::json;

use super::{load_error_beside_good_one, load_error_of, models_with_good_one};
use crate::support::answers::label;
use crate::support::model_builder::ModelBuilder;
use crate::support::model_server::{MODEL, load_error};

const LFS_POINTER: &str = "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a214614ab2935c943f9e0ff69d22eadbb8f32b1258daaa5e2ca24d17e2393\nsize 12345\n";
const HTML_PAGE: &str = "\n<!DOCTYPE html>\n<html><head><title>Sign in</title></head></html>\n";

#[tokio::test]
async fn load_git_lfs_pointer_is_named() {
    let pointer =
        "it is a Git LFS pointer, not the file itself: run `git lfs pull` in the repository, and copy the file again";
    assert_eq!(load_error_of(&ModelBuilder::plain().with_graph(LFS_POINTER)).await, format!("model.onnx: {pointer}"));
    for file in ["tokenizer.json", "config.json", "tokenizer_config.json", "labels.json", "golden.json", "model.toml"] {
        assert_eq!(load_error(&ModelBuilder::plain().file(file, LFS_POINTER)).await, format!("{file}: {pointer}"));
    }
    // Weights beside the graph.
    let transformer = crate::support::model_builder::TransformerBuilder::new(&["input_ids"]).logit(&[("last", 1.0)]);
    let model = transformer.external_weights(&[("location", "weights.bin")]).model().file("weights.bin", LFS_POINTER);
    assert_eq!(load_error(&model).await, format!("weights.bin: {pointer}"));
}

#[tokio::test]
async fn load_html_page_instead_of_file_is_named() {
    let page = "it is an HTML page, not the file itself: the download gave a web page (a log-in or an error): download the file again";
    assert_eq!(load_error(&ModelBuilder::plain().with_graph("<html>")).await, format!("model.onnx: {page}"));
    for file in ["tokenizer.json", "config.json", "special_tokens_map.json"] {
        assert_eq!(load_error(&ModelBuilder::plain().file(file, HTML_PAGE)).await, format!("{file}: {page}"));
    }
}

#[tokio::test]
async fn load_byte_order_mark_or_other_encoding_is_named() {
    let marked = |text: &str| [b"\xef\xbb\xbf".as_slice(), text.as_bytes()].concat();
    let wide: Vec<u8> = [0xfeff].into_iter().chain("{}".encode_utf16()).flat_map(u16::to_le_bytes).collect();
    let bom = "it begins with a byte order mark (BOM), which does not belong there: save it as UTF-8 without BOM";
    for file in ["config.json", "tokenizer_config.json", "tokenizer.json", "labels.json", "model.toml"] {
        assert_eq!(load_error(&ModelBuilder::plain().file(file, marked("{}"))).await, format!("{file}: {bom}"));
    }
    let utf16 = load_error(&ModelBuilder::plain().file("config.json", wide)).await;
    assert_eq!(utf16, "config.json: it is UTF-16: save it as UTF-8 without BOM");
    let latin = load_error(&ModelBuilder::plain().file("config.json", b"{\"a\":\"\xe9\"}")).await;
    assert_eq!(latin, "config.json: it is not UTF-8 from byte 6 on: save it as UTF-8");
}

#[tokio::test]
async fn load_newer_tokenizer_parts_are_named() {
    let end = "which this build does not know: the file is of a newer release of tokenizers. Save it with tokenizers 0.23 or older, or update predictd";
    let model = ModelBuilder::plain().tokenizer(|file| file["model"]["type"] = json!("NewPiece"));
    assert_eq!(load_error_of(&model).await, format!("tokenizer.json: its model has the type \"NewPiece\", {end}"));
    // Even where a class puts its own part into its place, as AutoTokenizer does.
    let split = ModelBuilder::plain()
        .tokenizer(|file| {
            file["pre_tokenizer"] = json!({ "type": "NewSplit" });
            file["model"] = json!({ "type": "WordPiece", "vocab": file["model"]["vocab"], "unk_token": "[UNK]",
                "continuing_subword_prefix": "##", "max_input_chars_per_word": 100 });
        })
        .tokenizer_config("tokenizer_class", json!("BertTokenizer"));
    assert_eq!(load_error(&split).await, format!("tokenizer.json: its pre_tokenizer has the type \"NewSplit\", {end}"));
    let other = load_error(&ModelBuilder::plain().file("tokenizer.json", "{}")).await;
    assert_eq!(
        other,
        "tokenizer.json: it has no model: it is not a tokenizer.json as `save_pretrained` of transformers writes it"
    );
}

#[tokio::test]
async fn load_hub_repository_without_version_directory_is_named() {
    let models = models_with_good_one();
    let directory = ModelBuilder::plain().config("model_type", json!("x")).write(models.path(), MODEL, "onnx");
    for file in ["config.json", "tokenizer.json"] {
        std::fs::rename(directory.join(file), models.path().join(MODEL).join(file)).unwrap();
    }
    let served = crate::support::model_server::ModelServer::from_dir(models, &["--default-model", "good"]).await;
    assert_eq!(
        served.version_load_error(MODEL, "onnx"),
        "m: it holds a model itself, not its versions: put all of its files into \"m/1\""
    );
    assert_eq!(served.predict("10 20").await.model.name, "good");
}

#[tokio::test]
async fn load_embedding_model_is_named() {
    let sentence = "config.json: it is an embedding model: its files name no classification head and no labels. This \
                    server answers with labels: embedding models are not served yet.";
    let three = || {
        let graph = crate::support::model_builder::TransformerBuilder::new(&["input_ids", "attention_mask"]);
        graph.logit(&[("input_ids", 1.0)]).logit(&[("bias", 1.0)]).logit(&[("last", 1.0)]).model()
    };
    for model in [
        three().config("architectures", json!(["BertModel"])).config("model_type", json!("bert")),
        three().config("architectures", json!(["XLMRobertaModel"])),
        three().file("modules.json", "[]"),
    ] {
        let reason = load_error(&model).await;
        assert!(reason.starts_with(sentence), "{reason}");
    }
    // Labels make it a classifier.
    let labelled = three().config("architectures", json!(["BertModel"])).labels(&["a", "b", "c"]);
    let served = crate::support::model_server::ModelServer::new(&labelled).await;
    assert_eq!(label(&served.predict("10 20").await), "a");
}

#[tokio::test]
async fn load_python_tokenizer_class_is_refused_unless_overridden() {
    let class = |name: &str| ModelBuilder::plain().tokenizer_config("tokenizer_class", json!(name));
    let how =
        "to take tokenizer.json as it is, say \"tokenizer_class\": \"TokenizersBackend\" in tokenizer_config.json";
    assert_eq!(
        load_error_beside_good_one({
            let models = models_with_good_one();
            class("PhobertTokenizer").write(models.path(), MODEL, "1");
            models
        })
        .await,
        format!(
            "tokenizer_config.json: tokenizer_class is \"PhobertTokenizer\", whose rules tokenizer.json cannot hold: its \
             rules are Python code or take more than text; {how}"
        )
    );
    assert_eq!(
        load_error(&class("RobertaTokenizerFast")).await,
        format!(
            "tokenizer_config.json: tokenizer_class is \"RobertaTokenizerFast\", whose rules tokenizer.json cannot hold: it \
             builds a BPE model, and tokenizer.json holds a WordLevel model; {how}"
        )
    );
    for (key, value, expected) in [
        ("do_lower_case", json!("no"), "do_lower_case is \"no\", where true or false is expected"),
        (
            "cls_token",
            json!(7),
            "cls_token is a number, where a token is expected: its text, or an object with its content and flags",
        ),
        ("split_special_tokens", json!(1), "split_special_tokens is 1, where true or false is expected"),
        ("model_max_length", json!("x"), "\"model_max_length\": invalid type: string \"x\", expected f64"),
        (
            "added_tokens_decoder",
            json!({ "x": { "content": "a" } }),
            "added_tokens_decoder has the key \"x\", where an id of a token is expected",
        ),
    ] {
        let wrong = ModelBuilder::plain()
            .tokenizer(|file| {
                file["model"] = json!({ "type": "WordPiece", "vocab": file["model"]["vocab"], "unk_token": "[UNK]",
                    "continuing_subword_prefix": "##", "max_input_chars_per_word": 100 });
            })
            .tokenizer_config("tokenizer_class", json!("BertTokenizer"))
            .tokenizer_config(key, value);
        assert_eq!(load_error(&wrong).await, format!("tokenizer_config.json: {expected}"));
    }
}
