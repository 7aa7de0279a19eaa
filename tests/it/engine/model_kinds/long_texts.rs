//! Texts of more tokens than a model takes: refused, cut off, or scored in windows.

use predictd::api::served_models::OverflowPolicy;
use serde_json::{Value, json};

use crate::support::answers::{item_answer, item_error, score};
use crate::support::assertions::assert_near;
use crate::support::model_builder::onnx_graph::{Attribute, Dim};
use crate::support::model_builder::{ModelBuilder, TransformerBuilder};
use crate::support::model_server::ModelServer;

/// Six tokens at most, four of them the text's own. The score is the sum of the ids.
fn six_token_model(on_overflow: &str) -> ModelBuilder {
    let sum = TransformerBuilder::new(&["input_ids", "attention_mask"]).logit(&[("input_ids", 1.0)]);
    sum.model().manifest_toml(&format!("on_overflow = '{on_overflow}'\nmax_tokens = 6"))
}

/// The same without special tokens, as GPT-2 has it: all six are the text's own.
fn six_token_model_without_specials(on_overflow: &str) -> ModelBuilder {
    six_token_model(on_overflow).tokenizer(|file| file["post_processor"] = Value::Null)
}

fn words_in(range: std::ops::Range<u32>) -> String {
    range.map(|word| word.to_string()).collect::<Vec<_>>().join(" ")
}

/// `(score, tokens, truncated)`
async fn score_tokens_truncated(served: &ModelServer, text: &str) -> (f64, usize, bool) {
    let answer = served.predict(text).await;
    (score(&answer), answer.tokens, answer.truncated)
}

#[tokio::test]
async fn long_text_truncated_is_reported() {
    let served = ModelServer::new(&six_token_model("truncate")).await;
    assert_eq!(score_tokens_truncated(&served, &words_in(10..14)).await, (51.0, 6, false));
    for end in [15, 16, 17, 90] {
        assert_eq!(score_tokens_truncated(&served, &words_in(10..end)).await, (51.0, 6, true), "10..{end}");
    }
    let left = ModelServer::new(&six_token_model("truncate").tokenizer_config("truncation_side", json!("left"))).await;
    assert_eq!(score_tokens_truncated(&left, &words_in(10..20)).await, (16.0 + 17.0 + 18.0 + 19.0 + 5.0, 6, true));
    // The tokenizer's own word counts where its configuration says nothing.
    let in_file = json!({ "direction": "Left", "max_length": 6, "strategy": "LongestFirst", "stride": 0 });
    let left = ModelServer::new(&six_token_model("truncate").tokenizer(|file| file["truncation"] = in_file)).await;
    assert_eq!(score_tokens_truncated(&left, &words_in(10..20)).await, (75.0, 6, true));
}

#[tokio::test]
async fn long_text_truncated_without_special_tokens_is_reported() {
    let served = ModelServer::new(&six_token_model_without_specials("truncate")).await;
    assert_eq!(score_tokens_truncated(&served, &words_in(10..16)).await, (75.0, 6, false));
    for end in [17, 18, 90] {
        assert_eq!(score_tokens_truncated(&served, &words_in(10..end)).await, (75.0, 6, true), "10..{end}");
    }
}

#[tokio::test]
async fn long_text_error_names_token_count() {
    let served = ModelServer::new(&six_token_model("error")).await;
    assert_eq!(score_tokens_truncated(&served, &words_in(10..14)).await, (51.0, 6, false));
    for end in [15, 17, 90] {
        let reply = served.predict_error(&words_in(10..end)).await;
        assert_eq!((reply.status, reply.problem_kind().as_str()), (422, "text-too-long"));
        let expected = format!("The text has {} tokens; this model takes at most 6", end - 10 + 2);
        assert!(reply.body.contains(&expected), "{}", reply.body);
    }
    let batch = served.batch_predict(&["10", &words_in(10..30), "11"]).await;
    assert_eq!((item_answer(&batch[0]).score, item_answer(&batch[2]).score), (Some(15.0), Some(16.0)));
    assert_eq!(item_error(&batch[1]).status, 422);
    let own = ModelServer::new(&six_token_model_without_specials("error")).await;
    assert_eq!(own.predict_error(&words_in(10..17)).await.problem_kind(), "text-too-long");
}

/// What windows of `room` tokens give, each starting a quarter of `room` before the end of the one before.
fn expected_window_mean(own: &[f64], room: usize, special: f64, special_tokens: u32) -> f64 {
    let mut sum = 0.0;
    let mut weight = 0.0;
    let mut start = 0;
    loop {
        let end = (start + room).min(own.len());
        let tokens = f64::from(u32::try_from(end - start).unwrap() + special_tokens);
        sum += (own[start..end].iter().sum::<f64>() + special) * tokens;
        weight += tokens;
        if end == own.len() {
            return sum / weight;
        }
        start += room - room / 4;
    }
}

