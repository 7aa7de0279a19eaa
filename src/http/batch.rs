//! `POST /batch_predict`: many texts, an answer each, in their order.

use std::iter::Enumerate;
use std::sync::Arc;

use axum::Extension;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use validator::{Validate, ValidateArgs, ValidationError};

use super::App;
use super::answer::{Prediction, View, prediction};
use super::arms::{Answered, Route, Terms, Wanted};
use super::body::{Checked, RequestBody};
use super::cache_control::CacheControl;
use super::checks;
use super::deadline::Deadline;
use super::error::{ApiError, Code, FieldError, Problem};
use super::json;
use super::rate_limit;
use super::response_size::{ResponseSize, Shown};
use super::response_stream::Results;
use super::story::Story;
use super::user::Asking;
use crate::config::Limits;
use crate::engine::TextError;
use crate::engine::model::Model;
use crate::text::input::{Input, Pair};

/// Texts, and what to say about them.
#[derive(Debug, Deserialize, Validate, ToSchema)]
#[serde(deny_unknown_fields)]
#[validate(context = Limits)]
pub struct BatchOptions {
    /// The texts, at most `--max-batch-texts`.
    #[schema(value_type = Vec<BatchText>, min_items = 1, max_items = 1024)]
    #[validate(custom(function = "check_number", use_context))]
    pub texts: Vec<String>,
    /// The second text of each, for a model that judges two; as many as there are texts.
    #[schema(value_type = Option<Vec<BatchText>>, nullable = false, min_items = 1, max_items = 1024)]
    #[validate(custom(function = "check_number", use_context))]
    pub text_pairs: Option<Vec<String>>,
    /// Answer with one score per label.
    #[serde(default)]
    pub return_probabilities: bool,
    /// Answer with the best labels, this many.
    #[serde(default, deserialize_with = "json::whole_number")]
    #[schema(minimum = 1, maximum = 1000)]
    #[validate(range(min = 1, max = 1000, message = "top_k must be between 1 and 1000"))]
    pub top_k: Option<u32>,
    /// Model that shall answer; the default model if not said.
    #[schema(max_length = 64, pattern = "^[a-z0-9]([.]?[a-z0-9_-])*[.]?$")]
    #[validate(custom(function = "check_name"))]
    pub model: Option<String>,
    /// Version that shall answer; the active one if not said.
    #[schema(max_length = 64, pattern = "^[a-z0-9]([.]?[a-z0-9_-])*[.]?$")]
    #[validate(custom(function = "check_name"))]
    pub version: Option<String>,
    /// Who asks: an experiment answers one user always with the same version. Or the header X-User-Id.
    #[schema(min_length = 1, max_length = 256)]
    #[validate(length(min = 1, max = 256, message = "user_id must have 1 to 256 characters"))]
    pub user_id: Option<String>,
    /// Answer with the model's own scores instead of probabilities.
    #[serde(default)]
    pub raw_scores: bool,
}

/// A bare list of texts, or an object with options. The bare list is answered with probabilities.
// Only for the description: what is read is a `BatchRequest`, whose errors say more.
#[derive(Debug, Deserialize, ToSchema)]
#[schema(as = BatchRequest)]
#[serde(untagged)]
#[expect(dead_code, reason = "only described")]
enum BatchForms {
    /// Only texts.
    List(TextList),
    /// Texts with options.
    Object(BatchOptions),
}

/// Texts without options.
#[derive(Debug, Deserialize, ToSchema)]
#[schema(min_items = 1, max_items = 1024)]
#[expect(dead_code, reason = "only described")]
struct TextList(Vec<BatchText>);

/// A text of a batch. One that cannot be answered, such as a blank or a too long one, has an error in its place.
#[derive(Debug, Deserialize, ToSchema)]
#[schema(example = "My new card has not come yet, where is it?", max_length = 2_097_152)]
#[expect(dead_code, reason = "only described")]
struct BatchText(String);

