//! Graphs whose inputs have a fixed size: they serve where one text at a time, or padding, is enough.

use crate::support::answers::{item_answer, score};
use crate::support::assertions::assert_near;
use crate::support::model_builder::TransformerBuilder;
use crate::support::model_builder::onnx_graph::Dim;
use crate::support::model_server::ModelServer;

/// The sum of a text's ids, in tensors of this size.
fn sum_transformer(dims: [Dim; 2]) -> TransformerBuilder {
    let sums = TransformerBuilder::new(&["input_ids", "attention_mask"]).logit(&[("input_ids", 1.0)]).input_dims(dims);
    sums.output("logits", &[dims[0], Dim::Fixed(1)])
}

#[tokio::test]
async fn input_fixed_batch_of_one_runs_texts_alone() {
    let served = ModelServer::new(&sum_transformer([Dim::Fixed(1), Dim::Open("n")]).model()).await;
    let batch = served.batch_predict(&["10", "20 30", "40"]).await;
    assert_near(&batch.iter().map(|item| score(item_answer(item))).collect::<Vec<_>>(), &[15.0, 55.0, 45.0]);
    assert!(!served.model_info().await.shares_runs);
}

#[tokio::test]
async fn input_fixed_length_pads_and_truncates() {
    for rows in [Dim::Open("batch"), Dim::Fixed(1)] {
        let served = ModelServer::new(&sum_transformer([rows, Dim::Fixed(8)]).model()).await;
        let facts = served.model_info().await;
        assert_eq!(facts.limits.max_tokens, Some(8));
        assert_eq!(facts.shares_runs, rows != Dim::Fixed(1));
        let batch = served.batch_predict(&["10", "20 30", "10 10 10 10 10 10 10 10"]).await;
        let scores: Vec<f64> = batch.iter().map(|item| score(item_answer(item))).collect();
        assert_near(&scores, &[15.0, 55.0, 65.0]);
        assert!(item_answer(&batch[2]).truncated);
    }
}

#[tokio::test]
async fn input_fixed_length_windows_are_padded() {
    let model = sum_transformer([Dim::Fixed(1), Dim::Fixed(6)]).model().manifest_toml("on_overflow = \"window\"");
    let served = ModelServer::new(&model).await;
    // Windows 10 11 12 13, 13 14 15 16 and 16 17, weighted by their tokens.
    let score = served.score("10 11 12 13 14 15 16 17").await;
    assert_near(&[score], &[(51.0 * 6.0 + 63.0 * 6.0 + 38.0 * 4.0) / 16.0]);
}

#[tokio::test]
async fn input_fixed_length_above_token_limit_keeps_limit() {
    let model = sum_transformer([Dim::Open("batch"), Dim::Fixed(16)]).model().manifest_toml("max_tokens = 6");
    let served = ModelServer::new(&model).await;
    assert_eq!(served.model_info().await.limits.max_tokens, Some(6));
    assert_near(&[served.score("10 20").await], &[35.0]);
    assert_eq!(served.predict("1 2 3 4 5 6").await.tokens, 6);
}