#[tokio::test]
async fn long_text_windows_cover_whole_text() {
    let served = ModelServer::new(&six_token_model("window")).await;
    // By hand: 10..14 and 13..17 fill their windows; the mean of both, and every token counted once.
    assert_eq!(score_tokens_truncated(&served, &words_in(10..17)).await, (f64::midpoint(51.0, 63.0), 9, false));
    for end in [11, 14, 15, 18, 19, 40, 99] {
        let own: Vec<f64> = (10..end).map(f64::from).collect();
        let (score, tokens, truncated) = score_tokens_truncated(&served, &words_in(10..end)).await;
        assert_near(&[score], &[expected_window_mean(&own, 4, 5.0, 2)]);
        assert_eq!((tokens, truncated), (own.len() + 2, false), "10..{end}");
    }
    let own = ModelServer::new(&six_token_model_without_specials("window")).await;
    let (score, tokens, truncated) = score_tokens_truncated(&own, &words_in(10..50)).await;
    assert_near(&[score], &[expected_window_mean(&(10..50).map(f64::from).collect::<Vec<_>>(), 6, 0.0, 0)]);
    assert_eq!((tokens, truncated), (40, false));
}

#[tokio::test]
async fn long_text_window_limit_is_reported() {
    let served = ModelServer::new(&six_token_model("window")).await;
    // 128 windows of four tokens, three of them new: 385 words.
    let fits = "10 ".repeat(385);
    let over = "10 ".repeat(386);
    assert_eq!(score_tokens_truncated(&served, &fits).await, (45.0, 387, false));
    assert_eq!(score_tokens_truncated(&served, &over).await, (45.0, 387, true));
}

#[tokio::test]
async fn long_text_many_windows_run_in_several_batches() {
    // 400 tokens a window: five fit into one run of 2048 tokens.
    let sum = TransformerBuilder::new(&["input_ids", "attention_mask"]).logit(&[("input_ids", 1.0)]);
    let served = ModelServer::new(&sum.model().manifest_toml("on_overflow = 'window'\nmax_tokens = 400")).await;
    let own: Vec<f64> = (0..6_000).map(|i| f64::from(4 + i % 90)).collect();
    let text: Vec<String> = own.iter().map(f64::to_string).collect();
    let (score, tokens, truncated) = score_tokens_truncated(&served, &text.join(" ")).await;
    assert_near(&[score], &[expected_window_mean(&own, 398, 5.0, 2)]);
    assert_eq!((tokens, truncated), (6_002, false));
}

#[tokio::test]
async fn long_text_windows_of_unbatchable_model_run_alone() {
    // A sum over the batch: right for one row, wrong for two.
    let sum = TransformerBuilder::new(&["input_ids"])
        .logit(&[("input_ids", 1.0)])
        .output("logits", &[Dim::Open("n"), Dim::Fixed(1)]);
    let model = sum.append_nodes(|graph, logits| {
        let axis = graph.integers(&[1], &[0]);
        graph.node("ReduceSum", &[logits, &axis], &[("keepdims", Attribute::Int(1))])
    });
    let served = ModelServer::new(&model.model().manifest_toml("on_overflow = 'window'\nmax_tokens = 6")).await;
    assert!(!served.model_info().await.shares_runs);
    // Windows 10 11 12 13, 13 14 15 16 and 16 17, weighted by their tokens.
    let expected = (51.0 * 6.0 + 63.0 * 6.0 + 38.0 * 4.0) / 16.0;
    assert_near(&[served.score(&words_in(10..18)).await], &[expected]);
    let batch = served.batch_predict(&["10", &words_in(10..18), "11"]).await;
    assert_eq!((item_answer(&batch[0]).score, item_answer(&batch[2]).score), (Some(15.0), Some(16.0)));
    assert_near(&[score(item_answer(&batch[1]))], &[expected]);
}

#[tokio::test]
async fn long_text_server_option_yields_to_manifest() {
    let model = six_token_model("truncate").manifest_toml("max_tokens = 6");
    let served = ModelServer::with_options(&model, &["--on-overflow", "error"]).await;
    assert_eq!(served.predict_error(&words_in(10..20)).await.problem_kind(), "text-too-long");
    assert_eq!(served.model_info().await.limits.on_overflow, Some(OverflowPolicy::Error));
    let served = ModelServer::with_options(&six_token_model("truncate"), &["--on-overflow", "error"]).await;
    assert!(served.predict(&words_in(10..20)).await.truncated);
}
