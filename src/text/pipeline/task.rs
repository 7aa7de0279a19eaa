//! What is done with a model's scores: what its files say, and what its graph gives.

use crate::text::activation::Activation;
use crate::text::heads::Head;
use crate::text::manifest::{Manifest, ManifestError, ProblemType, Task, Thresholds};
use crate::text::signature::{ScoreKind, Signature};

/// The head that fits the task, the labels and the graph's scores.
///
/// # Errors
/// [`ManifestError`] if `model.toml` asks for what the graph cannot give.
pub(super) fn head(
    manifest: &Manifest,
    signature: &Signature,
    labels: Option<&[String]>,
) -> Result<Head, ManifestError> {
    let options = &manifest.options;
    if options.task.is_some_and(|task| signature.per_token != (task == Task::TokenClassification)) {
        let found = if signature.per_token { "token" } else { "text" };
        let reason = format!(
            "the task does not fit the graph: its output {:?} has scores for each {found}; name another output with output = \"NAME\"",
            signature.output
        );
        return Err(ManifestError::new("model.toml", reason));
    }
    let problem = match options.task {
        Some(Task::Classification) => Some(ProblemType::SingleLabelClassification),
        Some(Task::MultiLabel) => Some(ProblemType::MultiLabelClassification),
        Some(Task::Regression) => Some(ProblemType::Regression),
        Some(Task::TokenClassification) | None => manifest.config.problem_type(),
    };
    let labels = labels.unwrap_or_default();
    if signature.per_token {
        let activation = activation(manifest, signature, Activation::Softmax);
        return Ok(Head::Entities(options.aggregation.unwrap_or_default(), activation));
    }
    match problem {
        Some(ProblemType::MultiLabelClassification) => Ok(Head::MultiLabel {
            thresholds: expand_thresholds(options.thresholds.as_ref(), labels)?,
            activation: activation(manifest, signature, Activation::Sigmoid),
        }),
        Some(ProblemType::Regression) => regression(options.activation),
        _ => single_label(manifest, signature, labels.len()),
    }
}

/// What the server applies: what `model.toml` says, or nothing where the graph does so itself, or else the usual.
fn activation(manifest: &Manifest, signature: &Signature, usual: Activation) -> Activation {
    let found = if signature.scores == ScoreKind::Probabilities { Activation::None } else { usual };
    manifest.options.activation.unwrap_or(found)
}

fn regression(activation: Option<Activation>) -> Result<Head, ManifestError> {
    match activation {
        None | Some(Activation::None) => Ok(Head::Regression),
        Some(Activation::Sigmoid) => Ok(Head::Scoring(Activation::Sigmoid)),
        Some(Activation::Softmax) => Err(ManifestError::new(
            "model.toml",
            "activation: a softmax over the one score of a regression is always 1; expected \"none\" or \"sigmoid\"",
        )),
    }
}

fn single_label(manifest: &Manifest, signature: &Signature, labels: usize) -> Result<Head, ManifestError> {
    if signature.many_labels {
        return Err(ManifestError::new(
            "model.toml",
            "the graph names any number of classes per text: say task = \"multi_label\"",
        ));
    }
    match (signature.width, labels) {
        (1, 2) => Ok(Head::Binary(activation(manifest, signature, Activation::Sigmoid))),
        // As the pipeline of `transformers` answers for one label, whatever it was trained for.
        (1, 0 | 1) if signature.scores == ScoreKind::Logits || signature.applied.is_some() => {
            Ok(Head::Scoring(activation(manifest, signature, Activation::Sigmoid)))
        }
        _ => Ok(Head::SingleLabel(activation(manifest, signature, Activation::Softmax))),
    }
}

fn expand_thresholds(thresholds: Option<&Thresholds>, labels: &[String]) -> Result<Vec<f32>, ManifestError> {
    const DEFAULT: f32 = 0.5;
    let error = |reason: String| ManifestError::new("model.toml", reason);
    let expanded: Vec<f32> = match thresholds {
        None => vec![DEFAULT; labels.len()],
        Some(Thresholds::All(threshold)) => vec![*threshold; labels.len()],
        Some(Thresholds::Each(each)) => {
            if let Some(unknown) = each.keys().find(|name| !labels.contains(name)) {
                return Err(error(format!("thresholds names {unknown:?}, which is not a label")));
            }
            labels.iter().map(|label| each.get(label).copied().unwrap_or(DEFAULT)).collect()
        }
    };
    if expanded.iter().all(|threshold| (0.0..=1.0).contains(threshold)) {
        Ok(expanded)
    } else {
        Err(error("thresholds must lie between 0 and 1".to_owned()))
    }
}
