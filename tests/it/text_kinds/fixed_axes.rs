//! Graphs whose inputs have a fixed size: they serve where one text at a time, or padding, is enough.

use serde_json::json;

use crate::fixture::Transformer;
use crate::fixture::onnx::Dim;
use crate::fixture::served::{Served, assert_near};

/// The sum of a text's ids, in tensors of this size.
fn sums(dims: [Dim; 2]) -> Transformer {
    let sums = Transformer::new(&["input_ids", "attention_mask"]).logit(&[("input_ids", 1.0)]).dims(dims);
    sums.output("logits", &[dims[0], Dim::Fixed(1)])
}

#[tokio::test]
async fn fixed_batch_of_one_runs_each_text_alone() {
    let served = Served::new(&sums([Dim::Fixed(1), Dim::Open("n")]).model()).await;
    let batch = served.batch(&["10", "20 30", "40"]).await;
    assert_near(&batch.iter().map(|item| item["score"].as_f64().unwrap()).collect::<Vec<_>>(), &[15.0, 55.0, 45.0]);
    assert_eq!(served.facts().await["shares_runs"], false);
}

#[tokio::test]
async fn fixed_length_pads_each_text_and_cuts_longer_ones() {
    for rows in [Dim::Open("batch"), Dim::Fixed(1)] {
        let served = Served::new(&sums([rows, Dim::Fixed(8)]).model()).await;
        let facts = served.facts().await;
        assert_eq!(facts["limits"]["max_tokens"], 8, "{facts}");
        assert_eq!(facts["shares_runs"], rows != Dim::Fixed(1));
        let batch = served.batch(&["10", "20 30", "10 10 10 10 10 10 10 10"]).await;
        let scores: Vec<f64> = batch.iter().map(|item| item["score"].as_f64().unwrap()).collect();
        assert_near(&scores, &[15.0, 55.0, 65.0]);
        assert_eq!(batch[2]["truncated"], true);
    }
}

#[tokio::test]
async fn fixed_length_with_windows_runs_each_window_padded() {
    let model = sums([Dim::Fixed(1), Dim::Fixed(6)]).model().options("on_overflow = \"window\"");
    let served = Served::new(&model).await;
    // Windows 10 11 12 13, 13 14 15 16 and 16 17, weighted by their tokens.
    let score = served.score("10 11 12 13 14 15 16 17").await;
    assert_near(&[score], &[(51.0 * 6.0 + 63.0 * 6.0 + 38.0 * 4.0) / 16.0]);
}

#[tokio::test]
async fn fixed_length_above_the_named_limit_keeps_the_limit() {
    let model = sums([Dim::Open("batch"), Dim::Fixed(16)]).model().options("max_tokens = 6");
    let served = Served::new(&model).await;
    assert_eq!(served.facts().await["limits"]["max_tokens"], 6);
    assert_near(&[served.score("10 20").await], &[35.0]);
    assert_eq!(served.predict("1 2 3 4 5 6").await["tokens"], json!(6));
}
