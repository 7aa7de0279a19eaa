//! One prediction on the wire.

use predictd_engine::ItemOutput;
use predictd_engine::loaded_version::LoadedVersion;
use predictd_experiments::counters::AnswerSource;
use predictd_experiments::receipts::{LabelSource, Receipt, TextFingerprint};
use predictd_platform::clock;
use predictd_text::entities::Entity;
use predictd_text::heads::{HeadOutcome, top_k};
use serde::Serialize;
use utoipa::ToSchema;

use super::arm_router::ArmRoute;
use super::error::{ApiError, Code};
use super::state::App;

/// What a request wants to see of an answer.
#[derive(Debug, Clone, Copy, Default)]
pub struct ResponseOptions<'a> {
    /// Labels of the request's own, instead of the model's.
    pub labels: Option<&'a [String]>,
    /// One score per label.
    pub probabilities: bool,
    /// The best labels, this many.
    pub top_k: Option<usize>,
    /// The model's own scores instead of probabilities.
    pub raw_scores: bool,
    /// Marks the text as the client sent it, for feedback that brings it again.
    pub text_mark: Option<TextFingerprint>,
    /// How the version was chosen, and in what place it answered.
    pub route: Option<(&'a ArmRoute, AnswerSource)>,
}

/// The answer to one text.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct Prediction {
    /// The label; a list of labels for a multi-label model; left out for regression.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prediction: Option<OneOrMany<String>>,
    /// Probability of the label, or of each of the labels; raw scores if those were asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub confidence: Option<OneOrMany<f32>>,
    /// The number that a regression or scoring model gives.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub score: Option<f32>,
    /// What a model that labels tokens found in the text, in its order.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub entities: Option<Vec<FoundEntity>>,
    /// One probability (or raw score) per label, in the order of the labels at /models/{name}.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub probabilities: Option<Vec<f32>>,
    /// The best labels, best first.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub top: Option<Vec<LabelScore>>,
    /// Which model answered.
    pub model: ModelVersionName,
    /// The experiment that chose the version.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub experiment: Option<ArmAttribution>,
    /// Names this answer when its true label is told later. Good for 30 days.
    pub prediction_id: String,
    /// Tokens the model saw, special tokens included; words for a model that takes the text itself.
    pub tokens: usize,
    /// True if the model did not see the whole text.
    pub truncated: bool,
}

/// One value, or a list of them.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
#[serde(untagged)]
pub enum OneOrMany<T> {
    /// Exactly one.
    One(T),
    /// Any number.
    Many(Vec<T>),
}

/// A label with its score.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct LabelScore {
    /// The label.
    pub label: String,
    /// Its probability, or its raw score if those were asked for.
    pub score: f32,
}

/// Something that was found in a text.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct FoundEntity {
    /// Its kind, or its whole label where tokens stand by themselves.
    pub label: String,
    /// Probability of the label, the mean over its tokens or words.
    pub score: f32,
    /// Where it begins, in Unicode code points from the beginning of the text.
    pub start: usize,
    /// Where it ends: the code point after its last.
    pub end: usize,
    /// What stands there.
    pub text: String,
}

/// A model version.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct ModelVersionName {
    /// Name of the model.
    pub name: String,
    /// Its version.
    pub version: String,
}

/// An arm of an experiment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct ArmAttribution {
    /// The experiment.
    pub name: String,
    /// The arm that the request was given to.
    pub arm: String,
    /// True if that arm failed, and the control answered.
    pub fell_back: bool,
}

