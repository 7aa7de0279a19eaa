//! Runs that fail: a text's fault is its own.

use serde_json::json;

use super::fake::{Fake, PANICS};
use super::{Scene, echoed};

#[tokio::test(flavor = "multi_thread")]
async fn a_panic_costs_one_request_and_the_worker_goes_on() {
    let scene = Scene::new(&["--workers", "1"]).await;
    for count in 1..=3 {
        let reply = scene.send_text("panic").await.unwrap();
        assert_eq!((reply.status, reply.problem().as_str()), (500, "inference-failed"));
        assert!(!reply.body.contains("asked for it"), "{}", reply.body);
        assert_eq!(scene.metric("predictd_panics_total{place=\"worker\"}").await, count);
        // The only worker there is.
        assert_eq!(echoed(&scene.send_text("echo 7").await.unwrap().json()), "echo 7");
    }
    assert_eq!(scene.free(), 4_096);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_error_of_the_runtime_is_not_told_to_the_client() {
    let scene = Scene::new(&[]).await;
    for (text, kind) in
        [("fail", "inference-failed"), ("nan", "model-output-invalid"), ("wide", "model-output-invalid")]
    {
        let reply = scene.send_text(text).await.unwrap();
        assert_eq!((reply.status, reply.problem().as_str()), (500, kind));
        assert!(!reply.body.contains("asked for it"), "{}", reply.body);
    }
    assert_eq!(scene.metric("predictd_panics_total{place=\"worker\"}").await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_fault_in_a_batch_stays_in_its_place() {
    let scene = Scene::new(&["--workers", "2"]).await;
    let texts = ["echo 0", "panic", "echo 2", "fail", "echo 4", "nan", "echo 6", "wide", "echo 8"];
    let reply = scene.send_batch(&texts).await.unwrap();
    assert_eq!(reply.status, 200);
    let kinds = ["inference-failed", "inference-failed", "model-output-invalid", "model-output-invalid"];
    for (index, item) in reply.json()["results"].as_array().unwrap().iter().enumerate() {
        assert_eq!(item["text_index"], index);
        if index % 2 == 0 {
            assert_eq!((echoed(item), item.get("error")), (texts[index].to_owned(), None));
        } else {
            assert_eq!(item["error"]["type"], json!(format!("/docs#{}", kinds[index / 2])));
            assert!(item.get("prediction").is_none(), "{item}");
        }
    }
    assert_eq!(scene.metric("predictd_predictions_total{model=\"m\",version=\"1\"}").await, 5);
    scene.until_free(4_096).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_model_without_a_queue_fails_in_the_same_way() {
    let scene = Scene::of(
        Fake::cheap(),
        &[("m", "")],
        &["--workers", "1", "--max-inflight-texts", "8", "--max-batch-texts", "8"],
    )
    .await;
    assert!(scene.server.app.registry.snapshot().resolve(None, None).unwrap().skips_queue());
    for count in 1..=3 {
        let reply = scene.send_text("panic").await.unwrap();
        assert_eq!((reply.status, reply.problem().as_str()), (500, "inference-failed"));
        assert_eq!(scene.metric("predictd_panics_total{place=\"worker\"}").await, count);
        assert_eq!(echoed(&scene.send_text("echo 7").await.unwrap().json()), "echo 7");
    }
    let batch = scene.send_batch(&["echo 1", "panic", "echo 3"]).await.unwrap().json();
    assert_eq!([0, 2].map(|place| echoed(&batch["results"][place])), ["echo 1", "echo 3"]);
    assert_eq!(batch["results"][1]["error"]["type"], "/docs#inference-failed");
    let over = scene.send_batch(&["echo 1"; 9]).await.unwrap();
    assert_eq!(over.status, 422);
    assert_eq!(scene.free(), 8);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_panic_while_a_model_is_loaded_keeps_no_other_from_being_loaded() {
    let scene = Scene::of(Fake::default(), &[("broken", PANICS), ("m", "")], &["--default-model", "m"]).await;
    let states = scene.server.get("/health").await.json();
    assert_eq!((&states["models"][0]["state"], &states["models"][1]["state"]), (&json!("failed"), &json!("ready")));
    assert_eq!(echoed(&scene.send_text("echo 7").await.unwrap().json()), "echo 7");
    let asked = scene.send("/predict", &json!({ "text": "echo 1", "model": "broken" }), &[]).await.unwrap();
    assert_eq!((asked.status, asked.problem().as_str()), (503, "model-not-ready"));
}
