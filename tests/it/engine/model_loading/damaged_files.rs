//! Files that are missing, empty, cut off, or changed.

use predictd::api::health::HealthReport;
use serde_json::json;
use sha2::{Digest, Sha256};

use super::{load_error_beside_good_one, load_error_of, models_with_good_one};
use crate::support::answers::label;
use crate::support::model_builder::ModelBuilder;
use crate::support::model_server::{MODEL, ModelServer, load_error};

#[tokio::test]
async fn load_empty_directory_is_refused() {
    let models = models_with_good_one();
    std::fs::create_dir_all(models.path().join(MODEL).join("1")).unwrap();
    let reason = load_error_beside_good_one(models).await;
    assert_eq!(reason, "model.onnx: the directory holds no model.onnx and no onnx/model.onnx");
    assert_eq!(load_error_of(&ModelBuilder::plain().with_graph("")).await, "model.onnx: it is empty");
    assert_eq!(
        load_error_of(&ModelBuilder::plain().with_graph("graph")).await,
        "model.onnx: it is damaged or not an ONNX file"
    );
}

#[tokio::test]
async fn load_directory_instead_of_file_is_refused() {
    let models = models_with_good_one();
    let directory = ModelBuilder::plain().without_file("tokenizer.json").write(models.path(), MODEL, "1");
    std::fs::create_dir(directory.join("tokenizer.json")).unwrap();
    assert_eq!(load_error_beside_good_one(models).await, "tokenizer.json: it is not a regular file");
}

#[tokio::test]
async fn load_truncated_graph_is_refused_at_any_length() {
    let whole = ModelBuilder::plain();
    let bytes = whole.graph_bytes();
    let models = models_with_good_one();
    // As if copying it had stopped: one version per length, spread over the whole file.
    let lengths: Vec<usize> = (1..40).map(|i| bytes.len() * i / 40).chain([1, 2, 3, bytes.len() - 1]).collect();
    for (version, length) in lengths.iter().enumerate() {
        whole.clone().with_graph(&bytes[..*length]).write(models.path(), MODEL, &version.to_string());
    }
    let served = ModelServer::from_dir(models, &["--default-model", "good"]).await;
    for (version, length) in lengths.iter().enumerate() {
        let reason = served.version_load_error(MODEL, &version.to_string());
        assert!(reason.starts_with("model.onnx: "), "{length} bytes: {reason}");
    }
    assert_eq!(served.predict("10 20").await.model.name, "good");
}

#[tokio::test]
async fn load_truncated_tokenizer_or_config_is_refused() {
    let tokenizer = crate::support::model_builder::tokenizer().to_string();
    for (file, content) in [
        ("tokenizer.json", &tokenizer[..tokenizer.len() / 2]),
        ("tokenizer.json", "{}"),
        ("tokenizer_config.json", "{\"padding_side\":"),
        ("labels.json", "[\"a\""),
        ("labels.json", "{\"0\":\"a\"}"),
        ("golden.json", "{\"examples\":[{\"text\":\"10\",\"colour\":1}]}"),
        ("model.toml", "on_overflow = 'shorten'"),
        ("model.toml", "colour = 1"),
    ] {
        let reason = load_error_of(&ModelBuilder::plain().file(file, content)).await;
        assert!(reason.starts_with(&format!("{file}: ")), "{content}: {reason}");
    }
}

/// `model.toml` with the digests of these files.
fn digests_toml(files: &[(&str, &[u8])]) -> String {
    let line = |(name, content): &(&str, &[u8])| format!("\"{name}\" = \"{}\"", hex::encode(Sha256::digest(content)));
    format!("[sha256]\n{}\n", files.iter().map(line).collect::<Vec<_>>().join("\n"))
}

#[tokio::test]
async fn load_flipped_bit_fails_digest() {
    let tokenizer = crate::support::model_builder::tokenizer().to_string().into_bytes();
    let whole = ModelBuilder::plain();
    let whole = whole
        .clone()
        .manifest_toml(&digests_toml(&[("model.onnx", whole.graph_bytes()), ("tokenizer.json", &tokenizer)]));
    assert_eq!(label(&ModelServer::new(&whole).await.predict("10 20").await), "a");
    let models = models_with_good_one();
    let damage = "its SHA-256 is not the one in model.toml: the file was changed or damaged";
    let mut expected = Vec::new();
    for (file, content) in [("model.onnx", whole.graph_bytes().to_vec()), ("tokenizer.json", tokenizer)] {
        for i in 0..20 {
            let mut changed = content.clone();
            let place = changed.len() * i / 20;
            changed[place] ^= 1 << (i % 8);
            let model = whole.clone();
            let model = if file == "model.onnx" { model.with_graph(changed) } else { model.file(file, changed) };
            model.write(models.path(), MODEL, &expected.len().to_string());
            expected.push(format!("{file}: {damage}"));
        }
    }
    let served = ModelServer::from_dir(models, &["--default-model", "good"]).await;
    for (version, expected) in expected.iter().enumerate() {
        assert_eq!(&served.version_load_error(MODEL, &version.to_string()), expected);
    }
    assert_eq!(served.predict("10 20").await.model.name, "good");
}

#[tokio::test]
async fn load_digest_of_missing_file_is_refused() {
    let reason = load_error(&ModelBuilder::plain().manifest_toml(&digests_toml(&[("weights.bin", b"")]))).await;
    assert!(reason.starts_with("model.toml: [sha256] names \"weights.bin\""), "{reason}");
    let other =
        ModelBuilder::plain().file("notes.txt", "changed").manifest_toml(&digests_toml(&[("notes.txt", b"as it was")]));
    assert!(load_error(&other).await.starts_with("notes.txt: its SHA-256"));
}

#[tokio::test]
async fn load_missing_tokenizer_or_labels_is_refused() {
    let reason = load_error_of(&ModelBuilder::plain().without_file("tokenizer.json")).await;
    assert_eq!(reason, "tokenizer.json: there is no such file, and the graph takes tokens");
    let reason =
        load_error_of(&ModelBuilder::plain().without_file("tokenizer.json").config("id2label", json!({ "0": "a" })))
            .await;
    assert_eq!(reason, "tokenizer.json: there is no such file, and the graph takes tokens");
    let reason =
        load_error_of(&ModelBuilder::plain().config("id2label", json!(null)).config("num_labels", json!(3))).await;
    assert!(
        reason.starts_with("config.json: it names no labels, which means 3 labels, but the graph gives 2"),
        "{reason}"
    );
}

#[tokio::test]
async fn load_flipped_bytes_never_crash_server() {
    // Without a digest a change may go unseen; what it must not do is stop or hang the others.
    let whole = ModelBuilder::plain();
    let models = models_with_good_one();
    for i in 0..60 {
        let mut changed = whole.graph_bytes().to_vec();
        let place = changed.len() * i / 60;
        changed[place] = changed[place].wrapping_add(97);
        whole.clone().with_graph(changed).write(models.path(), MODEL, &i.to_string());
    }
    let served = ModelServer::from_dir(models, &["--default-model", "good"]).await;
    let health = served.server.get("/health").await;
    assert_eq!(health.status, 200);
    let failed = health.json::<HealthReport>().models.iter().filter(|model| model.state == "failed").count();
    assert!(failed > 10, "{failed} of 60 were refused");
    assert_eq!(served.predict("10 20").await.model.name, "good");
}
