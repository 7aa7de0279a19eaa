//! The memory that a request reserves for its response, before anybody knows the response.

use predictd::http::arms::{Route, Wanted};
use predictd::http::response_size::{ResponseFields, ResponseSize};
use serde_json::json;

use crate::fixture::served::Served;
use crate::fixture::{Model, Transformer};
use crate::raw::until;
use crate::server::Reply;
use crate::text_kinds::tokens::labelling;

/// A text in which every token is an entity of its own.
const WORD: &str = "40 ";

async fn batch(served: &Served, texts: &[String]) -> Reply {
    served.server.ask("/batch_predict", json!({ "texts": texts, "return_probabilities": true, "top_k": 3 })).await
}

/// What is reserved for these texts.
fn size(served: &Served, texts: &[String]) -> ResponseSize {
    let route = Route::of(&served.server.app.registry.snapshot(), Wanted::default()).unwrap();
    let shown = ResponseFields { labels: None, probabilities: true, top_k: Some(3) };
    ResponseSize::of(&route, &texts.iter().map(String::len), shown)
}

#[tokio::test]
async fn response_size_of_every_head_is_at_least_the_response() {
    let sums = || Transformer::new(&["input_ids", "attention_mask"]).logit(&[("input_ids", 1.0)]);
    let apart = |more: &str| labelling().options(&format!("aggregation = 'none'\n{more}"));
    let multi = sums().logit(&[("input_ids", 0.1)]).model().labels(&["a", "b"]);
    let models: [(&str, Model, &[&str]); 7] = [
        ("single label", Model::plain(), &[]),
        ("multi label", multi.config("problem_type", json!("multi_label_classification")), &[]),
        ("regression", sums().model().labels(&["x"]).config("problem_type", json!("regression")), &[]),
        ("scoring", sums().model().config("architectures", json!(["X"])), &[]),
        ("entities", apart(""), &["--on-overflow", "truncate"]),
        ("entities in windows", apart("max_tokens = 16"), &["--on-overflow", "window"]),
        ("labels with escapes", apart("").labels(&["O", "B-\u{1}\u{1}\u{1}\u{1}\u{1}\u{1}\u{1}\u{1}", "I-N"]), &[]),
    ];
    for (head, model, options) in models {
        let served = Served::with(&model, options).await;
        for texts in [vec![WORD.to_owned()], vec![WORD.repeat(150)], vec![WORD.repeat(100); 64]] {
            let size = size(&served, &texts);
            let reply = batch(&served, &texts).await;
            assert_eq!(reply.status, 200, "{head}: {}", reply.body);
            assert!(!reply.body.contains("\"error\""), "{head}: {:.500}", reply.body);
            assert!(size.json >= reply.body.len(), "{head}: {size:?} for {} bytes", reply.body.len());
            if let [_] = &texts[..] {
                assert!(size.memory >= 2 * reply.body.len(), "{head}: {size:?} for {} bytes", reply.body.len());
            }
        }
    }
}

#[tokio::test]
async fn batch_that_could_outgrow_the_budget_is_answered_if_its_response_fits() {
    let budget: usize = 1 << 20;
    let model = labelling().options("aggregation = 'none'");
    let served = Served::with(&model, &["--response-memory", &budget.to_string(), "--cache-bytes", "0"]).await;
    // One entity in each text, where every byte could be one.
    let few = vec![format!("{}40", "10 ".repeat(40)); 256];
    assert!(size(&served, &few).memory > budget && size(&served, &few).without_entities < budget);
    let reply = batch(&served, &few).await;
    assert_eq!(reply.status, 200, "{:.300}", reply.body);
    let results = reply.json()["results"].as_array().unwrap().clone();
    assert_eq!(results.len(), 256);
    for (index, result) in results.iter().enumerate() {
        assert_eq!(result["text_index"], json!(index));
        assert_eq!(result["entities"].as_array().map(Vec::len), Some(1), "{result}");
    }
    let reserved = || served.server.app.metrics.http.reserved_response_memory();
    until("the memory is free", || reserved() == 0);
    // Every token is one: what was found leaves no room for the rest.
    let many = vec![WORD.repeat(100); 256];
    assert!(size(&served, &many).without_entities < budget);
    let refused = batch(&served, &many).await;
    assert_eq!((refused.status, refused.problem().as_str()), (422, "invalid-request"), "{:.300}", refused.body);
    let detail = refused.json()["detail"].as_str().unwrap().to_owned();
    assert!(detail.contains("fewer texts") && detail.contains("--response-memory"), "{detail}");
    until("the memory is free", || reserved() == 0);
    assert_eq!(batch(&served, &few[..16]).await.status, 200);
}
