//! What keeps no model from serving, but what its author wants to know.

use predictd_engine::drift_monitor::PROFILE_MISMATCH_WARNING;
use predictd_text::activation::Activation;
use predictd_text::heads::Head;

use super::answers::EvalSummary;
use super::loaded_model::LoadedModel;
use super::model_info::ModelInfo;

/// One sentence each.
#[must_use]
pub fn collect_warnings(opened: &LoadedModel, facts: &ModelInfo, texts: &EvalSummary) -> Vec<String> {
    let mut found = Vec::new();
    let options = &opened.manifest.options;
    if !facts.labels.is_empty() && (0..).zip(&facts.labels).all(|(n, label): (usize, _)| *label == format!("LABEL_{n}"))
    {
        found.push(
            "the labels are LABEL_0 and so on: name them in id2label of config.json, or in labels.json".to_owned(),
        );
    }
    found.extend(operator_warning(opened));
    found.extend(opened.pipeline().warnings.iter().cloned());
    if facts.golden_examples == 0 {
        found.push("there is no golden.json: nothing shows that this graph answers as it was trained to".to_owned());
    }
    let without = facts.files.iter().filter(|file| !file.digest).map(|file| &*file.name);
    let without: Vec<&str> = without.filter(|name| is_config_or_graph(name) || is_weights_file(opened, name)).collect();
    if !without.is_empty() {
        found.push(format!("model.toml has no SHA-256 of {}: a damaged file may go unnoticed", without.join(", ")));
    }
    let head = opened.pipeline().head();
    if matches!(head, Head::SingleLabel(Activation::Softmax))
        && options.task.is_none()
        && opened.manifest.config.problem_type().is_none()
    {
        found.push(
            "neither problem_type in config.json nor task in model.toml says what the scores mean: a softmax is taken"
                .to_owned(),
        );
    }
    if facts.tokens.as_ref().is_some_and(|tokens| !tokens.max_tokens_named) {
        found.push("no file says how many tokens a text may have: 512 are taken".to_owned());
    }
    if facts.constants.iter().any(|element| element == "float64") && facts.tokens.is_some() {
        found.push("the graph has constants of float64, which are slow".to_owned());
    }
    if facts.device == "cpu" && facts.constants.iter().any(|element| element == "float16" || element == "bfloat16") {
        found.push(
            "the graph has half-precision weights, which a CPU first makes longer: it is made for a GPU".to_owned(),
        );
    }
    if opened.manifest.profile_graph_differs {
        found.push(PROFILE_MISMATCH_WARNING.to_owned());
    }
    if texts.truncated > 0 {
        found.push(format!(
            "{} of {} texts are longer than the model takes, and are cut off",
            texts.truncated, texts.count
        ));
    }
    if texts.refused > 0 {
        let first = texts.first_refused.first().map(|first| format!("; {} {first}", texts.unit)).unwrap_or_default();
        found.push(format!("{} of {} texts are refused{first}", texts.refused, texts.count));
    }
    found
}

fn operator_warning(opened: &LoadedModel) -> Option<String> {
    let operators = opened.graph.batch_dependent_operators.join(", ");
    match opened.manifest.options.allow_batch_influence {
        _ if operators.is_empty() => None,
        Some(true) => Some(format!(
            "the graph has {operators}, which scale by the whole batch, and model.toml allows that: answers depend on neighbours"
        )),
        _ => Some(format!(
            "the graph has {operators}, which scale by the whole batch: each text runs alone, which costs throughput"
        )),
    }
}

/// True for a file beside the graph that holds its weights.
fn is_weights_file(opened: &LoadedModel, name: &str) -> bool {
    let path = opened.directory.join(name);
    opened.graph.external_files.iter().any(|weights| opened.manifest.graph_directory.join(weights) == path)
}

/// True for a file that decides answers.
fn is_config_or_graph(name: &str) -> bool {
    matches!(
        name,
        "config.json"
            | "labels.json"
            | "tokenizer.json"
            | "tokenizer_config.json"
            | "special_tokens_map.json"
            | "added_tokens.json"
            | "golden.json"
    ) || name.contains(".onnx")
}
