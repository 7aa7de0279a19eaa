//! Weights in a file beside the graph: read from there, and from nowhere else.
//!
//! Every file that must not be read holds the right weights: a server that read it would serve.

use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;

use super::{load_error_beside_good_one, models_with_good_one};
use crate::support::assertions::assert_near;
use crate::support::model_builder::{ModelBuilder, TransformerBuilder};
use crate::support::model_server::{MODEL, ModelServer};

fn transformer() -> TransformerBuilder {
    TransformerBuilder::new(&["input_ids", "attention_mask"])
        .logit(&[("input_ids", 0.5), ("bias", -1.0)])
        .logit(&[("attention_mask", 1.0)])
}

fn external_model(entries: &[(&str, &str)]) -> ModelBuilder {
    transformer().external_weights(entries).model().labels(&["a", "b"])
}

/// Weights in `weights.bin`, named with offset and length as exporters do.
fn external_model_with_offsets() -> ModelBuilder {
    external_model(&[
        ("location", "weights.bin"),
        ("offset", "0"),
        ("length", &transformer().weight_bytes().len().to_string()),
    ])
}

async fn assert_serves(served: &ModelServer) {
    assert_near(&served.raw_scores("10 20").await.0, &[16.5, 4.0]);
}

#[tokio::test]
async fn external_weights_beside_graph_are_read() {
    let weights = transformer().weight_bytes();
    assert_serves(&ModelServer::new(&external_model_with_offsets().file("weights.bin", weights.clone())).await).await;
    let bare = external_model(&[("location", "weights.bin")]);
    assert_serves(&ModelServer::new(&bare.file("weights.bin", weights.clone())).await).await;
    // Behind other data, at an offset.
    let length = weights.len().to_string();
    let later = external_model(&[("location", "model.onnx.data"), ("offset", "64"), ("length", &length)]);
    let content = [vec![0xff; 64], weights].concat();
    assert_serves(&ModelServer::new(&later.file("model.onnx.data", content)).await).await;
}

#[tokio::test]
async fn external_weights_beside_graph_in_subfolder_are_read() {
    let models = tempfile::tempdir().unwrap();
    let directory = external_model_with_offsets().write(models.path(), MODEL, "1");
    std::fs::create_dir(directory.join("onnx")).unwrap();
    std::fs::rename(directory.join("model.onnx"), directory.join("onnx/model.onnx")).unwrap();
    std::fs::write(directory.join("onnx/weights.bin"), transformer().weight_bytes()).unwrap();
    assert_serves(&ModelServer::from_dir(models, &[]).await).await;
}

/// Why this model is refused, once `prepare` has laid out its directory.
async fn load_error_after(model: ModelBuilder, prepare: impl FnOnce(&Path)) -> String {
    let models = models_with_good_one();
    let directory = model.write(models.path(), MODEL, "1");
    prepare(&directory);
    load_error_beside_good_one(models).await
}

fn write_secret_weights(path: &Path) {
    std::fs::write(path, transformer().weight_bytes()).unwrap();
}

#[tokio::test]
async fn external_weights_outside_directory_are_refused() {
    let elsewhere = tempfile::tempdir().unwrap();
    let absolute = elsewhere.path().join("weights.bin");
    write_secret_weights(&absolute);
    let absolute = absolute.to_str().unwrap();
    for location in ["../weights.bin", absolute, "./../weights.bin", "sub/../weights.bin", "..", "."] {
        let reason = load_error_after(external_model(&[("location", location)]), |directory| {
            write_secret_weights(&directory.join("../weights.bin"));
            std::fs::create_dir(directory.join("sub")).unwrap();
        });
        let reason = reason.await;
        assert_eq!(
            reason,
            format!("{location:?}: external data must lie in the directory of the graph, or in one within it")
        );
    }
}

#[tokio::test]
async fn external_weights_in_subdirectory_are_read() {
    for location in ["./weights.bin", "weights/part/model.onnx_data", "./weights//model.onnx_data"] {
        let models = tempfile::tempdir().unwrap();
        let directory = external_model(&[("location", location)]).write(models.path(), MODEL, "1");
        let path = directory.join(location);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        write_secret_weights(&path);
        assert_serves(&ModelServer::from_dir(models, &[]).await).await;
    }
}