/// Puts an answer into its wire form and seals its receipt.
///
/// # Errors
/// [`ApiError`] if an answer names a label that the model does not have, which cannot happen
/// with a model that was checked when it was loaded.
pub fn build_prediction(
    app: &App,
    model: &LoadedVersion,
    answer: &ItemOutput,
    view: ResponseOptions<'_>,
) -> Result<Prediction, ApiError> {
    let labels = view.labels.unwrap_or_else(|| model.pipeline().labels());
    record_prediction(model, answer, view.labels.is_some());
    let missing = || ApiError::new(Code::Internal, "The model's labels do not fit its scores.");
    let label = |index: &usize| labels.get(*index).cloned().ok_or_else(missing);
    let scores = answer.prediction.scores(view.raw_scores);
    let score = |index: &usize| scores.get(*index).copied().ok_or_else(missing);
    let (prediction, confidence, number) = match &answer.prediction.outcome {
        HeadOutcome::Label(index) => (Some(OneOrMany::One(label(index)?)), Some(OneOrMany::One(score(index)?)), None),
        HeadOutcome::Labels(indices) => (
            Some(OneOrMany::Many(indices.iter().map(label).collect::<Result<_, _>>()?)),
            Some(OneOrMany::Many(indices.iter().map(score).collect::<Result<_, _>>()?)),
            None,
        ),
        HeadOutcome::Score(number) => {
            let raw = answer.prediction.raw_scores.first().filter(|_| view.raw_scores);
            (None, None, Some(*raw.unwrap_or(number)))
        }
        HeadOutcome::Entities(_) => (None, None, None),
    };
    let entities = match &answer.prediction.outcome {
        HeadOutcome::Entities(found) => Some(found.iter().cloned().map(FoundEntity::from).collect()),
        _ => None,
    };
    let labelled = prediction.is_some();
    let named = |(index, score): (usize, f32)| Ok::<_, ApiError>(LabelScore { label: label(&index)?, score });
    let best = match view.top_k {
        Some(k) if labelled => Some(top_k(&scores, k).into_iter().map(named).collect::<Result<_, _>>()?),
        _ => None,
    };
    Ok(Prediction {
        prediction_id: seal_receipt(app, model, answer, view),
        experiment: view.route.and_then(|(route, gave)| {
            let (name, arm) = route.arm_names()?;
            Some(ArmAttribution { name: name.to_owned(), arm: arm.to_owned(), fell_back: gave != AnswerSource::Arm })
        }),
        prediction,
        confidence,
        score: number,
        entities,
        probabilities: (view.probabilities && labelled).then_some(scores),
        top: best,
        model: ModelVersionName { name: model.name().to_owned(), version: model.version().to_owned() },
        tokens: answer.tokens,
        truncated: answer.truncated,
    })
}

/// Counts what was answered.
fn record_prediction(model: &LoadedVersion, answer: &ItemOutput, labels_of_request: bool) {
    let metrics = model.metrics();
    let labels = model.pipeline().labels();
    metrics.record_prediction(answer.tokens);
    if let Some(monitor) = model.drift_monitor().filter(|_| !labels_of_request) {
        monitor.record(&answer.prediction, answer.tokens, answer.unknown_tokens);
    }
    let indices: &[usize] = match &answer.prediction.outcome {
        HeadOutcome::Label(index) => std::slice::from_ref(index),
        HeadOutcome::Labels(indices) => indices,
        HeadOutcome::Score(_) => &[],
        HeadOutcome::Entities(found) => {
            for entity in found {
                // An entity has its kind, a label without its `B-` or `I-`: its index is that of the first such label.
                let index =
                    labels.iter().position(|label| *label == entity.label || entity_kind(label) == entity.label);
                metrics.record_label(index.unwrap_or(usize::MAX), &entity.label);
            }
            &[]
        }
    };
    for &index in indices {
        match labels.get(index) {
            _ if labels_of_request => metrics.record_request_label(),
            Some(label) => metrics.record_label(index, label),
            None => {}
        }
    }
    let probabilities = indices.iter().filter_map(|index| answer.prediction.probabilities.get(*index).copied());
    if let Some(confidence) = probabilities.reduce(f32::max) {
        metrics.record_confidence(confidence);
    }
}

/// A label without its `B-` or `I-`.
fn entity_kind(label: &str) -> &str {
    label.split_once('-').map_or(label, |(_, kind)| kind)
}

impl From<Entity> for FoundEntity {
    fn from(entity: Entity) -> Self {
        let Entity { label, score, start, end, text } = entity;
        Self { label, score, start, end, text }
    }
}

fn seal_receipt(app: &App, model: &LoadedVersion, answer: &ItemOutput, view: ResponseOptions<'_>) -> String {
    let (labels, of_labels) = match view.labels {
        Some(labels) => (labels, LabelSource::Request),
        None => (model.pipeline().labels(), LabelSource::Model),
    };
    let (indices, answered): (&[usize], LabelSource) = match &answer.prediction.outcome {
        HeadOutcome::Label(index) => (std::slice::from_ref(index), of_labels),
        HeadOutcome::Labels(indices) => (indices, of_labels),
        HeadOutcome::Score(_) | HeadOutcome::Entities(_) => (&[], LabelSource::NoLabels),
    };
    let confidence = match (&answer.prediction.outcome, indices.first()) {
        (HeadOutcome::Score(score), _) => *score,
        (_, Some(&first)) => answer.prediction.probabilities.get(first).copied().unwrap_or_default(),
        // That none fits is as sure as the likeliest is unlikely.
        (HeadOutcome::Labels(_), None) => 1.0 - answer.prediction.probabilities.iter().copied().fold(0.0, f32::max),
        (_, None) => 0.0,
    };
    app.inference.receipts.sign(&Receipt {
        id: clock::new_id(),
        issued_at: clock::now(),
        model: model.name().to_owned(),
        version: model.version().to_owned(),
        arm_path: view.route.map(|(route, gave)| route.arm_path(gave)).unwrap_or_default(),
        label_source: answered,
        labels: indices.iter().filter_map(|&index| labels.get(index).cloned()).collect(),
        is_truncated: false,
        confidence,
        text_fingerprint: view.text_mark,
    })
}
