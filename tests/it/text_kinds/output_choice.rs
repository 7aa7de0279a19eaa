//! Graphs with several outputs: the scores are those that the labels need.

use serde_json::{Value, json};

use crate::fixture::Model;
use crate::fixture::onnx::{Attribute, Dim, Element, Graph};
use crate::fixture::served::{Served, assert_near, refusal};

const BATCH: Dim = Dim::Open("batch");
const TOKENS: Dim = Dim::Open("sequence");

/// A graph of a text's ids: their sum and its double as scores, and other outputs before them.
struct Outputs {
    graph: Graph,
    /// `[batch, tokens, 1]`
    ids: String,
    /// `[batch, 2]`
    scores: String,
}

impl Outputs {
    fn new() -> Self {
        let mut graph = Graph::default();
        graph.input("input_ids", Element::Int64, &[BATCH, TOKENS]);
        let ids = graph.node("Cast", &["input_ids"], &[("to", Attribute::Int(1))]);
        let (one, two) = (graph.integers(&[1], &[1]), graph.integers(&[1], &[2]));
        let sum = graph.node("ReduceSum", &[&ids, &one], &[]);
        let factors = graph.floats(&[1, 2], &[1.0, 2.0]);
        let scores = graph.node("MatMul", &[&sum, &factors], &[]);
        let ids = graph.node("Unsqueeze", &[&ids, &two], &[]);
        Self { graph, ids, scores }
    }

    /// One more output: a hidden state of each token.
    fn hidden(mut self, name: &str, width: u64) -> Self {
        let factors = self.graph.floats(&[1, width], &vec![0.5; usize::try_from(width).unwrap()]);
        let hidden = self.graph.node("MatMul", &[&self.ids, &factors], &[]);
        self.graph.rename(&hidden, name);
        self.graph.output(name, Element::Float, &[BATCH, TOKENS, Dim::Fixed(width)]);
        self
    }

    /// One more output: numbers of the whole text that are no scores.
    fn pooled(mut self, name: &str, width: u64) -> Self {
        let factors = self.graph.floats(&[2, width], &vec![0.25; 2 * usize::try_from(width).unwrap()]);
        let pooled = self.graph.node("MatMul", &[&self.scores, &factors], &[]);
        self.graph.rename(&pooled, name);
        self.graph.output(name, Element::Float, &[BATCH, Dim::Fixed(width)]);
        self
    }

    fn scores(mut self, name: &str) -> Self {
        self.graph.rename(&self.scores, name);
        self.graph.output(name, Element::Float, &[BATCH, Dim::Fixed(2)]);
        self
    }

    fn model(&self) -> Model {
        Model::of_graph(&self.graph).tokenizer(|_| ()).labels(&["a", "b"])
    }
}

async fn assert_gives_scores(model: &Model) {
    let served = Served::new(model).await;
    assert_near(&served.raw("10 20").await.0, &[35.0, 70.0]);
}

#[tokio::test]
async fn scores_behind_hidden_states_are_found() {
    for width in [8, 2] {
        assert_gives_scores(&Outputs::new().hidden("last_hidden_state", width).scores("scores").model()).await;
        assert_gives_scores(&Outputs::new().pooled("pooler_output", width).scores("output_1").model()).await;
        // Under names that say nothing.
        assert_gives_scores(&Outputs::new().hidden("x", width).scores("y").model()).await;
    }
    assert_gives_scores(&Outputs::new().pooled("x", 8).scores("y").model()).await;
}

#[tokio::test]
async fn outputs_that_could_both_be_scores_need_a_name() {
    let both = Outputs::new().pooled("x", 2).scores("y");
    let reason = refusal(&both.model()).await;
    assert!(
        reason.starts_with("model.onnx: several of its outputs could be the scores: \"x\" (f32 [-1, 2]), \"y\""),
        "{reason}"
    );
    assert!(reason.ends_with("say which with output = \"NAME\" in model.toml"), "{reason}");
    assert_gives_scores(&both.model().options("output = \"y\"")).await;
    let reason = refusal(&both.model().options("output = \"z\"")).await;
    assert!(
        reason.starts_with("model.onnx: model.toml: output names \"z\", but the graph's outputs are \"x\""),
        "{reason}"
    );
}

