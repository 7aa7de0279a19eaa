//! How many tokens a model takes: what its operator says, then what its files say, and never more than its positions.

use serde_json::json;

use crate::support::model_builder::ModelBuilder;
use crate::support::model_server::{ModelServer, load_error};

async fn max_tokens(model: &ModelBuilder) -> usize {
    let served = ModelServer::new(model).await;
    let limit = served.model_info().await.limits.max_tokens.unwrap();
    // What is said is what is done: 600 words are more than any of these models takes.
    let answer = served.predict(&"10 ".repeat(600)).await;
    assert_eq!((answer.tokens, answer.truncated), (limit, true));
    limit
}

#[tokio::test]
async fn token_limit_manifest_beats_files_within_positions() {
    let plain = ModelBuilder::plain();
    assert_eq!(max_tokens(&plain).await, 512);
    let unlimited = plain.clone().tokenizer_config("model_max_length", json!(1e30));
    assert_eq!(max_tokens(&unlimited).await, 512);
    let positions =
        plain.clone().tokenizer_config("model_max_length", json!(64)).config("max_position_embeddings", json!(30));
    assert_eq!(max_tokens(&positions).await, 30);
    assert_eq!(max_tokens(&positions.clone().manifest_toml("max_tokens = 7")).await, 7);
    assert_eq!(max_tokens(&positions.manifest_toml("max_tokens = 40")).await, 30);
    let stated = plain.clone().tokenizer_config("model_max_length", json!(20));
    assert_eq!(max_tokens(&stated.clone().manifest_toml("max_tokens = 32")).await, 32);
    assert_eq!(max_tokens(&stated).await, 20);
    let gpt = plain.config("n_positions", json!(24)).config("model_type", json!("gpt_bigcode"));
    assert_eq!(max_tokens(&gpt).await, 24);
}

/// As `AutoTokenizer` has it: it truncates where it is asked to, at `model_max_length`.
#[tokio::test]
async fn token_limit_ignores_tokenizer_truncation() {
    let truncation = json!({ "direction": "Right", "max_length": 8, "strategy": "LongestFirst", "stride": 0 });
    let in_file = ModelBuilder::plain().tokenizer(|file| file["truncation"] = truncation);
    assert_eq!(max_tokens(&in_file).await, 512);
    let stated = in_file.tokenizer_config("model_max_length", json!(64)).config("max_position_embeddings", json!(64));
    assert_eq!(max_tokens(&stated).await, 64);
    assert_eq!(max_tokens(&stated.manifest_toml("max_tokens = 32")).await, 32);
}

#[tokio::test]
async fn token_limit_roberta_reserves_position_rows() {
    let roberta = ModelBuilder::plain().config("max_position_embeddings", json!(34)).config("pad_token_id", json!(1));
    assert_eq!(max_tokens(&roberta.clone().config("model_type", json!("roberta"))).await, 32);
    assert_eq!(max_tokens(&roberta.config("model_type", json!("bert"))).await, 34);
}

#[tokio::test]
async fn token_limit_without_room_for_text_is_refused() {
    let reason = load_error(&ModelBuilder::plain().manifest_toml("max_tokens = 2")).await;
    assert_eq!(reason, "tokenizer.json: 2 tokens leave no room for text beside 2 special tokens");
    let served = ModelServer::new(&ModelBuilder::plain().manifest_toml("max_tokens = 3")).await;
    assert_eq!(served.predict("10 20 30").await.tokens, 3);
}
