//! Whether answers have the labels that they must have.

use predictd::api::predictions::{BatchAnswer, ItemOutcome, OneOrMany, Prediction};

/// True if this is the only label of the answer.
pub(crate) fn has_label(answer: &Prediction, label: &str) -> bool {
    matches!(&answer.prediction, Some(OneOrMany::One(given)) if given == label)
}

/// True if the items have these labels, in this order.
pub(crate) fn has_labels(batch: &BatchAnswer, labels: &[String]) -> bool {
    let mut items = batch.results.iter().zip(labels);
    batch.results.len() == labels.len()
        && items.all(|(item, label)| matches!(&item.outcome, ItemOutcome::Answered(answer) if has_label(answer, label)))
}
