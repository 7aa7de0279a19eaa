//! An answer is that of its text alone, whatever runs beside it; and what the graph does wrong with several texts, or
//! with one, stays with that text.

use serde_json::{Value, json};

use crate::fixture::Transformer;
use crate::fixture::onnx::{Attribute, Dim, Graph};
use crate::fixture::served::{Served, assert_near, numbers};
use crate::server::{TestServer, shipped_models};

fn sums(nodes: fn(&mut Graph, &str) -> String) -> Transformer {
    let logits = Transformer::new(&["input_ids", "attention_mask"]).logit(&[("input_ids", 1.0)]);
    logits.output("logits", &[Dim::Open("rows"), Dim::Fixed(1)]).then(nodes)
}

async fn assert_right(served: &Served) {
    let texts: Vec<String> = (10..90).map(|word| word.to_string()).collect();
    let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
    let batch = served.batch(&texts).await;
    for (item, word) in batch.iter().zip(10_u32..) {
        assert_eq!(item["score"], f64::from(word) + 5.0, "{item}");
    }
    assert_eq!(served.facts().await["shares_runs"], false);
}

#[tokio::test]
async fn rows_in_another_order_are_found_at_load() {
    let reversed = sums(|graph, logits| {
        let (first, last) = (graph.integers(&[1], &[-1]), graph.integers(&[1], &[i64::MIN + 1]));
        let (axis, back) = (graph.integers(&[1], &[0]), graph.integers(&[1], &[-1]));
        graph.node("Slice", &[logits, &first, &last, &axis, &back], &[])
    });
    assert_right(&Served::new(&reversed.model()).await).await;
}

