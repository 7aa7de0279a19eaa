//! Texts of more tokens than a model takes: refused, cut off, or scored in windows.

use serde_json::{Value, json};

use crate::fixture::onnx::{Attribute, Dim};
use crate::fixture::served::{Served, assert_near};
use crate::fixture::{Model, Transformer};

/// Six tokens at most, four of them the text's own. The score is the sum of the ids.
fn six_tokens(on_overflow: &str) -> Model {
    let sum = Transformer::new(&["input_ids", "attention_mask"]).logit(&[("input_ids", 1.0)]);
    sum.model().options(&format!("on_overflow = '{on_overflow}'\nmax_tokens = 6"))
}

/// The same without special tokens, as GPT-2 has it: all six are the text's own.
fn six_own_tokens(on_overflow: &str) -> Model {
    six_tokens(on_overflow).tokenizer(|file| file["post_processor"] = Value::Null)
}

fn words(range: std::ops::Range<u32>) -> String {
    range.map(|word| word.to_string()).collect::<Vec<_>>().join(" ")
}

/// `(score, tokens, truncated)`
async fn answer(served: &Served, text: &str) -> (f64, u64, bool) {
    let answer = served.predict(text).await;
    (answer["score"].as_f64().unwrap(), answer["tokens"].as_u64().unwrap(), answer["truncated"].as_bool().unwrap())
}

#[tokio::test]
async fn long_texts_are_cut_off_and_the_answer_says_so() {
    let served = Served::new(&six_tokens("truncate")).await;
    assert_eq!(answer(&served, &words(10..14)).await, (51.0, 6, false));
    for end in [15, 16, 17, 90] {
        assert_eq!(answer(&served, &words(10..end)).await, (51.0, 6, true), "10..{end}");
    }
    let left = Served::new(&six_tokens("truncate").tokenizer_config("truncation_side", json!("left"))).await;
    assert_eq!(answer(&left, &words(10..20)).await, (16.0 + 17.0 + 18.0 + 19.0 + 5.0, 6, true));
    // The tokenizer's own word counts where its configuration says nothing.
    let in_file = json!({ "direction": "Left", "max_length": 6, "strategy": "LongestFirst", "stride": 0 });
    let left = Served::new(&six_tokens("truncate").tokenizer(|file| file["truncation"] = in_file)).await;
    assert_eq!(answer(&left, &words(10..20)).await, (75.0, 6, true));
}

#[tokio::test]
async fn cut_off_texts_are_reported_without_special_tokens_too() {
    let served = Served::new(&six_own_tokens("truncate")).await;
    assert_eq!(answer(&served, &words(10..16)).await, (75.0, 6, false));
    for end in [17, 18, 90] {
        assert_eq!(answer(&served, &words(10..end)).await, (75.0, 6, true), "10..{end}");
    }
}

#[tokio::test]
async fn long_texts_are_refused_with_their_length() {
    let served = Served::new(&six_tokens("error")).await;
    assert_eq!(answer(&served, &words(10..14)).await, (51.0, 6, false));
    for end in [15, 17, 90] {
        let reply = served.refused(&words(10..end)).await;
        assert_eq!((reply.status, reply.problem().as_str()), (422, "text-too-long"));
        let expected = format!("The text has {} tokens; this model takes at most 6", end - 10 + 2);
        assert!(reply.body.contains(&expected), "{}", reply.body);
    }
    let batch = served.batch(&["10", &words(10..30), "11"]).await;
    assert_eq!((&batch[0]["score"], &batch[2]["score"]), (&json!(15.0), &json!(16.0)));
    assert_eq!(batch[1]["error"]["status"], 422);
    let own = Served::new(&six_own_tokens("error")).await;
    assert_eq!(own.refused(&words(10..17)).await.problem(), "text-too-long");
}

