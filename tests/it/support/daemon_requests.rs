//! Requests to a server process on connections of their own, and its answers as the wire types have them.

use std::net::SocketAddr;

use predictd::api::feedback::{ExportedFeedback, FeedbackPage};
use predictd::api::health::HealthReport;
use predictd::api::predictions::Prediction;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::support::daemon::Daemon;
use crate::support::raw_client::{RawClient, RawResponse, get, request};

/// What is answered with 200 to a `GET`.
#[track_caller]
pub(crate) fn get_ok<T: DeserializeOwned>(address: SocketAddr, path: &str) -> T {
    RawClient::connect(address).request(get(path)).ok()
}

/// The answer to a body that is posted.
pub(crate) fn post(address: SocketAddr, path: &str, body: &Value) -> RawResponse {
    RawClient::connect(address).request(request("POST", path, "", &body.to_string()))
}

/// What is answered with 200 to a body that is posted.
#[track_caller]
pub(crate) fn post_ok<T: DeserializeOwned>(address: SocketAddr, path: &str, body: &Value) -> T {
    post(address, path, body).ok()
}

impl Daemon {
    /// The answer to a text.
    #[track_caller]
    pub fn predict(&self, text: &str) -> Prediction {
        post_ok(self.address, "/predict", &json!({ "text": text }))
    }
}

/// The status of an error, and the first place in the body that it names.
#[track_caller]
pub(crate) fn status_and_pointer(answer: &RawResponse) -> (u16, String) {
    (answer.status, answer.problem().errors.swap_remove(0).pointer)
}

/// The version of the default model that answers.
pub(crate) fn answering_version(daemon: &Daemon) -> String {
    daemon.predict("hello").model.version
}

/// The arm of the experiment that chose the version, if one did.
pub(crate) fn arm(answer: &Prediction) -> Option<&str> {
    Some(answer.experiment.as_ref()?.arm.as_str())
}

/// True if the arm failed and the control answered; an experiment must have chosen the version.
#[track_caller]
pub(crate) fn fell_back(answer: &Prediction) -> bool {
    answer.experiment.as_ref().unwrap_or_else(|| panic!("no experiment: {answer:?}")).fell_back
}

/// What `/health` says of the registry.
pub(crate) fn registry_state(daemon: &Daemon) -> String {
    get_ok::<HealthReport>(daemon.address, "/health").registry.unwrap()
}

/// All feedback that a server knows.
pub(crate) fn stored_feedback(daemon: &Daemon) -> Vec<ExportedFeedback> {
    get_ok::<FeedbackPage>(daemon.admin, "/admin/feedback").feedback
}

/// All metrics of a server.
pub(crate) fn scrape_metrics(daemon: &Daemon) -> String {
    let answer = RawClient::connect(daemon.admin).request(get("/metrics"));
    assert_eq!(answer.status, 200, "{answer:?}");
    answer.body
}
