//! The texts of a batch: each checked for itself, answered, and shown in its place.

use std::iter::Enumerate;
use std::sync::Arc;

use super::{BatchItem, BatchOptions, BatchRequest, ItemOutcome};
use crate::config::Limits;
use crate::engine::TextError;
use crate::engine::model::Model;
use crate::experiments::receipts::TextMark;
use crate::http::App;
use crate::http::answer::{View, prediction};
use crate::http::arms::{Answered, Route, Terms};
use crate::http::checks;
use crate::http::error::{ApiError, Code};
use crate::http::response_size::ResponseFields;
use crate::text::input::{Input, Pair};

/// What a request says besides its texts.
pub(super) struct Options {
    /// The model.
    pub(super) model: Option<String>,
    /// The version.
    pub(super) version: Option<String>,
    /// Who asks.
    pub(super) user: Option<String>,
    probabilities: bool,
    top_k: Option<usize>,
    raw_scores: bool,
}

impl Options {
    /// What the response shows of each answer.
    pub(super) fn shown(&self) -> ResponseFields<'static> {
        ResponseFields { labels: None, probabilities: self.probabilities, top_k: self.top_k }
    }
}

/// The texts of a request: those that a model can be asked, and what is wrong with the others.
pub(super) struct Texts {
    /// One for each text of the request.
    faults: Vec<Option<ApiError>>,
    /// The texts without a fault, in their order.
    pub(super) good: Vec<Input>,
    place: Place,
}

/// Where texts stand in the body.
#[derive(Debug, Clone, Copy)]
struct Place {
    bare: bool,
}

impl Place {
    /// The pointer of a text, or of its second one.
    fn pointer(self, index: usize, second: bool) -> String {
        match (self.bare, second) {
            (true, _) => format!("/{index}"),
            (false, false) => format!("/texts/{index}"),
            (false, true) => format!("/text_pairs/{index}"),
        }
    }

    /// What is wrong with a text, or else with its second one.
    fn fault(self, index: usize, text: &str, pair: Option<&String>, limits: &Limits) -> Option<ApiError> {
        let first = self.fault_of(index, false, text, limits);
        first.or_else(|| self.fault_of(index, true, pair?, limits))
    }

    fn fault_of(self, index: usize, second: bool, text: &str, limits: &Limits) -> Option<ApiError> {
        let error = checks::check_prediction_text(text, limits).err()?;
        Some(ApiError::at(self.pointer(index, second), error.message.unwrap_or_default()))
    }
}

impl BatchRequest {
    /// The options, and the texts, each checked for itself.
    pub(super) fn into_texts(self, limits: &Limits) -> (Options, Texts) {
        let BatchOptions { texts, text_pairs, model, version, user_id, .. } = self.options;
        let options = Options {
            model,
            version,
            user: user_id,
            probabilities: self.options.return_probabilities,
            top_k: self.options.top_k.map(|k| k as usize),
            raw_scores: self.options.raw_scores,
        };
        let place = Place { bare: self.bare };
        let mut checked = Texts { faults: Vec::with_capacity(texts.len()), good: Vec::new(), place };
        let mut pairs = text_pairs.map(Vec::into_iter);
        for (index, text) in texts.into_iter().enumerate() {
            let pair = pairs.as_mut().and_then(Iterator::next);
            let fault = place.fault(index, &text, pair.as_ref(), limits);
            if fault.is_none() {
                checked.good.push(Input { text, pair: pair.map(|text| Pair { text, whole: false }) });
            }
            checked.faults.push(fault);
        }
        (options, checked)
    }
}

impl Texts {
    /// Bytes of each text; 0 for one that no model is asked.
    pub(super) fn lengths(&self) -> impl Iterator<Item = usize> + Clone {
        let others = self.faults.len() - self.good.len();
        self.good.iter().map(Input::bytes).chain(std::iter::repeat_n(0, others))
    }

    /// Has the good texts answered; what became of each text of the request.
    pub(super) async fn ask(
        self,
        app: &Arc<App>,
        route: &Route,
        terms: Terms,
    ) -> Result<Vec<Result<Answered, ApiError>>, ApiError> {
        let Self { faults, mut good, place } = self;
        let pairs = good.iter().any(|input| input.pair.is_some());
        let shown = route.is_shown(good.iter().map(Input::bytes).sum()).map(|()| good.clone());
        let inputs = |model: &Arc<Model>, last: bool| {
            if pairs {
                checks::takes_pairs(model, "/text_pairs")?;
            }
            Ok(if last { std::mem::take(&mut good) } else { good.clone() })
        };
        let answers = if terms.texts == 0 { Vec::new() } else { route.ask(app, terms, inputs).await? };
        // Part of a batch that came too late is a batch that came too late.
        if answers.iter().any(|answer| matches!(answer, Err(TextError::DeadlineExceeded))) {
            return Err(TextError::DeadlineExceeded.into());
        }
        if let Some(inputs) = shown {
            app.shadows.show_all(app, route, &inputs, &answers);
        }
        let mut answers = answers.into_iter();
        let result = |(index, fault): (usize, Option<ApiError>)| match fault {
            Some(fault) => Err(fault),
            None => answers
                .next()
                .ok_or_else(missing)?
                .map_err(|error| ApiError::of_text(error, |second| place.pointer(index, second))),
        };
        Ok(faults.into_iter().enumerate().map(result).collect())
    }
}

fn missing() -> ApiError {
    ApiError::new(Code::Internal, "The text got no answer.")
}

/// The results of a request, each made when it is written.
pub(super) struct Items {
    /// Counts what is answered, and seals receipts.
    pub(super) app: Arc<App>,
    /// How the version was chosen.
    pub(super) route: Route,
    /// What is shown.
    pub(super) options: Options,
    /// Marks each text as the client sent it.
    pub(super) marks: Vec<Option<TextMark>>,
    /// What became of each text.
    pub(super) results: Enumerate<std::vec::IntoIter<Result<Answered, ApiError>>>,
}

impl Iterator for Items {
    type Item = BatchItem;

    fn next(&mut self) -> Option<BatchItem> {
        let (text_index, result) = self.results.next()?;
        let shown = result.and_then(|Answered { answer, model, gave }| {
            let view = View {
                labels: None,
                probabilities: self.options.probabilities,
                top_k: self.options.top_k,
                raw_scores: self.options.raw_scores,
                text: self.marks.get(text_index).copied().flatten(),
                route: Some((&self.route, gave)),
            };
            prediction(&self.app, &model, &answer, view)
        });
        let outcome = match shown {
            Ok(prediction) => ItemOutcome::Answered(Box::new(prediction)),
            Err(error) => ItemOutcome::Failed { error: Box::new(error.problem(None)) },
        };
        Some(BatchItem { text_index, outcome })
    }
}
