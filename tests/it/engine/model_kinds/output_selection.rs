//! Graphs with several outputs: the scores are those that the labels need.

use serde_json::json;

use crate::support::answers::{item_answer, score};
use crate::support::assertions::assert_near;
use crate::support::model_builder::ModelBuilder;
use crate::support::model_builder::onnx_graph::{Attribute, Dim, ElementType, OnnxGraph};
use crate::support::model_server::{ModelServer, load_error};

const BATCH_DIM: Dim = Dim::Open("batch");
const TOKENS_DIM: Dim = Dim::Open("sequence");

/// A graph of a text's ids: their sum and its double as scores, and other outputs before them.
struct MultiOutputGraph {
    graph: OnnxGraph,
    /// `[batch, tokens, 1]`
    ids: String,
    /// `[batch, 2]`
    scores: String,
}

impl MultiOutputGraph {
    fn new() -> Self {
        let mut graph = OnnxGraph::default();
        graph.input("input_ids", ElementType::Int64, &[BATCH_DIM, TOKENS_DIM]);
        let ids = graph.node("Cast", &["input_ids"], &[("to", Attribute::Int(1))]);
        let one = graph.integers(&[1], &[1]);
        let two = graph.integers(&[1], &[2]);
        let sum = graph.node("ReduceSum", &[&ids, &one], &[]);
        let factors = graph.floats(&[1, 2], &[1.0, 2.0]);
        let scores = graph.node("MatMul", &[&sum, &factors], &[]);
        let ids = graph.node("Unsqueeze", &[&ids, &two], &[]);
        Self { graph, ids, scores }
    }

    /// One more output: a hidden state of each token.
    fn add_hidden_states(mut self, name: &str, width: u64) -> Self {
        let factors = self.graph.floats(&[1, width], &vec![0.5; usize::try_from(width).unwrap()]);
        let hidden = self.graph.node("MatMul", &[&self.ids, &factors], &[]);
        self.graph.rename_value(&hidden, name);
        self.graph.output(name, ElementType::Float, &[BATCH_DIM, TOKENS_DIM, Dim::Fixed(width)]);
        self
    }

    /// One more output: numbers of the whole text that are no scores.
    fn add_pooled(mut self, name: &str, width: u64) -> Self {
        let factors = self.graph.floats(&[2, width], &vec![0.25; 2 * usize::try_from(width).unwrap()]);
        let pooled = self.graph.node("MatMul", &[&self.scores, &factors], &[]);
        self.graph.rename_value(&pooled, name);
        self.graph.output(name, ElementType::Float, &[BATCH_DIM, Dim::Fixed(width)]);
        self
    }

    fn add_scores(mut self, name: &str) -> Self {
        self.graph.rename_value(&self.scores, name);
        self.graph.output(name, ElementType::Float, &[BATCH_DIM, Dim::Fixed(2)]);
        self
    }

    fn model(&self) -> ModelBuilder {
        ModelBuilder::from_graph(&self.graph).tokenizer(|_| ()).labels(&["a", "b"])
    }
}

async fn assert_serves_scores(model: &ModelBuilder) {
    let served = ModelServer::new(model).await;
    assert_near(&served.raw_scores("10 20").await.0, &[35.0, 70.0]);
}

#[tokio::test]
async fn output_scores_after_hidden_states_are_found() {
    for width in [8, 2] {
        assert_serves_scores(
            &MultiOutputGraph::new().add_hidden_states("last_hidden_state", width).add_scores("scores").model(),
        )
        .await;
        assert_serves_scores(
            &MultiOutputGraph::new().add_pooled("pooler_output", width).add_scores("output_1").model(),
        )
        .await;
        // Under names that say nothing.
        assert_serves_scores(&MultiOutputGraph::new().add_hidden_states("x", width).add_scores("y").model()).await;
    }
    assert_serves_scores(&MultiOutputGraph::new().add_pooled("x", 8).add_scores("y").model()).await;
}