/// A text. At most `--max-text-chars` characters, not blank, and without control characters other than tab and the ends
/// of lines unless `--markup` or the model says otherwise.
#[derive(Debug, Deserialize, ToSchema)]
#[schema(
    example = "My new card has not come yet, where is it?",
    min_length = 1,
    max_length = 32768,
    pattern = r"^[^\u0000-\u0008\u000B\u000C\u000E-\u001F\u007F-\u009F]*[^\s\u0000-\u0008\u000E-\u001F\u007F-\u009F][^\u0000-\u0008\u000B\u000C\u000E-\u001F\u007F-\u009F]*$"
)]
#[expect(dead_code, reason = "only described")]
pub(super) struct Text(String);

/// A batch in either form.
#[derive(Debug)]
pub struct BatchRequest {
    options: BatchOptions,
    bare: bool,
}

fn check_number(texts: &[String], limits: &Limits) -> Result<(), ValidationError> {
    checks::check_number(texts.len(), limits)
}

fn check_name(name: &str) -> Result<(), ValidationError> {
    checks::check_name(name)
}

impl RequestBody for BatchRequest {
    fn parse(bytes: &[u8]) -> Result<Self, ApiError> {
        if !json::is_list(bytes) {
            return Ok(Self { options: json::from_json(bytes)?, bare: false });
        }
        let options = BatchOptions {
            texts: json::from_json(bytes)?,
            text_pairs: None,
            return_probabilities: true,
            top_k: None,
            model: None,
            version: None,
            user_id: None,
            raw_scores: false,
        };
        Ok(Self { options, bare: true })
    }

    fn check(&self, limits: &Limits) -> Result<(), ApiError> {
        let Err(errors) = self.options.validate_with_args(limits) else { return self.check_pairs() };
        let error = checks::invalid(&errors);
        if !self.bare {
            return Err(error);
        }
        // A bare list has no field `texts`.
        let unnamed =
            |error: FieldError| FieldError { pointer: error.pointer.trim_start_matches("/texts").to_owned(), ..error };
        Err(ApiError::invalid(error.errors.into_iter().map(unnamed).collect()))
    }
}

impl BatchRequest {
    /// A second text for each, or for none.
    fn check_pairs(&self) -> Result<(), ApiError> {
        let (texts, pairs) = (self.options.texts.len(), self.options.text_pairs.as_ref().map(Vec::len));
        match pairs.filter(|&pairs| pairs != texts) {
            Some(pairs) => {
                Err(ApiError::at("/text_pairs", format!("there are {pairs} second texts for {texts} texts")))
            }
            None => Ok(()),
        }
    }
}

/// The answers, in the order of the texts.
#[derive(Debug, Serialize, ToSchema)]
pub struct BatchAnswer {
    /// One per text.
    pub results: Vec<BatchItem>,
}

/// The answer to one text of a batch, or why there is none.
#[derive(Debug, Serialize, ToSchema)]
pub struct BatchItem {
    /// Place of the text in the request, from 0.
    pub text_index: usize,
    /// The answer, or the error of this text.
    #[serde(flatten)]
    pub outcome: ItemOutcome,
}

/// What became of one text.
#[derive(Debug, Serialize, ToSchema)]
#[serde(untagged)]
pub enum ItemOutcome {
    /// It was answered.
    Answered(Box<Prediction>),
    /// It could not be answered; the other texts are not concerned.
    Failed {
        /// Why.
        error: Box<Problem>,
    },
}

