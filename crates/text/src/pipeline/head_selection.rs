//! What is done with a model's scores: what its files say, and what its graph gives.

use crate::activation::Activation;
use crate::heads::Head;
use crate::manifest::{LabelThresholds, Manifest, ManifestError, ProblemType, Task, options_error};
use crate::signature::{ScoreKind, Signature};

/// The head that fits the task, the labels and the graph's scores.
///
/// # Errors
/// [`ManifestError`] if `model.toml` asks for what the graph cannot give.
pub(super) fn select_head(
    manifest: &Manifest,
    signature: &Signature,
    labels: Option<&[String]>,
) -> Result<Head, ManifestError> {
    let options = &manifest.options;
    if options.task.is_some_and(|task| signature.per_token != (task == Task::TokenClassification)) {
        let found = if signature.per_token { "token" } else { "text" };
        let reason = format!(
            "the task does not fit the graph: its output {:?} has scores for each {found}; name another output with output = \"NAME\"",
            signature.output_name
        );
        return Err(options_error(reason));
    }
    let labels = labels.unwrap_or_default();
    if signature.per_token {
        let activation = select_activation(manifest, signature, Activation::Softmax);
        return Ok(Head::Entities(options.aggregation.unwrap_or_default(), activation));
    }
    match problem_type(manifest) {
        Some(ProblemType::MultiLabelClassification) => Ok(Head::MultiLabel {
            thresholds: expand_thresholds(options.thresholds.as_ref(), labels)?,
            activation: select_activation(manifest, signature, Activation::Sigmoid),
        }),
        Some(ProblemType::Regression) => select_regression_head(options.activation),
        _ => select_single_label_head(manifest, signature, labels.len()),
    }
}

/// What the scores of whole texts mean: what `model.toml` says, then `config.json`.
pub(super) fn problem_type(manifest: &Manifest) -> Option<ProblemType> {
    match manifest.options.task {
        Some(Task::Classification) => Some(ProblemType::SingleLabelClassification),
        Some(Task::MultiLabel) => Some(ProblemType::MultiLabelClassification),
        Some(Task::Regression) => Some(ProblemType::Regression),
        Some(Task::TokenClassification) => None,
        None => manifest.config.problem_type(),
    }
}

/// What the server applies: what `model.toml` says, or nothing where the graph does so itself, or else the usual.
fn select_activation(manifest: &Manifest, signature: &Signature, usual: Activation) -> Activation {
    let found = if signature.score_kind == ScoreKind::Probabilities { Activation::None } else { usual };
    manifest.options.activation.unwrap_or(found)
}

fn select_regression_head(activation: Option<Activation>) -> Result<Head, ManifestError> {
    match activation {
        None | Some(Activation::None) => Ok(Head::Regression),
        Some(Activation::Sigmoid) => Ok(Head::Scoring(Activation::Sigmoid)),
        Some(Activation::Softmax) => Err(options_error(
            "activation: a softmax over the one score of a regression is always 1; expected \"none\" or \"sigmoid\"",
        )),
    }
}

fn select_single_label_head(manifest: &Manifest, signature: &Signature, labels: usize) -> Result<Head, ManifestError> {
    if signature.is_multi_label {
        return Err(options_error("the graph names any number of classes per text: say task = \"multi_label\""));
    }
    match (signature.width, labels) {
        (1, 2) => Ok(Head::Binary(select_activation(manifest, signature, Activation::Sigmoid))),
        // As the pipeline of `transformers` answers for one label, whatever it was trained for.
        (1, 0 | 1) if signature.score_kind == ScoreKind::Logits || signature.applied_activation.is_some() => {
            Ok(Head::Scoring(select_activation(manifest, signature, Activation::Sigmoid)))
        }
        _ => Ok(Head::SingleLabel(select_activation(manifest, signature, Activation::Softmax))),
    }
}

fn expand_thresholds(thresholds: Option<&LabelThresholds>, labels: &[String]) -> Result<Vec<f32>, ManifestError> {
    const DEFAULT_THRESHOLD: f32 = 0.5;
    let expanded: Vec<f32> = match thresholds {
        None => vec![DEFAULT_THRESHOLD; labels.len()],
        Some(LabelThresholds::Uniform(threshold)) => vec![*threshold; labels.len()],
        Some(LabelThresholds::PerLabel(each)) => {
            if let Some(unknown) = each.keys().find(|name| !labels.contains(name)) {
                return Err(options_error(format!("thresholds names {unknown:?}, which is not a label")));
            }
            labels.iter().map(|label| each.get(label).copied().unwrap_or(DEFAULT_THRESHOLD)).collect()
        }
    };
    if expanded.iter().all(|threshold| (0.0..=1.0).contains(threshold)) {
        Ok(expanded)
    } else {
        Err(options_error("thresholds must lie between 0 and 1"))
    }
}
