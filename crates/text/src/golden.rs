//! Examples with known answers: a model that does not reproduce them does not serve.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::entities::Entity;
use super::heads::{HeadOutcome, HeadOutput};
use super::input::Input;

/// Largest tolerance: scores that may differ by more say nothing.
const MAX_TOLERANCE: f32 = 1.0;

/// `golden.json`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GoldenSet {
    /// Largest difference of a score that still counts as the same.
    #[serde(default = "default_tolerance")]
    pub tolerance: f32,
    /// The examples.
    pub examples: Vec<GoldenExample>,
}

/// A text with the answer it must get.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GoldenExample {
    /// The text.
    pub text: String,
    /// The second text, for a model that takes pairs.
    pub text_pair: Option<String>,
    /// The label, or the labels of a multi-label model.
    pub label: Option<ExpectedLabels>,
    /// Probabilities of some labels.
    #[serde(default)]
    pub scores: BTreeMap<String, f32>,
    /// The score of a regression model.
    pub score: Option<f32>,
    /// What must be found in the text, for a model that labels tokens.
    pub entities: Option<Vec<ExpectedEntity>>,
}

/// An entity that must be found.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExpectedEntity {
    /// Its kind.
    pub label: String,
    /// First code point.
    pub start: usize,
    /// The code point after its last.
    pub end: usize,
}

/// Expected label or labels.
#[derive(Debug, Clone, Deserialize)]
#[serde(untagged)]
pub enum ExpectedLabels {
    /// Exactly one.
    Single(String),
    /// All of these, in label order.
    Multiple(Vec<String>),
}

impl GoldenSet {
    /// Refuses examples that could not fail.
    ///
    /// # Errors
    /// One sentence.
    pub fn check(&self) -> Result<(), String> {
        if self.examples.is_empty() {
            return Err("it holds no examples".to_owned());
        }
        if !(0.0..=MAX_TOLERANCE).contains(&self.tolerance) {
            return Err(format!("its tolerance {} is not between 0 and {MAX_TOLERANCE}", self.tolerance));
        }
        match self.examples.iter().position(GoldenExample::expects_nothing) {
            Some(index) => Err(format!("example {} expects nothing", index + 1)),
            None => Ok(()),
        }
    }
}

fn default_tolerance() -> f32 {
    1e-3
}

impl GoldenExample {
    fn expects_nothing(&self) -> bool {
        self.label.is_none() && self.scores.is_empty() && self.score.is_none() && self.entities.is_none()
    }

    /// What is asked.
    #[must_use]
    pub fn input(&self) -> Input {
        Input::new(self.text.clone(), self.text_pair.clone())
    }

    /// Compares an answer with the expected one.
    ///
    /// # Errors
    /// One sentence that names the difference. It does not repeat the text.
    pub fn check(&self, decision: &HeadOutput, labels: &[String], tolerance: f32) -> Result<(), String> {
        let name = |&index: &usize| labels.get(index).map_or("", String::as_str);
        let found: Vec<&str> = decision.outcome.label_indices().iter().map(name).collect();
        let expected = match &self.label {
            Some(ExpectedLabels::Single(label)) => Some(std::slice::from_ref(label)),
            Some(ExpectedLabels::Multiple(labels)) => Some(labels.as_slice()),
            None => None,
        };
        if let Some(expected) = expected.filter(|expected| **expected != *found) {
            let expected = if expected.is_empty() { "no label".to_owned() } else { expected.join(" + ") };
            return Err(format!("expected {expected}, got {}", found.join(" + ")));
        }
        for (label, expected) in &self.scores {
            let index =
                labels.iter().position(|l| l == label).ok_or_else(|| format!("the model has no label {label:?}"))?;
            if labels.iter().filter(|other| *other == label).count() > 1 {
                return Err(format!("two labels of the model are called {label:?}: a score cannot tell them apart"));
            }
            check_score(label, *expected, decision.probabilities.get(index).copied().unwrap_or(f32::NAN), tolerance)?;
        }
        match (self.score, &decision.outcome) {
            (Some(expected), HeadOutcome::Score(found)) => check_score("score", expected, *found, tolerance)?,
            (Some(_), _) => return Err("a score is expected, but the model answers with labels".to_owned()),
            (None, _) => {}
        }
        match (&self.entities, &decision.outcome) {
            (Some(expected), HeadOutcome::Entities(found)) => check_entities(expected, found),
            (Some(_), _) => Err("entities are expected, but the model labels whole texts".to_owned()),
            (None, _) => Ok(()),
        }
    }
}

fn check_entities(expected: &[ExpectedEntity], found: &[Entity]) -> Result<(), String> {
    let expected: Vec<_> = expected.iter().map(|entity| (&entity.label, entity.start, entity.end)).collect();
    let found: Vec<_> = found.iter().map(|entity| (&entity.label, entity.start, entity.end)).collect();
    if expected == found { Ok(()) } else { Err(format!("expected the entities {expected:?}, got {found:?}")) }
}

fn check_score(name: &str, expected: f32, found: f32, tolerance: f32) -> Result<(), String> {
    // Written so that NaN is a difference.
    if (expected - found).abs() <= tolerance {
        return Ok(());
    }
    Err(format!("expected {expected:.6} for {name}, got {found:.6}, which differs by more than {tolerance}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(example: &str, outcome: HeadOutcome) -> Result<(), String> {
        let example: GoldenExample = serde_json::from_str(example).unwrap();
        let decision = HeadOutput { outcome, probabilities: vec![0.25, 0.75], raw_scores: vec![] };
        example.check(&decision, &["a".to_owned(), "b".to_owned()], 0.01)
    }

    #[test]
    fn golden_equal_answer_passes() {
        assert_eq!(check(r#"{"text":"t","label":"b","scores":{"b":0.751}}"#, HeadOutcome::Label(1)), Ok(()));
        assert_eq!(check(r#"{"text":"t","label":["a","b"]}"#, HeadOutcome::Labels(vec![0, 1])), Ok(()));
        assert_eq!(check(r#"{"text":"t","score":2.0}"#, HeadOutcome::Score(2.005)), Ok(()));
    }

    #[test]
    fn golden_different_answer_is_named() {
        assert_eq!(check(r#"{"text":"t","label":"a"}"#, HeadOutcome::Label(1)).unwrap_err(), "expected a, got b");
        assert!(
            check(r#"{"text":"t","label":"b","scores":{"b":0.7}}"#, HeadOutcome::Label(1))
                .unwrap_err()
                .contains("0.750000")
        );
        assert!(check(r#"{"text":"t","scores":{"c":0.7}}"#, HeadOutcome::Label(1)).unwrap_err().contains("no label"));
        assert!(check(r#"{"text":"t","score":0.7}"#, HeadOutcome::Label(1)).is_err());
        let example: GoldenExample = serde_json::from_str(r#"{"text":"t","scores":{"a":0.7}}"#).unwrap();
        let decision =
            HeadOutput { outcome: HeadOutcome::Label(1), probabilities: vec![0.25, 0.75], raw_scores: vec![] };
        let reason = example.check(&decision, &["a".to_owned(), "a".to_owned()], 0.01).unwrap_err();
        assert_eq!(reason, "two labels of the model are called \"a\": a score cannot tell them apart");
        assert!(check(r#"{"text":"t","score":0.7}"#, HeadOutcome::Score(f32::NAN)).is_err());
    }
}