/// Answer many texts.
///
/// A text that was answered before may get that answer again; with `Cache-Control: no-cache` the model is run in any
/// case, and with `no-store` the answer is not kept either.
#[utoipa::path(
    post,
    path = "/batch_predict",
    tag = "predictions",
    request_body = BatchForms,
    params(
        ("X-Request-Timeout-Ms" = Option<u64>, Header, nullable = false, format = "uint64", minimum = 1, maximum = 18_446_744_073_709_551_615_usize, description = "Time for the answer, in milliseconds; at most --max-timeout"),
        ("X-User-Id" = Option<String>, Header, nullable = false, min_length = 1, max_length = 256, description = "Who asks, as user_id: an experiment answers one user always with the same version")
    ),
    responses(
        (status = 200, body = BatchAnswer, description = "One result per text; a text that could not be answered has an error in its place"),
        (status = 400, body = Problem, content_type = "application/problem+json", description = "Not JSON, cut short, or a header without a valid value"),
        (status = 404, body = Problem, content_type = "application/problem+json", description = "No such model or version"),
        (status = 413, body = Problem, content_type = "application/problem+json", description = "Body over --max-body"),
        (status = 415, body = Problem, content_type = "application/problem+json", description = "Not JSON in UTF-8"),
        (status = 422, body = Problem, content_type = "application/problem+json", description = "A field is missing, unknown or out of its limits"),
        (status = 503, body = Problem, content_type = "application/problem+json", description = "Overloaded, or the model is not ready"),
        (status = 504, body = Problem, content_type = "application/problem+json", description = "Out of time"),
    )
)]
pub async fn batch_predict(
    State(app): State<Arc<App>>,
    Deadline(deadline): Deadline,
    CacheControl(cache): CacheControl,
    Asking(caller, header): Asking,
    Checked(request, _memory): Checked<BatchRequest>,
) -> Result<Response, ApiError> {
    rate_limit::take_rest(&app, &caller, request.options.texts.len())?;
    let (options, texts) = request.into_texts(&app.limits);
    let user = header.or(options.user.clone())?;
    let wanted = Wanted { model: options.model.as_deref(), version: options.version.as_deref(), user: user.as_deref() };
    let route = Route::of(&app.registry.snapshot(), wanted)?;
    let size = ResponseSize::of(&route, texts.lengths(), options.shown());
    let reserved = app.responses.reserve(size.memory, deadline).await?;
    let terms = Terms { texts: texts.good.len(), deadline, cache, whole: false };
    let results = texts.ask(&app, &route, terms).await?;
    let story = story(&route, &results);
    let items = Items { app, route, options, results: results.into_iter().enumerate() };
    let response = Results::new(items).respond(size.json)?;
    Ok((story.map(Extension), reserved.map(Extension), response).into_response())
}

/// What is logged of a request.
fn story(route: &Route, results: &[Result<Answered, ApiError>]) -> Option<Story> {
    let answered = results.iter().flatten();
    let first = answered.clone().next()?;
    let story = Story::of(&first.model, answered.map(|answered| &answered.answer));
    Some(Story { arm: route.arm_for_log(), ..story })
}

/// What a request says besides its texts.
struct Options {
    model: Option<String>,
    version: Option<String>,
    user: Option<String>,
    probabilities: bool,
    top_k: Option<usize>,
    raw_scores: bool,
}

impl Options {
    fn shown(&self) -> Shown<'static> {
        Shown { labels: None, probabilities: self.probabilities, top_k: self.top_k }
    }
}

/// The texts of a request: those that a model can be asked, and what is wrong with the others.
struct Texts {
    /// One for each text of the request.
    faults: Vec<Option<ApiError>>,
    /// The texts without a fault, in their order.
    good: Vec<Input>,
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

    /// What is wrong with a text, or with its second one.
    fn fault(self, index: usize, text: &str, pair: Option<&String>, limits: &Limits) -> Option<ApiError> {
        let fault = |text: &str, second: bool| {
            let error = checks::check_prediction_text(text, limits).err()?;
            Some(ApiError::at(self.pointer(index, second), error.message.unwrap_or_default()))
        };
        fault(text, false).or_else(|| fault(pair?, true))
    }
}

impl BatchRequest {
    /// The options, and the texts, each checked for itself.
    fn into_texts(self, limits: &Limits) -> (Options, Texts) {
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
    fn lengths(&self) -> impl Iterator<Item = usize> + Clone {
        let others = self.faults.len() - self.good.len();
        self.good.iter().map(Input::bytes).chain(std::iter::repeat_n(0, others))
    }

    /// Has the good texts answered; what became of each text of the request.
    async fn ask(
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
struct Items {
    app: Arc<App>,
    route: Route,
    options: Options,
    results: Enumerate<std::vec::IntoIter<Result<Answered, ApiError>>>,
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
