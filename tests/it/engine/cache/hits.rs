//! What the cache answers, and for whom.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use predictd::api::predictions::{BatchAnswer, Prediction};
use predictd::engine::cache::Cache;
use predictd::engine::execution_group::ExecutionGroup;
use predictd::engine::load_context::LoadContext;
use predictd::engine::loader::{self, CHECK_RUN_TIMEOUT};
use predictd::engine::model_source::ModelSource;
use predictd::engine::tokenization;
use predictd::metrics::Metrics;
use predictd::text::input::{Input, SecondText};
use predictd::text::text_policies::{MarkupPolicy, OverflowPolicy, TextPolicies};
use serde_json::{Value, json};

use super::{CACHE_OPTIONS, lookup_count, start_cached, start_cached_with_models};
use crate::support::answers::{item_answer, item_error};
use crate::support::fake_backend::{BATCH_DEPENDENT_GRAPH, FakeBackend};
use crate::support::fake_backend_server::{FakeBackendServer, echoed_text};
use crate::support::test_server::{QUESTION, TestServer, one_worker_rules, shipped_models};

/// An answer without what is new in each.
fn without_prediction_id(mut answer: Value) -> Value {
    answer.as_object_mut().unwrap().remove("prediction_id").unwrap();
    answer
}

#[tokio::test(flavor = "multi_thread")]
async fn cache_hit_equals_model_answer() {
    let cached = TestServer::start(shipped_models(), &CACHE_OPTIONS).await;
    let bare = TestServer::start(shipped_models(), &[]).await;
    let texts = [QUESTION, "Is there a fee for topping up?", "Où est ma carte ? 🙂", &"long ".repeat(600)];
    for model in ["banking77-minilm", "banking77-tfidf"] {
        for text in texts {
            // The first fills the cache; the others want to see the answer in other ways.
            for options in
                [json!({}), json!({ "top_k": 3 }), json!({ "return_probabilities": true, "raw_scores": true })]
            {
                let mut body = json!({ "text": text, "model": model });
                body.as_object_mut().unwrap().extend(options.as_object().unwrap().clone());
                let [found, expected] = [&cached, &bare].map(|server| server.post_json("/predict", body.clone()));
                let found = found.await.json::<Value>();
                let expected = expected.await.json::<Value>();
                assert_ne!(found["prediction_id"], expected["prediction_id"]);
                assert_eq!(without_prediction_id(found), without_prediction_id(expected), "{body}");
            }
        }
        // Two of these are known.
        let body = json!({ "texts": [texts[0], "How do I close my account?", texts[1]], "model": model, "return_probabilities": true });
        let [found, expected] = [&cached, &bare].map(|server| server.post_json("/batch_predict", body.clone()));
        let found = found.await.json::<Value>();
        let expected = expected.await.json::<Value>();
        for place in 0..3 {
            assert_eq!(
                without_prediction_id(found["results"][place].clone()),
                without_prediction_id(expected["results"][place].clone())
            );
        }
    }
    let metrics = cached.get("/metrics").await.body;
    for line in ["{result=\"hit\"} 20", "{result=\"miss\"} 10", "{result=\"joined\"} 0"] {
        assert!(metrics.contains(&format!("predictd_cache_lookups_total{line}\n")), "{line}: {metrics}");
    }
    assert!(metrics.contains("predictd_cache_entries 10\n"), "{metrics}");
    // They are answers like all others.
    assert!(metrics.contains("predictd_predictions_total{model=\"banking77-tfidf\",version=\"1\"} 15\n"), "{metrics}");
}

