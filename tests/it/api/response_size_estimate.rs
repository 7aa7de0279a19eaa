//! The memory that a request reserves for its response, before anybody knows the response.

use predictd::api::predictions::BatchAnswer;
use predictd::http::prediction::ResponseOptions;
use predictd::http::prediction_size::{ResponseFields, prediction_json_size};
use predictd::http::response_size::ResponseSize;
use predictd::inference::arm_route::{ArmRoute, ModelSelector};
use serde_json::json;

use crate::support::answers::item_answer;
use crate::support::model_builder::sample_models::token_labelling_model;
use crate::support::model_builder::{ModelBuilder, TransformerBuilder};
use crate::support::model_server::ModelServer;
use crate::support::test_server::Response;
use crate::support::waiting::block_until;

/// A text in which every token is an entity of its own.
const ENTITY_TEXT: &str = "40 ";

async fn batch_predict(served: &ModelServer, texts: &[String]) -> Response {
    served.server.post_json("/batch_predict", json!({ "texts": texts, "return_probabilities": true, "top_k": 3 })).await
}

/// What is reserved for these texts.
fn reserved_size(served: &ModelServer, texts: &[String]) -> ResponseSize {
    let route = ArmRoute::resolve(&served.server.app.models.registry.snapshot(), ModelSelector::default()).unwrap();
    let shown = ResponseFields {
        candidate_labels: None,
        options: ResponseOptions { probabilities: true, top_k: Some(3), raw_scores: false },
    };
    let lengths = texts.iter().map(String::len);
    ResponseSize::max_for_models(route.candidate_models(), &lengths, 1, |model| prediction_json_size(model, shown))
}

#[tokio::test]
async fn response_size_estimate_covers_every_head() {
    let sums = || TransformerBuilder::new(&["input_ids", "attention_mask"]).logit(&[("input_ids", 1.0)]);
    let apart = |more: &str| token_labelling_model().manifest_toml(&format!("aggregation = 'none'\n{more}"));
    let multi = sums().logit(&[("input_ids", 0.1)]).model().labels(&["a", "b"]);
    let models: [(&str, ModelBuilder, &[&str]); 7] = [
        ("single label", ModelBuilder::plain(), &[]),
        ("multi label", multi.config("problem_type", json!("multi_label_classification")), &[]),
        ("regression", sums().model().labels(&["x"]).config("problem_type", json!("regression")), &[]),
        ("scoring", sums().model().config("architectures", json!(["X"])), &[]),
        ("entities", apart(""), &["--on-overflow", "truncate"]),
        ("entities in windows", apart("max_tokens = 16"), &["--on-overflow", "window"]),
        ("labels with escapes", apart("").labels(&["O", "B-\u{1}\u{1}\u{1}\u{1}\u{1}\u{1}\u{1}\u{1}", "I-N"]), &[]),
    ];
    for (head, model, options) in models {
        let served = ModelServer::with_options(&model, options).await;
        for texts in [vec![ENTITY_TEXT.to_owned()], vec![ENTITY_TEXT.repeat(150)], vec![ENTITY_TEXT.repeat(100); 64]] {
            let size = reserved_size(&served, &texts);
            let reply = batch_predict(&served, &texts).await;
            assert_eq!(reply.status, 200, "{head}: {}", reply.body);
            assert!(!reply.body.contains("\"error\""), "{head}: {:.500}", reply.body);
            assert!(size.json_bytes >= reply.body.len(), "{head}: {size:?} for {} bytes", reply.body.len());
            if let [_] = &texts[..] {
                assert!(size.memory_bytes >= 2 * reply.body.len(), "{head}: {size:?} for {} bytes", reply.body.len());
            }
        }
    }
}

#[tokio::test]
async fn response_size_batch_is_answered_if_response_fits() {
    let budget: usize = 1 << 20;
    let model = token_labelling_model().manifest_toml("aggregation = 'none'");
    let served =
        ModelServer::with_options(&model, &["--response-memory", &budget.to_string(), "--cache-bytes", "0"]).await;
    // One entity in each text, where every byte could be one.
    let few = vec![format!("{}40", "10 ".repeat(40)); 256];
    assert!(
        reserved_size(&served, &few).memory_bytes > budget
            && reserved_size(&served, &few).memory_bytes_without_entities < budget
    );
    let reply = batch_predict(&served, &few).await;
    assert_eq!(reply.status, 200, "{:.300}", reply.body);
    let results = reply.json::<BatchAnswer>().results;
    assert_eq!(results.len(), 256);
    for (index, result) in results.iter().enumerate() {
        assert_eq!(result.text_index, index);
        assert_eq!(item_answer(result).entities.as_ref().map(Vec::len), Some(1), "{result:?}");
    }
    let reserved = || served.server.app.telemetry.metrics.http.reserved_response_memory();
    block_until("the memory is free", || reserved() == 0);
    // Every token is one: what was found leaves no room for the rest.
    let many = vec![ENTITY_TEXT.repeat(100); 256];
    assert!(reserved_size(&served, &many).memory_bytes_without_entities < budget);
    let refused = batch_predict(&served, &many).await;
    assert_eq!((refused.status, refused.problem_kind().as_str()), (422, "invalid-request"), "{:.300}", refused.body);
    let detail = refused.problem().detail;
    assert!(detail.contains("fewer texts") && detail.contains("--response-memory"), "{detail}");
    block_until("the memory is free", || reserved() == 0);
    assert_eq!(batch_predict(&served, &few[..16]).await.status, 200);
}
