//! Models that label tokens: entities with their places.

use predictd::api::predictions::Prediction;
use serde_json::json;

use crate::support::answers::item_answer;
use crate::support::assertions::{assert_fields_absent, assert_near};
use crate::support::model_builder::sample_models::token_labelling_model;
use crate::support::model_server::{ModelServer, load_error};

/// Label, place and text of what was found.
fn found_entities(answer: &Prediction) -> Vec<(String, usize, usize, String)> {
    let entities = answer.entities.as_ref().unwrap_or_else(|| panic!("{answer:?}"));
    entities.iter().map(|entity| (entity.label.clone(), entity.start, entity.end, entity.text.clone())).collect()
}

fn expected_entities(entities: &[(&str, usize, usize, &str)]) -> Vec<(String, usize, usize, String)> {
    entities.iter().map(|&(label, start, end, text)| (label.to_owned(), start, end, text.to_owned())).collect()
}

#[tokio::test]
async fn entities_have_offsets_in_code_points() {
    let served = ModelServer::new(&token_labelling_model()).await;
    let options = json!({ "return_probabilities": true, "top_k": 2 });
    let reply = served.respond_with("𝒜 10 40 60  20 40", options).await;
    let answer: Prediction = reply.ok();
    assert_eq!(found_entities(&answer), expected_entities(&[("N", 5, 10, "40 60"), ("N", 15, 17, "40")]));
    // 40: 0.95 against 0 and -0.1; 60: 3.9 against 2.95 and 0.
    let score = |own: f64, others: [f64; 2]| own.exp() / (own.exp() + others.iter().map(|z| z.exp()).sum::<f64>());
    let mean = f64::midpoint(score(0.95, [0.0, -0.1]), score(3.9, [2.95, 0.0]));
    assert_near(&[f64::from(answer.entities.as_ref().unwrap()[0].score)], &[mean]);
    assert_fields_absent(&reply, &["prediction", "confidence", "probabilities", "top", "score"]);
    assert_eq!((answer.tokens, answer.truncated), (8, false));
    assert_eq!(found_entities(&served.predict("10 20").await), []);
    let facts = served.model_info().await;
    assert_eq!(facts.task, "token_classification");
    assert_eq!(facts.labels, ["O", "B-N", "I-N"]);
    assert_eq!((facts.takes_pairs, facts.shares_runs), (false, true));
    let pair = served.server.post_json("/predict", json!({ "text": "10", "text_pair": "20" })).await;
    assert_eq!(pair.status, 422);
}

#[tokio::test]
async fn entities_aggregation_follows_manifest() {
    let text = "40 60 45";
    for (aggregation, wanted) in [
        ("none", vec![("B-N", 0, 2, "40"), ("I-N", 3, 5, "60"), ("B-N", 6, 8, "45")]),
        ("simple", vec![("N", 0, 5, "40 60"), ("N", 6, 8, "45")]),
        ("first", vec![("N", 0, 5, "40 60"), ("N", 6, 8, "45")]),
        ("average", vec![("N", 0, 5, "40 60"), ("N", 6, 8, "45")]),
        ("max", vec![("N", 0, 5, "40 60"), ("N", 6, 8, "45")]),
    ] {
        let served =
            ModelServer::new(&token_labelling_model().manifest_toml(&format!("aggregation = '{aggregation}'"))).await;
        assert_eq!(found_entities(&served.predict(text).await), expected_entities(&wanted), "{aggregation}");
    }
}

#[tokio::test]
async fn entities_are_the_same_in_a_batch() {
    for side in ["left", "right"] {
        let served = ModelServer::new(&token_labelling_model().tokenizer_config("padding_side", json!(side))).await;
        let texts = ["40", "10 20 30 40 60 10 20 30", "10 40 60", "20", "60 10 60"];
        let batch = served.batch_predict(&texts).await;
        for (text, together) in texts.iter().zip(batch.iter().map(item_answer)) {
            assert_eq!(
                found_entities(together),
                found_entities(&served.predict(text).await),
                "{text} padded on the {side}"
            );
        }
        assert_eq!(found_entities(item_answer(&batch[1])), expected_entities(&[("N", 9, 14, "40 60")]));
    }
}

#[tokio::test]
async fn entities_of_long_text_truncated_or_windowed() {
    let words: Vec<String> = (0..60_u32).map(|n| (4 + n * 37 % 90).to_string()).collect();
    let text = words.join(" ");
    let whole = found_entities(&ModelServer::new(&token_labelling_model()).await.predict(&text).await);
    assert!(whole.len() > 5, "{whole:?}");
    for side in ["left", "right"] {
        let options = "max_tokens = 14\non_overflow = 'window'";
        let model = token_labelling_model().manifest_toml(options).tokenizer_config("truncation_side", json!(side));
        let answer = ModelServer::new(&model).await.predict(&text).await;
        assert_eq!((found_entities(&answer), answer.truncated), (whole.clone(), false), "{side}");
    }
    let cut = ModelServer::new(&token_labelling_model().manifest_toml("max_tokens = 14")).await.predict(&text).await;
    let end = words[..12].join(" ").len();
    assert!(cut.truncated);
    assert!(found_entities(&cut).iter().all(|(_, start, ..)| *start < end));
    assert_eq!(found_entities(&cut).first(), whole.first());
}

#[tokio::test]
async fn entities_golden_examples_and_task_are_checked() {
    let golden = |end: u64| {
        let entities = json!([{ "label": "N", "start": 3, "end": end }]);
        token_labelling_model()
            .file("golden.json", json!({ "examples": [{ "text": "10 40 60", "entities": entities }] }).to_string())
    };
    assert_eq!(found_entities(&ModelServer::new(&golden(8)).await.predict("40").await).len(), 1);
    assert!(load_error(&golden(5)).await.starts_with("golden.json: example 1: expected the entities"));
    let task = load_error(&token_labelling_model().manifest_toml("task = 'classification'")).await;
    assert!(
        task.starts_with(
            "model.toml: the task does not fit the graph: its output \"logits\" has scores for each token"
        ),
        "{task}"
    );
}