#[tokio::test(flavor = "multi_thread")]
async fn cache_hit_gets_new_prediction_id() {
    let scene = start_cached(&[]).await;
    let mut ids = Vec::new();
    for _ in 0..3 {
        ids.push(scene.send_text("echo 7").await.unwrap().json::<Prediction>().prediction_id);
    }
    for item in scene.send_batch(&["echo 7", "echo 7"]).await.unwrap().json::<BatchAnswer>().results {
        ids.push(item_answer(&item).prediction_id.clone());
    }
    ids.sort_unstable();
    ids.dedup();
    assert_eq!((ids.len(), scene.fake.executed_texts().len()), (5, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn cache_key_includes_text_model_and_version() {
    let scene = start_cached_with_models(FakeBackend::default(), &[("m", ""), ("n", "")], &[]).await;
    let texts = ["echo 7", "echo 70", "seven", "seven ", "Seven", " seven"];
    for text in texts {
        assert_eq!(scene.send_text(text).await.unwrap().status, 200);
        assert_eq!(scene.send_text(text).await.unwrap().status, 200);
    }
    assert_eq!(scene.fake.executed_texts(), texts);
    let other = scene.send("/predict", &json!({ "text": "echo 7", "model": "n" }), &[]).await.unwrap();
    assert_eq!((other.json::<Prediction>().model.name.as_str(), scene.fake.executed_texts().len()), ("n", 7));

    let fake = Arc::new(FakeBackend::default());
    let models = tempfile::tempdir().unwrap();
    for version in ["1", "2"] {
        let directory = models.path().join("m").join(version);
        std::fs::create_dir_all(&directory).unwrap();
        std::fs::write(directory.join("model.onnx"), "graph").unwrap();
    }
    let server = TestServer::start_on(fake.clone(), models.path(), &CACHE_OPTIONS).await;
    fake.reset_after_warm_up();
    for version in ["1", "2", "1", "2"] {
        let answer = server.predict_with(json!({ "text": "echo 7", "version": version })).await;
        assert_eq!(answer.model.version, version);
    }
    assert_eq!(fake.executed_texts().len(), 2);
}

#[test]
fn cache_reloaded_version_starts_empty() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("model.onnx"), "graph").unwrap();
    let source = ModelSource {
        name: "m".to_owned(),
        version: "1".to_owned(),
        directory: directory.path().to_owned(),
        registered_hashes: BTreeMap::new(),
    };
    let host = LoadContext {
        backend: Arc::new(FakeBackend::without_queue()),
        cpu_group: ExecutionGroup::new_cpu(one_worker_rules(), 0),
        gpu_group: ExecutionGroup::new_cpu(one_worker_rules(), 0),
        tokenizer_pool: tokenization::new_thread_pool(1).unwrap(),
        check_run_timeout: CHECK_RUN_TIMEOUT,
        text_defaults: TextPolicies { on_overflow: OverflowPolicy::Truncate, markup: MarkupPolicy::Reject },
        drift_settings: predictd::drift::WindowSettings::default(),
        metrics: Arc::new(Metrics::new().unwrap()),
    };
    let [first, second] = [(), ()].map(|()| loader::load(&source, &host).unwrap().runner.load_id);
    let [cache, other] = [(), ()].map(|()| Cache::new(1 << 20).unwrap().unwrap());
    let text = Input::from("text".to_owned());
    let [pair, cut_first_only] = [false, true].map(|truncate_only_first| Input {
        second: Some(SecondText { text: "text".to_owned(), truncate_only_first }),
        ..text.clone()
    });
    assert_ne!(cache.key(first, &text), cache.key(first, &pair));
    assert_ne!(cache.key(first, &cut_first_only), cache.key(first, &pair));
    assert_eq!(cache.key(first, &text), cache.key(first, &text));
    assert_ne!(cache.key(first, &text), cache.key(second, &text));
    // Keys cannot be guessed: those of each process differ.
    assert_ne!(cache.key(first, &text), other.key(first, &text));
}

#[tokio::test(flavor = "multi_thread")]
async fn cache_refused_text_stays_refused() {
    let scene = start_cached(&[]).await;
    scene.send_text("echo 7").await.unwrap();
    for _ in 0..3 {
        let reply = scene.send_text("<script>alert(1)</script>").await.unwrap();
        assert_eq!((reply.status, reply.problem().errors[0].pointer.as_str()), (422, "/text"));
        // Its place in the request, whatever stands before it is known.
        let texts = ["echo 7", "echo 8", "echo 7", "<script>", "echo 9"];
        let reply = scene.send_batch(&texts).await.unwrap();
        let batch = reply.json::<BatchAnswer>().results;
        let error = item_error(&batch[3]);
        assert_eq!((error.status, error.errors[0].pointer.as_str()), (422, "/texts/3"));
    }
    let mut run = scene.fake.executed_texts();
    run.sort_unstable();
    assert_eq!(run, ["echo 7", "echo 8", "echo 9"], "the others are answered");
    scene.wait_for_free_permits(4_096).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn cache_error_is_not_stored() {
    let scene = start_cached(&["--workers", "1"]).await;
    for text in ["fail", "panic", "nan", "wide"] {
        for _ in 0..2 {
            assert_eq!(scene.send_text(text).await.unwrap().status, 500);
        }
    }
    assert_eq!(scene.fake.executed_texts(), ["fail", "fail", "panic", "panic", "nan", "nan", "wide", "wide"]);
    assert_eq!(scene.metric("predictd_cache_entries").await, 0);
    let batch = scene.send_batch(&["echo 1", "fail", "echo 1", "fail"]).await.unwrap().json::<BatchAnswer>().results;
    assert_eq!([0, 2].map(|place| echoed_text(item_answer(&batch[place]))), ["echo 1", "echo 1"]);
    for place in [1, 3] {
        assert_eq!(item_error(&batch[place]).kind, "/docs#inference-failed");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn cache_hit_is_answered_while_overloaded() {
    let scene = start_cached(&["--workers", "1", "--max-inflight-items", "1", "--max-client-batch-size", "1"]).await;
    assert_eq!(echoed_text(&scene.send_text("echo 7").await.unwrap().json()), "echo 7");
    scene.fake.hold_runs();
    let held = scene.send_text("held");
    scene.wait_for_running_texts(1).await;
    assert_eq!(scene.send_text("echo 8").await.unwrap().status, 503);
    // A text that waits for another request's run takes a place, too.
    assert_eq!(scene.send_text("held").await.unwrap().status, 503);
    assert_eq!(echoed_text(&scene.send_text("echo 7").await.unwrap().json()), "echo 7");
    scene.fake.release();
    assert_eq!(held.await.unwrap().status, 200);
    scene.wait_for_free_permits(1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn cache_works_for_inline_model() {
    let scene = start_cached_with_models(FakeBackend::without_queue(), &[("m", "")], &[]).await;
    assert!(scene.server.app.models.registry.snapshot().resolve(None, None).unwrap().can_run_inline());
    for _ in 0..3 {
        assert_eq!(echoed_text(&scene.send_text("echo 7").await.unwrap().json()), "echo 7");
    }
    let batch = scene.send_batch(&["echo 7", "echo 8", "echo 8"]).await.unwrap().json::<BatchAnswer>().results;
    assert_eq!([0, 1, 2].map(|place| echoed_text(item_answer(&batch[place]))), ["echo 7", "echo 8", "echo 8"]);
    assert_eq!(scene.fake.executed_texts(), ["echo 7", "echo 8"]);
    let counts =
        [lookup_count(&scene, "hit").await, lookup_count(&scene, "miss").await, lookup_count(&scene, "joined").await];
    assert_eq!((counts, scene.free_permits()), ([3, 2, 1], 4_096));
}

/// What `/models/NAME` says about the cache.
async fn is_cached(scene: &FakeBackendServer, name: &str) -> bool {
    scene.server.model(name).await.versions[0].facts.as_ref().unwrap().cached
}

#[tokio::test(flavor = "multi_thread")]
async fn cache_disabled_runs_every_text() {
    let scenes = [
        (FakeBackendServer::new(&["--cache-bytes", "0"]).await, "m"),
        (start_cached_with_models(FakeBackend::default(), &[("m", BATCH_DEPENDENT_GRAPH)], &[]).await, "m"),
    ];
    for (scene, name) in scenes {
        for _ in 0..3 {
            scene.send_text("echo 7").await.unwrap();
        }
        scene.send_batch(&["echo 7", "echo 7"]).await.unwrap();
        assert_eq!(scene.fake.executed_texts().len(), 5);
        assert_eq!((lookup_count(&scene, "miss").await, scene.metric("predictd_cache_bytes").await), (0, 0));
        assert!(!is_cached(&scene, name).await);
    }
    assert!(is_cached(&start_cached(&[]).await, "m").await);
}

#[tokio::test(flavor = "multi_thread")]
async fn cache_size_stays_within_byte_limit() {
    const BOUND: u64 = 1 << 20;
    let scene = FakeBackendServer::new(&["--cache-bytes", &BOUND.to_string()]).await;
    let mut largest = 0;
    for first in (0..8_000).step_by(1_000) {
        let texts: Vec<String> = (first..first + 1_000).map(|number| format!("echo {number}")).collect();
        let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
        assert_eq!(scene.send_batch(&texts).await.unwrap().status, 200);
        let bytes = scene.metric("predictd_cache_bytes").await;
        assert!(bytes <= BOUND, "{bytes}");
        largest = largest.max(bytes);
    }
    assert!(largest > BOUND * 9 / 10, "{largest}");
    let entries = scene.metric("predictd_cache_entries").await;
    assert!((1_000..8_000).contains(&entries), "{entries}");
    // What was displaced is run again.
    let ran = scene.fake.executed_texts().len();
    for number in 0..8 {
        let text = format!("echo {}", number * 1_000);
        assert_eq!(echoed_text(&scene.send_text(&text).await.unwrap().json()), text);
    }
    assert!(scene.fake.executed_texts().len() > ran);
}

#[test]
fn cache_bytes_below_minimum_is_refused() {
    use clap::Parser;
    use predictd::cli::Cli;
    use predictd::config::ServerSettings;
    let models = Path::new("models").to_str().unwrap();
    for (bytes, works) in [("0", true), ("1048576", true), ("1048575", false), ("1", false)] {
        let args = Cli::parse_from(["predictd", "--models", models, "--cache-bytes", bytes]).serve;
        let wrong = ServerSettings::resolve(args).err().unwrap_or_default();
        assert_eq!(wrong.is_empty(), works, "{wrong:?}");
        assert!(wrong.iter().all(|sentence| sentence.starts_with("--cache-bytes ")), "{wrong:?}");
    }
}
