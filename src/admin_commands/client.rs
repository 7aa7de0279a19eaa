//! A client of the admin listener.

use std::fs::File;
use std::path::Path;
use std::time::Duration;

use predictd_api::problem::ProblemDetail;
use predictd_platform::clock;
use predictd_registry::http_client::{install_crypto_provider, root_cause};
use reqwest::blocking::{Client as Http, RequestBuilder, Response};
use reqwest::header::{ETAG, IF_MATCH};
use reqwest::redirect::Policy;
use reqwest::{Method, Url};
use serde::Serialize;
use serde_json::Value;

use super::server_args::ServerArgs;
use crate::ServerError;

/// Longest wait for an answer: a version is loaded and checked meanwhile.
const REQUEST_TIMEOUT: Duration = Duration::from_mins(10);
/// Longest upload of one file.
const UPLOAD_TIMEOUT: Duration = Duration::from_hours(2);

/// The status of a change whose resource is not in the state that the client named.
const PRECONDITION_FAILED: u16 = 412;
/// Most attempts of a change whose resource others change at the same time.
const MAX_ATTEMPTS: usize = 10;

/// A client.
#[derive(Debug)]
pub struct Client {
    http: Http,
    base: Url,
    key: Option<String>,
}

impl Client {
    /// A client of this server.
    ///
    /// # Errors
    /// [`ServerError::Configuration`] in one sentence.
    pub fn new(server: &ServerArgs) -> Result<Self, ServerError> {
        let base = &server.admin_url;
        install_crypto_provider();
        let http = Http::builder()
            .redirect(Policy::none())
            .timeout(REQUEST_TIMEOUT)
            .user_agent(concat!("predictd-models/", env!("CARGO_PKG_VERSION")));
        // unix:PATH is a server on this machine.
        let (http, base) = if base.scheme() == "unix" {
            let here = Url::parse("http://localhost").map_err(|error| ServerError::Configuration(error.to_string()))?;
            (http.unix_socket(base.path()), here)
        } else {
            (http, base.clone())
        };
        Ok(Self {
            http: http.build().map_err(|error| ServerError::Configuration(error.to_string()))?,
            base,
            key: server.api_key.clone().filter(|key| !key.is_empty()),
        })
    }

    /// What is there.
    ///
    /// # Errors
    /// What the server says, or why it does not.
    pub fn get(&self, path: &str) -> Result<Value, String> {
        json(self.send(&self.request(Method::GET, path))?)
    }

    /// Something new.
    ///
    /// # Errors
    /// What the server says, or why it does not.
    pub fn post(&self, path: &str, body: &impl Serialize) -> Result<Value, String> {
        json(self.send_change(self.request(Method::POST, path).json(body))?)
    }

    /// Changes the resource at `seen` from its current state. If that changes between read and write, reads it again:
    /// the operator has not seen either state.
    ///
    /// # Errors
    /// The server's reason, or why there is no answer.
    pub fn change(&self, seen: &str, request: &RequestBuilder) -> Result<Value, String> {
        let mut attempts = 1;
        loop {
            let current = self.send(&self.request(Method::GET, seen))?;
            if !current.status().is_success() {
                return json(current);
            }
            let tag = current.headers().get(ETAG).cloned().ok_or("the server does not say which state this is")?;
            let changed = self.send_change(copy(request)?.header(IF_MATCH, tag))?;
            if changed.status().as_u16() != PRECONDITION_FAILED || attempts == MAX_ATTEMPTS {
                return json(changed);
            }
            attempts += 1;
        }
    }

    /// Does `action` to the resource, as [`Self::change`] changes it.
    ///
    /// # Errors
    /// The server's reason, or why there is no answer.
    pub fn act(&self, resource: &str, action: &str, body: &impl Serialize) -> Result<Value, String> {
        self.change(resource, &self.request(Method::POST, &format!("{resource}/{action}")).json(body))
    }

    /// Removes `path`, as [`Self::change`] changes it.
    ///
    /// # Errors
    /// The server's reason, or why there is no answer.
    pub fn delete(&self, seen: &str, path: &str) -> Result<Value, String> {
        self.change(seen, &self.request(Method::DELETE, path))
    }

    /// Something that is there from now on, or is so from now on.
    ///
    /// # Errors
    /// What the server says, or why it does not.
    pub fn put(&self, path: &str, body: &impl Serialize) -> Result<Value, String> {
        let seen = self.send(&self.request(Method::GET, path))?;
        let request = self.request(Method::PUT, path).json(body);
        let request = match (seen.status().as_u16(), seen.headers().get(ETAG).cloned()) {
            (404, _) => request,
            (200, Some(tag)) => request.header(IF_MATCH, tag),
            _ => return json(seen),
        };
        json(self.send_change(request)?)
    }

    fn send_change(&self, request: RequestBuilder) -> Result<Response, String> {
        self.send(&request.header("Idempotency-Key", clock::new_id().to_string()))
    }

    /// Sends a file, if the server does not have it.
    ///
    /// # Errors
    /// What the server says, or why it does not.
    pub fn upload(&self, sha256: &str, path: &Path) -> Result<(), String> {
        let stored_path = format!("/admin/store/{sha256}");
        if self.send(&self.request(Method::GET, &stored_path))?.status().is_success() {
            return Ok(());
        }
        let named = |error: String| format!("{}: {error}", path.display());
        let file = File::open(path).map_err(|error| named(error.to_string()))?;
        let request = self.request(Method::PUT, &stored_path).timeout(UPLOAD_TIMEOUT);
        let answer = request.body(file).send().map_err(|error| named(root_cause(&error)))?;
        json(answer).map(drop).map_err(named)
    }

    /// A request of this server.
    pub fn request(&self, method: Method, path: &str) -> RequestBuilder {
        // The server may be behind a path of a proxy.
        let mut url = self.base.clone();
        let (path, query) = path.split_once('?').map_or((path, None), |(path, query)| (path, Some(query)));
        url.set_path(&format!("{}{path}", self.base.path().trim_end_matches('/')));
        url.set_query(query);
        let request = self.http.request(method, url);
        if let Some(key) = &self.key { request.bearer_auth(key) } else { request }
    }

    /// Sends a request, and once more if no answer came: it is done once even so.
    fn send(&self, request: &RequestBuilder) -> Result<Response, String> {
        let outcome = send_once(request).or_else(|_| send_once(request));
        outcome.map_err(|error| format!("{}: {error}", self.base.host_str().unwrap_or_default()))
    }
}

fn copy(request: &RequestBuilder) -> Result<RequestBuilder, String> {
    request.try_clone().ok_or_else(|| "the request cannot be sent twice".to_owned())
}

fn send_once(request: &RequestBuilder) -> Result<Response, String> {
    copy(request)?.send().map_err(|error| root_cause(&error))
}

/// The JSON of an answer; an error if it is one.
fn json(answer: Response) -> Result<Value, String> {
    let status = answer.status();
    let body = answer.bytes().map_err(|error| root_cause(&error))?;
    if status.is_success() {
        return Ok(serde_json::from_slice(&body).unwrap_or_default());
    }
    let problem = serde_json::from_slice::<ProblemDetail>(&body);
    Err(problem.map_or_else(|_| format!("the server answered with {status}"), |problem| problem.detail))
}