#[tokio::test]
async fn output_ambiguous_scores_require_a_name() {
    let both = MultiOutputGraph::new().add_pooled("x", 2).add_scores("y");
    let reason = load_error(&both.model()).await;
    assert!(
        reason.starts_with("model.onnx: several of its outputs could be the scores: \"x\" (f32 [-1, 2]), \"y\""),
        "{reason}"
    );
    assert!(reason.ends_with("say which with output = \"NAME\" in model.toml"), "{reason}");
    assert_serves_scores(&both.model().manifest_toml("output = \"y\"")).await;
    let reason = load_error(&both.model().manifest_toml("output = \"z\"")).await;
    assert!(
        reason.starts_with("model.onnx: model.toml: output names \"z\", but the graph's outputs are \"x\""),
        "{reason}"
    );
}

#[tokio::test]
async fn output_label_count_selects_the_output() {
    let reason = load_error(&MultiOutputGraph::new().add_scores("scores").model().labels(&["a", "b", "c"])).await;
    assert!(
        reason.starts_with("labels: 3 labels need 3 scores per text, but the graph gives 2 (output \"scores\")"),
        "{reason}"
    );
}

#[tokio::test]
async fn output_hidden_states_only_is_refused() {
    let reason = load_error(&MultiOutputGraph::new().add_hidden_states("last_hidden_state", 8).model()).await;
    assert!(reason.contains("are hidden states, not scores: the model has no classification head"), "{reason}");
}

#[tokio::test]
async fn output_token_scores_used_for_token_classification() {
    let both = MultiOutputGraph::new().add_scores("pooled").add_hidden_states("of_tokens", 2);
    let tokens = both.model().config("architectures", json!(["BertForTokenClassification"]));
    assert_eq!(ModelServer::new(&tokens).await.model_info().await.task, "token_classification");
    let tokens = both.model().manifest_toml("task = \"token_classification\"");
    assert_eq!(ModelServer::new(&tokens).await.model_info().await.output, "of_tokens");
    assert_eq!(ModelServer::new(&both.model()).await.model_info().await.task, "single_label_classification");
}

#[tokio::test]
async fn output_token_scores_matching_labels_win_over_pooled() {
    let outputs = MultiOutputGraph::new().add_hidden_states("of_tokens", 3).add_pooled("of_text", 7);
    let served = ModelServer::new(&outputs.model().labels(&["a", "b", "c"])).await;
    assert_eq!(served.model_info().await.output, "of_tokens");
}

/// A reranker whose score for a text has these axes.
fn reranker_model(axes: &[i64], declared: &[Dim]) -> ModelBuilder {
    let mut graph = OnnxGraph::default();
    graph.input("input_ids", ElementType::Int64, &[BATCH_DIM, TOKENS_DIM]);
    let ids = graph.node("Cast", &["input_ids"], &[("to", Attribute::Int(1))]);
    let one = graph.integers(&[1], &[1]);
    let sum = graph.node("ReduceSum", &[&ids, &one], &[]);
    let tenth = graph.floats(&[1], &[0.1]);
    let sum = graph.node("Mul", &[&sum, &tenth], &[]);
    let shape = graph.integers(&[u64::try_from(axes.len()).unwrap()], axes);
    let shaped = graph.node("Reshape", &[&sum, &shape], &[]);
    graph.rename_value(&shaped, "logits");
    graph.output("logits", ElementType::Float, declared);
    ModelBuilder::from_graph(&graph).tokenizer(|_| ())
}

#[tokio::test]
async fn output_one_logit_any_shape_is_read() {
    let one = Dim::Fixed(1);
    for (axes, declared) in
        [(&[-1][..], &[BATCH_DIM][..]), (&[-1, 1], &[BATCH_DIM, one]), (&[-1, 1, 1], &[BATCH_DIM, one, one])]
    {
        let served = ModelServer::new(&reranker_model(axes, declared)).await;
        assert_near(&[served.score("10").await], &[1.0 / (1.0 + (-1.5_f64).exp())]);
        let batch = served.batch_predict(&["10", "20 30"]).await;
        assert_near(&[score(item_answer(&batch[1]))], &[1.0 / (1.0 + (-5.5_f64).exp())]);
    }
}
