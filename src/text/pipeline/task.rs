//! What is done with a model's scores: what its files say, and what its graph gives.

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
    let per_token = signature.scores == ScoreKind::TokenLogits;
    if options.task.is_some_and(|task| per_token != (task == Task::TokenClassification)) {
        let found = if per_token { "token" } else { "text" };
        let reason = format!("the task does not fit the graph, which gives scores for each {found}");
        return Err(ManifestError::new("model.toml", reason));
    }
    let problem = match options.task {
        Some(Task::Classification) => Some(ProblemType::SingleLabelClassification),
        Some(Task::MultiLabel) => Some(ProblemType::MultiLabelClassification),
        Some(Task::Regression) => Some(ProblemType::Regression),
        Some(Task::TokenClassification) | None => manifest.config.problem_type(),
    };
    let count = labels.map_or(0, <[String]>::len);
    match (problem, signature.scores) {
        (_, ScoreKind::TokenLogits) => Ok(Head::Entities(options.aggregation.unwrap_or_default())),
        (Some(ProblemType::MultiLabelClassification), _) => {
            let thresholds = expand_thresholds(options.thresholds.as_ref(), labels.unwrap_or_default())?;
            Ok(Head::MultiLabel { thresholds, scores: signature.scores })
        }
        (Some(ProblemType::Regression), _) => Ok(Head::Regression),
        (_, ScoreKind::Probabilities) if signature.many_labels => Err(ManifestError::new(
            "model.toml",
            "the graph names any number of classes per text: say task = \"multi_label\"",
        )),
        (_, ScoreKind::Probabilities) => Ok(Head::Probabilities),
        (_, ScoreKind::Logits) if signature.width == 1 && count == 2 => Ok(Head::Binary),
        // As the pipeline of `transformers` answers for one label, whatever it was trained for.
        (_, ScoreKind::Logits) if signature.width == 1 && count <= 1 => Ok(Head::Sigmoid),
        (_, ScoreKind::Logits) => Ok(Head::SingleLabel),
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
