//! `--feedback-retention`: feedback that is older is deleted, and nothing else.

use serde_json::json;

use super::{Scene, feedback_outcome, predict_for_receipt};
use crate::support::daemon_requests::stored_feedback;
use crate::support::raw_client::metric;
use crate::support::waiting::block_until;

const DELETED_METRIC: &str = "predictd_feedback_deleted_total";

#[test]
fn feedback_older_than_retention_is_deleted_with_history() {
    let scene = Scene::new();
    let mut daemon = scene.start(&["--feedback-retention", "2s"]);
    let mut total = 0;
    for number in 0..30 {
        let text = format!("{} CANARY", number + 10);
        let (id, label) = predict_for_receipt(&daemon, &text);
        let other = if label == "a" { "b" } else { "a" };
        assert_eq!(feedback_outcome(&daemon, &json!({ "prediction_id": id, "actual": other, "text": text })), "stored");
        assert_eq!(
            feedback_outcome(&daemon, &json!({ "prediction_id": id, "actual": label, "text": text })),
            "corrected"
        );
        total += 1;
    }
    block_until("all of it is deleted", || {
        stored_feedback(&daemon).is_empty() && metric(daemon.admin, DELETED_METRIC) == total
    });
    let line = daemon.wait_for_log("expired feedback deleted");
    assert!(line["deleted"].as_u64().is_some_and(|deleted| (1..=total).contains(&deleted)), "{line}");
    let holds_text = |name: &str| {
        let file = std::fs::read(scene.data.path().join(name)).unwrap();
        file.windows(6).any(|bytes| bytes == b"CANARY")
    };
    block_until("no deleted text is left while the server runs", || {
        ["predictd.db", "predictd.db-wal"].iter().all(|name| !holds_text(name))
    });
    // What comes afterwards is kept until it is as old.
    let (id, label) = predict_for_receipt(&daemon, "40");
    assert_eq!(feedback_outcome(&daemon, &json!({ "prediction_id": id, "actual": label })), "stored");
    daemon.signal("TERM");
    assert!(daemon.wait().0.success());
    assert!(!holds_text("predictd.db"), "a deleted text is not left in the file");
    // Without a retention nothing is deleted.
    let daemon = scene.start(&[]);
    let kept = stored_feedback(&daemon);
    assert!(kept.len() <= 1, "{kept:?}");
    let (id, label) = predict_for_receipt(&daemon, "41");
    assert_eq!(feedback_outcome(&daemon, &json!({ "prediction_id": id, "actual": label })), "stored");
    std::thread::sleep(std::time::Duration::from_secs(4));
    assert_eq!((stored_feedback(&daemon).len(), metric(daemon.admin, DELETED_METRIC)), (kept.len() + 1, 0));
}
