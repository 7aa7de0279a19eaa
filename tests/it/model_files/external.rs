//! Weights in a file beside the graph: read from there, and from nowhere else.
//!
//! Every file that must not be read holds the right weights: a server that read it would serve.

use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;

use super::{beside_a_good_one, refused_beside_a_good_one};
use crate::fixture::served::{NAME, Served, assert_near};
use crate::fixture::{Model, Transformer};

fn transformer() -> Transformer {
    Transformer::new(&["input_ids", "attention_mask"])
        .logit(&[("input_ids", 0.5), ("bias", -1.0)])
        .logit(&[("attention_mask", 1.0)])
}

fn model(entries: &[(&str, &str)]) -> Model {
    transformer().external(entries).model().labels(&["a", "b"])
}

/// Weights in `weights.bin`, named with offset and length as exporters do.
fn usual() -> Model {
    model(&[("location", "weights.bin"), ("offset", "0"), ("length", &transformer().weights().len().to_string())])
}

async fn assert_serves(served: &Served) {
    assert_near(&served.raw("10 20").await.0, &[16.5, 4.0]);
}

#[tokio::test]
async fn a_regular_file_beside_the_graph_is_read() {
    let weights = transformer().weights();
    assert_serves(&Served::new(&usual().file("weights.bin", weights.clone())).await).await;
    let bare = model(&[("location", "weights.bin")]);
    assert_serves(&Served::new(&bare.file("weights.bin", weights.clone())).await).await;
    // Behind other data, at an offset.
    let length = weights.len().to_string();
    let later = model(&[("location", "model.onnx.data"), ("offset", "64"), ("length", &length)]);
    let content = [vec![0xff; 64], weights].concat();
    assert_serves(&Served::new(&later.file("model.onnx.data", content)).await).await;
}

#[tokio::test]
async fn weights_lie_beside_the_graph_in_its_own_folder() {
    let models = tempfile::tempdir().unwrap();
    let directory = usual().write(models.path(), NAME, "1");
    std::fs::create_dir(directory.join("onnx")).unwrap();
    std::fs::rename(directory.join("model.onnx"), directory.join("onnx/model.onnx")).unwrap();
    std::fs::write(directory.join("onnx/weights.bin"), transformer().weights()).unwrap();
    assert_serves(&Served::of(models, &[]).await).await;
}

/// Why this model is refused, once `prepare` has laid out its directory.
async fn refused(model: Model, prepare: impl FnOnce(&Path)) -> String {
    let models = beside_a_good_one();
    let directory = model.write(models.path(), NAME, "1");
    prepare(&directory);
    refused_beside_a_good_one(models).await
}

fn secret(path: &Path) {
    std::fs::write(path, transformer().weights()).unwrap();
}

#[tokio::test]
async fn files_elsewhere_are_not_read() {
    let elsewhere = tempfile::tempdir().unwrap();
    let absolute = elsewhere.path().join("weights.bin");
    secret(&absolute);
    let absolute = absolute.to_str().unwrap();
    for location in ["../weights.bin", absolute, "./../weights.bin", "sub/../weights.bin", "..", "."] {
        let reason = refused(model(&[("location", location)]), |directory| {
            secret(&directory.join("../weights.bin"));
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
async fn external_data_in_a_subdirectory_is_read() {
    for location in ["./weights.bin", "weights/part/model.onnx_data", "./weights//model.onnx_data"] {
        let models = tempfile::tempdir().unwrap();
        let directory = model(&[("location", location)]).write(models.path(), NAME, "1");
        let path = directory.join(location);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        secret(&path);
        assert_serves(&Served::of(models, &[]).await).await;
    }
}

#[tokio::test]
async fn external_data_behind_a_linked_directory_is_refused() {
    let elsewhere = tempfile::tempdir().unwrap();
    secret(&elsewhere.path().join("weights.bin"));
    let reason = refused(model(&[("location", "weights/weights.bin")]), |directory| {
        symlink(elsewhere.path(), directory.join("weights")).unwrap();
    });
    assert_eq!(reason.await, "\"weights/weights.bin\": external data must be a regular file with one link");
}

#[tokio::test]
async fn links_and_what_is_not_a_file_are_not_read() {
    let elsewhere = tempfile::tempdir().unwrap();
    let target = elsewhere.path().join("secret");
    secret(&target);
    let place = |directory: &Path| directory.join("weights.bin");
    let expected = "\"weights.bin\": external data must be a regular file with one link";
    let link = refused(usual(), |directory| symlink(&target, place(directory)).unwrap()).await;
    assert_eq!(link, expected);
    let hard = refused(usual(), |directory| std::fs::hard_link(&target, place(directory)).unwrap()).await;
    assert_eq!(hard, expected);
    // Opening a pipe would wait for a writer for ever.
    let pipe = refused(usual(), |directory| {
        assert!(Command::new("mkfifo").arg(place(directory)).status().unwrap().success());
    });
    assert_eq!(pipe.await, expected);
    assert_eq!(refused(usual(), |directory| std::fs::create_dir(place(directory)).unwrap()).await, expected);
}

#[tokio::test]
async fn files_that_are_missing_or_too_short_are_named() {
    let missing = refused(usual(), |_| ()).await;
    assert!(missing.starts_with("\"weights.bin\": No such file"), "{missing}");
    let weights = transformer().weights();
    let beyond = "\"weights.bin\": a tensor lies beyond the end of this file";
    let short = usual().file("weights.bin", &weights[..weights.len() - 1]);
    assert_eq!(refused(short, |_| ()).await, beyond);
    let past = model(&[("location", "weights.bin"), ("offset", "1000000")]).file("weights.bin", weights.clone());
    assert_eq!(refused(past, |_| ()).await, beyond);
    let max = u64::MAX.to_string();
    let overflow = model(&[("location", "weights.bin"), ("offset", &max), ("length", &max)]);
    let reason = refused(overflow.file("weights.bin", weights.clone()), |_| ()).await;
    assert_eq!(reason, "\"weights.bin\": an offset overflows");
    // No length, and less in the file than the shape needs.
    let unnamed = model(&[("location", "weights.bin"), ("offset", "4")]).file("weights.bin", weights);
    let reason = refused(unnamed, |_| ()).await;
    assert!(reason.starts_with("model.onnx: ") || reason == beyond, "{reason}");
}

#[tokio::test]
async fn a_description_that_could_be_read_in_two_ways_is_refused() {
    let expected = "model.onnx: it keeps the data of a tensor in another file in a way that is not accepted: \
                    only plain initializers may";
    let weights = transformer().weights();
    for entries in [
        vec![("location", "weights.bin"), ("location", "../weights.bin")],
        vec![("location", "weights.bin"), ("offset", "0"), ("offset", "8")],
        vec![("location", "weights.bin"), ("length", "8"), ("length", "32")],
        vec![("location", "weights.bin"), ("offset", "-1")],
        vec![("offset", "0")],
        vec![],
    ] {
        let reason = refused(model(&entries).file("weights.bin", weights.clone()), |_| ()).await;
        assert_eq!(reason, expected, "{entries:?}");
    }
}