/// What windows of `room` tokens give, each starting a quarter of `room` before the end of the one before.
fn windows(own: &[f64], room: usize, special: f64, special_tokens: u32) -> f64 {
    let (mut sum, mut weight, mut start) = (0.0, 0.0, 0);
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
async fn long_texts_are_scored_in_windows_to_their_end() {
    let served = Served::new(&six_tokens("window")).await;
    // By hand: 10..14 and 13..17 fill their windows; the mean of both, and every token counted once.
    assert_eq!(answer(&served, &words(10..17)).await, (f64::midpoint(51.0, 63.0), 9, false));
    for end in [11, 14, 15, 18, 19, 40, 99] {
        let own: Vec<f64> = (10..end).map(f64::from).collect();
        let (score, tokens, truncated) = answer(&served, &words(10..end)).await;
        assert_near(&[score], &[windows(&own, 4, 5.0, 2)]);
        assert_eq!((tokens, truncated), (own.len() as u64 + 2, false), "10..{end}");
    }
    let own = Served::new(&six_own_tokens("window")).await;
    let (score, tokens, truncated) = answer(&own, &words(10..50)).await;
    assert_near(&[score], &[windows(&(10..50).map(f64::from).collect::<Vec<_>>(), 6, 0.0, 0)]);
    assert_eq!((tokens, truncated), (40, false));
}

#[tokio::test]
async fn windows_have_a_bound_and_the_answer_says_when_it_is_met() {
    let served = Served::new(&six_tokens("window")).await;
    // 128 windows of four tokens, three of them new: 385 words.
    let (fits, over) = ("10 ".repeat(385), "10 ".repeat(386));
    assert_eq!(answer(&served, &fits).await, (45.0, 387, false));
    assert_eq!(answer(&served, &over).await, (45.0, 387, true));
}

#[tokio::test]
async fn a_text_of_many_windows_is_run_in_parts() {
    // 400 tokens a window: five fit into one run of 2048 tokens.
    let sum = Transformer::new(&["input_ids", "attention_mask"]).logit(&[("input_ids", 1.0)]);
    let served = Served::new(&sum.model().options("on_overflow = 'window'\nmax_tokens = 400")).await;
    let own: Vec<f64> = (0..6_000).map(|i| f64::from(4 + i % 90)).collect();
    let text: Vec<String> = own.iter().map(f64::to_string).collect();
    let (score, tokens, truncated) = answer(&served, &text.join(" ")).await;
    assert_near(&[score], &[windows(&own, 398, 5.0, 2)]);
    assert_eq!((tokens, truncated), (6_002, false));
}

#[tokio::test]
async fn windows_of_a_model_that_loses_rows_run_one_by_one() {
    // A sum over the batch: right for one row, wrong for two.
    let sum = Transformer::new(&["input_ids"])
        .logit(&[("input_ids", 1.0)])
        .output("logits", &[Dim::Open("n"), Dim::Fixed(1)]);
    let model = sum.then(|graph, logits| {
        let axis = graph.integers(&[1], &[0]);
        graph.node("ReduceSum", &[logits, &axis], &[("keepdims", Attribute::Int(1))])
    });
    let served = Served::new(&model.model().options("on_overflow = 'window'\nmax_tokens = 6")).await;
    assert_eq!(served.facts().await["shares_runs"], false);
    // Windows 10 11 12 13, 13 14 15 16 and 16 17, weighted by their tokens.
    let expected = (51.0 * 6.0 + 63.0 * 6.0 + 38.0 * 4.0) / 16.0;
    assert_near(&[served.score(&words(10..18)).await], &[expected]);
    let batch = served.batch(&["10", &words(10..18), "11"]).await;
    assert_eq!((&batch[0]["score"], &batch[2]["score"]), (&json!(15.0), &json!(16.0)));
    assert_near(&[batch[1]["score"].as_f64().unwrap()], &[expected]);
}

#[tokio::test]
async fn the_option_counts_where_the_model_says_nothing() {
    let model = six_tokens("truncate").options("max_tokens = 6");
    let served = Served::with(&model, &["--on-overflow", "error"]).await;
    assert_eq!(served.refused(&words(10..20)).await.problem(), "text-too-long");
    assert_eq!(served.facts().await["limits"]["on_overflow"], "error");
    let served = Served::with(&six_tokens("truncate"), &["--on-overflow", "error"]).await;
    assert_eq!(served.predict(&words(10..20)).await["truncated"], true);
}