#[tokio::test]
async fn rows_that_are_lost_beside_others_are_found_at_load() {
    let first_only = sums(|graph, logits| {
        let (start, end, axis) = (graph.integers(&[1], &[0]), graph.integers(&[1], &[1]), graph.integers(&[1], &[0]));
        graph.node("Slice", &[logits, &start, &end, &axis], &[])
    });
    assert_right(&Served::new(&first_only.model()).await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_that_are_lost_only_now_and_then_shift_no_answer() {
    // A run of five tokens with the word 99 three times gives its first row only: alone that is right, beside others it is not.
    let now_and_then = sums(|graph, logits| {
        let (limit, three, many) =
            (graph.integers(&[1], &[99]), graph.integers(&[1], &[3]), graph.integers(&[1], &[1 << 20]));
        // None of 2^20 rows are cut off below three times 99, and all but one from there on.
        let each = graph.node("Div", &["input_ids", &limit], &[]);
        let count = graph.node("ReduceSum", &[&each], &[("keepdims", Attribute::Int(0))]);
        let is_there = graph.node("Div", &[&count, &three], &[]);
        // In a row of five tokens only: longer texts of the vocabulary may hold the word as often.
        let shape = graph.node("Shape", &["input_ids"], &[]);
        let (second, end, five) = (graph.integers(&[1], &[1]), graph.integers(&[1], &[2]), graph.integers(&[1], &[5]));
        let length = graph.node("Slice", &[&shape, &second, &end], &[]);
        let is_short = graph.node("Div", &[&five, &length], &[]);
        let is_there = graph.node("Mul", &[&is_there, &is_short], &[]);
        let (one, start, axis) = (graph.integers(&[1], &[1]), graph.integers(&[1], &[0]), graph.integers(&[1], &[0]));
        let absent = graph.node("Sub", &[&one, &is_there], &[]);
        let rest = graph.node("Mul", &[&absent, &many], &[]);
        let end = graph.node("Add", &[&rest, &one], &[]);
        graph.node("Slice", &[logits, &start, &end, &axis], &[])
    });
    let served = Served::with(&now_and_then.model(), &["--workers", "1"]).await;
    assert_eq!(served.facts().await["shares_runs"], true);
    for _ in 0..5 {
        let texts: Vec<String> = (60..100).map(|word| format!("{word} {word} {word}")).collect();
        let batch = served.batch(&texts.iter().map(String::as_str).collect::<Vec<_>>()).await;
        for (item, word) in batch.iter().zip(60_u32..) {
            assert_eq!(item["score"], f64::from(3 * word) + 5.0, "{item}");
        }
    }
    // After the first time every text runs by itself.
    assert_eq!(served.facts().await["shares_runs"], false);
}

#[tokio::test(flavor = "multi_thread")]
async fn memory_that_nobody_has_fails_its_text_only() {
    // As many zeros as the greatest word to the power of eight: 10^16 for 99, more than any machine holds.
    let bomb = sums(|graph, logits| {
        let most = graph.node("ReduceMax", &["input_ids"], &[("keepdims", Attribute::Int(0))]);
        let (limit, one) = (graph.integers(&[1], &[99]), graph.integers(&[1], &[1]));
        let is_there = graph.node("Div", &[&most, &limit], &[]);
        let huge = graph.integers(&[1], &[10_i64.pow(16)]);
        let size = graph.node("Mul", &[&is_there, &huge], &[]);
        let size = graph.node("Add", &[&size, &one], &[]);
        let zeros = graph.node("ConstantOfShape", &[&size], &[]);
        let zero = graph.node("ReduceMax", &[&zeros], &[("keepdims", Attribute::Int(1))]);
        graph.node("Add", &[logits, &zero], &[])
    });
    let served = Served::with(&bomb.model(), &["--workers", "1"]).await;
    for _ in 0..3 {
        let reply = served.refused("99").await;
        assert_eq!((reply.status, reply.problem().as_str()), (500, "inference-failed"));
        assert!(!reply.body.contains("alloc"), "{}", reply.body);
        let batch = served.batch(&["10", "99", "20"]).await;
        assert_eq!((&batch[0]["score"], &batch[2]["score"]), (&json!(15.0), &json!(25.0)));
        assert_eq!(batch[1]["error"]["type"], "/docs#inference-failed");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_shipped_models_give_a_text_the_same_scores_in_any_company() {
    let server = TestServer::start(shipped_models(), &[]).await;
    // From one word to more than a model reads.
    let words = ["my", "card", "has", "not", "come", "yet", "top", "up", "exchange", "rate", "?"];
    let text = |number: usize| {
        let length = [1, 2, 3, 5, 8, 13, 21, 34, 200, 600][number % 10];
        let word = |place: usize| words[(number * 7 + place * (number % 5 + 1)) % words.len()];
        (0..length).map(word).collect::<Vec<_>>().join(" ")
    };
    let texts: Vec<String> = (0..60).map(text).collect();
    for model in ["banking77-minilm", "banking77-tfidf"] {
        let ask = async |path: &str, mut body: Value| {
            (body["model"], body["return_probabilities"]) = (json!(model), json!(true));
            let reply = server.ask(path, body).await;
            assert_eq!(reply.status, 200, "{}", reply.body);
            reply.json()
        };
        let together = ask("/batch_predict", json!({ "texts": texts })).await;
        for (text, beside) in texts.iter().zip(together["results"].as_array().unwrap()) {
            let alone = ask("/predict", json!({ "text": text })).await;
            assert_eq!(alone["prediction"], beside["prediction"]);
            assert_near(&numbers(&beside["probabilities"]), &numbers(&alone["probabilities"]));
        }
    }
}

/// Adds a hundredth of the row's length, padding included, to a score.
fn add_length(graph: &mut Graph, logits: &str) -> String {
    let shape = graph.node("Shape", &["input_ids"], &[]);
    let (one, two) = (graph.integers(&[1], &[1]), graph.integers(&[1], &[2]));
    let length = graph.node("Slice", &[&shape, &one, &two], &[]);
    let length = graph.node("Cast", &[&length], &[("to", Attribute::Int(1))]);
    let hundredth = graph.floats(&[1], &[0.01]);
    let added = graph.node("Mul", &[&length, &hundredth], &[]);
    graph.node("Add", &[logits, &added], &[])
}

/// Adds a hundredth of the row's length for a text with a word above 80 only.
fn add_length_to_some(graph: &mut Graph, logits: &str) -> String {
    let axis = [("axes", Attribute::Ints(&[1])), ("keepdims", Attribute::Int(1))];
    let largest = graph.node("ReduceMax", &["input_ids"], &axis);
    let limit = graph.integers(&[1], &[80]);
    let above = graph.node("Greater", &[&largest, &limit], &[]);
    let longer = add_length(graph, logits);
    graph.node("Where", &[&above, &longer, logits], &[])
}

#[tokio::test]
async fn padding_that_moves_scores_a_little_is_found_at_load() {
    for nodes in [add_length, add_length_to_some] {
        let served = Served::new(&sums(nodes).model()).await;
        assert_eq!(served.facts().await["shares_runs"], false);
        let batch = served.batch(&["90", "10 20 30 40 50 60 70 80 90"]).await;
        let alone = served.score("90").await;
        assert_eq!(batch[0]["score"].as_f64().unwrap().to_bits(), alone.to_bits());
    }
}

/// Adds ten where the rows of a batch are longer than 100 tokens.
fn add_far(graph: &mut Graph, logits: &str) -> String {
    let shape = graph.node("Shape", &["input_ids"], &[]);
    let (one, two, limit) = (graph.integers(&[1], &[1]), graph.integers(&[1], &[2]), graph.integers(&[1], &[100]));
    let length = graph.node("Slice", &[&shape, &one, &two], &[]);
    let is_long = graph.node("Greater", &[&length, &limit], &[]);
    let added = graph.node("Cast", &[&is_long], &[("to", Attribute::Int(1))]);
    let ten = graph.floats(&[1], &[10.0]);
    let added = graph.node("Mul", &[&added, &ten], &[]);
    graph.node("Add", &[logits, &added], &[])
}

#[tokio::test]
async fn padding_of_long_batches_is_found_at_load() {
    assert_eq!(Served::new(&sums(add_far).model()).await.facts().await["shares_runs"], false);
}

#[tokio::test]
async fn graph_that_fails_on_batches_runs_alone_whatever_model_toml_allows() {
    // The batch is made one row again, and cannot be added to what comes in several.
    let fails = sums(|graph, logits| {
        let (shape, zero) = (graph.integers(&[2], &[1, 1]), graph.floats(&[1], &[0.0]));
        let one = graph.node("Reshape", &[logits, &shape], &[]);
        let nothing = graph.node("Mul", &[&one, &zero], &[]);
        graph.node("Add", &[logits, &nothing], &[])
    });
    let served = Served::new(&fails.model().options("allow_batch_influence = true")).await;
    assert_eq!(served.facts().await["shares_runs"], false);
    assert_right(&served).await;
}

#[tokio::test]
async fn batching_that_model_toml_turns_off_runs_each_text_alone() {
    let model = sums(|_, logits| logits.to_owned()).model();
    assert_eq!(Served::new(&model).await.facts().await["shares_runs"], true);
    let alone = Served::new(&model.options("batching = false")).await;
    assert_eq!(alone.facts().await["shares_runs"], false);
    assert_right(&alone).await;
}