#[tokio::test]
async fn external_weights_behind_symlinked_directory_are_refused() {
    let elsewhere = tempfile::tempdir().unwrap();
    write_secret_weights(&elsewhere.path().join("weights.bin"));
    let reason = load_error_after(external_model(&[("location", "weights/weights.bin")]), |directory| {
        symlink(elsewhere.path(), directory.join("weights")).unwrap();
    });
    assert_eq!(reason.await, "\"weights/weights.bin\": external data must be a regular file with one link");
}

#[tokio::test]
async fn external_weights_symlink_or_non_file_is_refused() {
    let elsewhere = tempfile::tempdir().unwrap();
    let target = elsewhere.path().join("secret");
    write_secret_weights(&target);
    let place = |directory: &Path| directory.join("weights.bin");
    let expected = "\"weights.bin\": external data must be a regular file with one link";
    let link =
        load_error_after(external_model_with_offsets(), |directory| symlink(&target, place(directory)).unwrap()).await;
    assert_eq!(link, expected);
    let hard = load_error_after(external_model_with_offsets(), |directory| {
        std::fs::hard_link(&target, place(directory)).unwrap();
    })
    .await;
    assert_eq!(hard, expected);
    // Opening a pipe would wait for a writer for ever.
    let pipe = load_error_after(external_model_with_offsets(), |directory| {
        assert!(Command::new("mkfifo").arg(place(directory)).status().unwrap().success());
    });
    assert_eq!(pipe.await, expected);
    assert_eq!(
        load_error_after(external_model_with_offsets(), |directory| std::fs::create_dir(place(directory)).unwrap())
            .await,
        expected
    );
}

#[tokio::test]
async fn external_weights_missing_or_short_are_refused() {
    let missing = load_error_after(external_model_with_offsets(), |_| ()).await;
    assert!(missing.starts_with("\"weights.bin\": No such file"), "{missing}");
    let weights = transformer().weight_bytes();
    let beyond = "\"weights.bin\": a tensor lies beyond the end of this file";
    let short = external_model_with_offsets().file("weights.bin", &weights[..weights.len() - 1]);
    assert_eq!(load_error_after(short, |_| ()).await, beyond);
    let past =
        external_model(&[("location", "weights.bin"), ("offset", "1000000")]).file("weights.bin", weights.clone());
    assert_eq!(load_error_after(past, |_| ()).await, beyond);
    let max = u64::MAX.to_string();
    let overflow = external_model(&[("location", "weights.bin"), ("offset", &max), ("length", &max)]);
    let reason = load_error_after(overflow.file("weights.bin", weights.clone()), |_| ()).await;
    assert_eq!(reason, "\"weights.bin\": an offset overflows");
    // No length, and less in the file than the shape needs.
    let unnamed = external_model(&[("location", "weights.bin"), ("offset", "4")]).file("weights.bin", weights);
    let reason = load_error_after(unnamed, |_| ()).await;
    assert!(reason.starts_with("model.onnx: ") || reason == beyond, "{reason}");
}

#[tokio::test]
async fn external_weights_ambiguous_entry_is_refused() {
    let expected = "model.onnx: it keeps the data of a tensor in another file in a way that is not accepted: \
                    only plain initializers may";
    let weights = transformer().weight_bytes();
    for entries in [
        vec![("location", "weights.bin"), ("location", "../weights.bin")],
        vec![("location", "weights.bin"), ("offset", "0"), ("offset", "8")],
        vec![("location", "weights.bin"), ("length", "8"), ("length", "32")],
        vec![("location", "weights.bin"), ("offset", "-1")],
        vec![("offset", "0")],
        vec![],
    ] {
        let reason = load_error_after(external_model(&entries).file("weights.bin", weights.clone()), |_| ()).await;
        assert_eq!(reason, expected, "{entries:?}");
    }
}