#[tokio::test]
async fn labels_of_another_number_name_the_output() {
    let reason = refusal(&Outputs::new().scores("scores").model().labels(&["a", "b", "c"])).await;
    assert!(
        reason.starts_with("labels: 3 labels need 3 scores per text, but the graph gives 2 (output \"scores\")"),
        "{reason}"
    );
}

#[tokio::test]
async fn hidden_states_alone_are_no_scores() {
    let reason = refusal(&Outputs::new().hidden("last_hidden_state", 8).model()).await;
    assert!(reason.contains("are hidden states, not scores: the model has no classification head"), "{reason}");
}

#[tokio::test]
async fn scores_of_tokens_are_taken_for_a_model_that_labels_tokens() {
    let both = Outputs::new().scores("pooled").hidden("of_tokens", 2);
    let tokens = both.model().config("architectures", json!(["BertForTokenClassification"]));
    assert_eq!(Served::new(&tokens).await.facts().await["task"], "token_classification");
    let tokens = both.model().options("task = \"token_classification\"");
    assert_eq!(Served::new(&tokens).await.facts().await["output"], "of_tokens");
    assert_eq!(Served::new(&both.model()).await.facts().await["task"], "single_label_classification");
}

#[tokio::test]
async fn scores_of_tokens_that_fit_the_labels_come_before_numbers_of_the_text() {
    let outputs = Outputs::new().hidden("of_tokens", 3).pooled("of_text", 7);
    let served = Served::new(&outputs.model().labels(&["a", "b", "c"])).await;
    assert_eq!(served.facts().await["output"], "of_tokens");
}

#[tokio::test]
async fn inputs_of_other_names_are_named_in_model_toml() {
    let mut graph = Graph::default();
    for name in ["tokens", "input_mask_3"] {
        graph.input(name, Element::Int64, &[BATCH, TOKENS]);
    }
    let masked = graph.node("Mul", &["tokens", "input_mask_3"], &[]);
    let ids = graph.node("Cast", &[&masked], &[("to", Attribute::Int(1))]);
    let one = graph.integers(&[1], &[1]);
    let sum = graph.node("ReduceSum", &[&ids, &one], &[]);
    graph.rename(&sum, "logits");
    graph.output("logits", Element::Float, &[BATCH, Dim::Fixed(1)]);
    let model = Model::of_graph(&graph).tokenizer(|_| ()).config("problem_type", json!("regression"));
    let reason = refusal(&model).await;
    assert!(reason.contains("[inputs] \"tokens\" = \"input_ids\""), "{reason}");
    let named = model.clone().options("[inputs]\ntokens = \"input_ids\"\ninput_mask_3 = \"attention_mask\"");
    assert_near(&[Served::new(&named).await.score("10 20").await], &[35.0]);
    let reason = refusal(&model.options("[inputs]\nwords = \"input_ids\"")).await;
    assert!(reason.contains("model.toml: inputs names \"words\""), "{reason}");
}

/// A reranker whose score for a text has these axes.
fn reranker(axes: &[i64], declared: &[Dim]) -> Model {
    let mut graph = Graph::default();
    graph.input("input_ids", Element::Int64, &[BATCH, TOKENS]);
    let ids = graph.node("Cast", &["input_ids"], &[("to", Attribute::Int(1))]);
    let one = graph.integers(&[1], &[1]);
    let sum = graph.node("ReduceSum", &[&ids, &one], &[]);
    let tenth = graph.floats(&[1], &[0.1]);
    let sum = graph.node("Mul", &[&sum, &tenth], &[]);
    let shape = graph.integers(&[u64::try_from(axes.len()).unwrap()], axes);
    let shaped = graph.node("Reshape", &[&sum, &shape], &[]);
    graph.rename(&shaped, "logits");
    graph.output("logits", Element::Float, declared);
    Model::of_graph(&graph).tokenizer(|_| ())
}

#[tokio::test]
async fn one_logit_comes_in_any_shape() {
    let one = Dim::Fixed(1);
    for (axes, declared) in [(&[-1][..], &[BATCH][..]), (&[-1, 1], &[BATCH, one]), (&[-1, 1, 1], &[BATCH, one, one])] {
        let served = Served::new(&reranker(axes, declared)).await;
        assert_near(&[served.score("10").await], &[1.0 / (1.0 + (-1.5_f64).exp())]);
        let batch: Vec<Value> = served.batch(&["10", "20 30"]).await;
        assert_near(&[batch[1]["score"].as_f64().unwrap()], &[1.0 / (1.0 + (-5.5_f64).exp())]);
    }
}
