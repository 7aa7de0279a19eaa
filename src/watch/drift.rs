//! What a server says of drift and of its accuracy, and what of that is news.

use std::collections::BTreeMap;
use std::time::Duration;

use reqwest::{Client, Url};
use serde::{Deserialize, Serialize};

use crate::client::{reason, whole};

/// Most bytes of an answer that are read: a thousand windows.
const MOST_BYTES: usize = 4 << 20;

/// The signal of what is told of an accuracy.
const ACCURACY: &str = "accuracy";

/// A signal of a model version that says that something is not as it was.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Finding {
    /// Name of the model.
    pub model: String,
    /// The version.
    pub version: String,
    /// `labels`, `confidence`, `lengths` or `unknown`; or `accuracy`.
    pub signal: String,
    /// How far live texts are from the profile; or the accuracy.
    pub value: Option<f64>,
    /// From where on they drift; or the accuracy that was expected.
    pub threshold: Option<f64>,
}

impl Finding {
    /// True for an accuracy that has dropped, and not a signal that drifts.
    #[must_use]
    pub fn is_accuracy(&self) -> bool {
        self.signal == ACCURACY
    }

    /// Names it among those of a server.
    #[must_use]
    pub fn key(&self) -> String {
        format!("{}/{} {}", self.model, self.version, self.signal)
    }
}

/// What a server tells at `/admin/drift`, as far as it matters here.
#[derive(Debug, Deserialize)]
pub struct Said {
    versions: Vec<VersionSaid>,
}

#[derive(Debug, Deserialize)]
struct VersionSaid {
    model: String,
    version: String,
    state: String,
    drift: Option<Compared>,
    accuracy: Option<AccuracySaid>,
}

#[derive(Debug, Deserialize)]
struct Compared {
    signals: Vec<SignalSaid>,
}

#[derive(Debug, Deserialize)]
struct SignalSaid {
    signal: String,
    level: String,
    window: Option<u64>,
    value: Option<f64>,
    threshold: Option<f64>,
}

#[derive(Debug, Deserialize)]
struct AccuracySaid {
    accuracy: Option<f64>,
    expected: Option<f64>,
    dropped: bool,
}

/// Asks a server how its versions stand.
///
/// # Errors
/// One sentence.
pub async fn ask(client: &Client, url: &Url, key: Option<&str>, timeout: Duration) -> Result<Said, String> {
    let asked = async {
        let request = client.get(url.clone());
        let request = if let Some(key) = key { request.bearer_auth(key) } else { request };
        let answer = request.send().await.map_err(|error| reason(&error))?;
        let status = answer.status();
        let body = whole(answer, MOST_BYTES).await?;
        if !status.is_success() {
            return Err(format!("it answered with {}", status.as_u16()));
        }
        serde_json::from_slice(&body).map_err(|_| "its answer is not that of /admin/drift".to_owned())
    };
    let late = || Err(format!("no answer within {}", humantime::format_duration(timeout)));
    tokio::time::timeout(timeout, asked).await.unwrap_or_else(|_| late())
}

impl Said {
    /// What is known of each signal: that it says something, or that it says nothing.
    fn signals(self) -> impl Iterator<Item = (Finding, bool)> {
        self.versions.into_iter().filter(|version| version.state == "ready").flat_map(|version| {
            let VersionSaid { model, version, drift, accuracy, .. } = version;
            let finding = move |signal: String, value, threshold| Finding {
                model: model.clone(),
                version: version.clone(),
                signal,
                value,
                threshold,
            };
            let accuracy = accuracy.filter(|accuracy| accuracy.accuracy.is_some() && accuracy.expected.is_some());
            // A server that was started anew has judged nothing yet: it does not say that all is well.
            let signals = drift.into_iter().flat_map(|drift| drift.signals).filter(|signal| signal.window.is_some());
            let signals =
                signals.map(|signal| (signal.signal, signal.value, signal.threshold, signal.level == "drifting"));
            let accuracy = accuracy.map(|now| (ACCURACY.to_owned(), now.accuracy, now.expected, now.dropped));
            let all: Vec<_> = signals.chain(accuracy).collect();
            all.into_iter().map(move |(signal, value, threshold, is_on)| (finding(signal, value, threshold), is_on))
        })
    }

    /// Takes into account what was known, and changes it: what begins (`true`) or is over, in the order of the server.
    ///
    /// A version that is not there any more has nothing that goes on. One that is being loaded says nothing yet.
    pub fn news(self, known: &mut BTreeMap<String, Finding>) -> Vec<(Finding, bool)> {
        let there: Vec<String> =
            self.versions.iter().map(|version| format!("{}/{} ", version.model, version.version)).collect();
        let is_there = |key: &str| there.iter().any(|version| key.starts_with(version));
        let gone: Vec<String> = known.keys().filter(|key| !is_there(key)).cloned().collect();
        let mut news: Vec<(Finding, bool)> = gone.iter().filter_map(|key| Some((known.remove(key)?, false))).collect();
        for (finding, is_on) in self.signals() {
            let key = finding.key();
            let was_on = known.contains_key(&key);
            if is_on {
                known.insert(key, finding.clone());
            } else {
                known.remove(&key);
            }
            if is_on != was_on {
                news.push((finding, is_on));
            }
        }
        news
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn version(name: &str, state: &str, level: &str, window: Option<u64>, dropped: Option<bool>) -> Value {
        let signal = json!({ "signal": "labels", "level": level, "window": window, "value": 0.5, "threshold": 0.3 });
        let accuracy = dropped.map(|dropped| json!({ "accuracy": 0.5, "expected": 0.9, "dropped": dropped }));
        json!({ "model": "m", "version": name, "state": state, "drift": { "signals": [signal] }, "accuracy": accuracy })
    }

    /// What is told in turn: `+` before what begins, `-` before what is over.
    fn told(said: Vec<Vec<Value>>) -> Vec<String> {
        let mut known = BTreeMap::new();
        let one = |versions: Vec<Value>| {
            let said: Said = serde_json::from_value(json!({ "versions": versions })).unwrap();
            let news = said.news(&mut known);
            let news = news.iter().map(|(finding, on)| format!("{}{}", if *on { "+" } else { "-" }, finding.key()));
            news.collect::<Vec<_>>().join(", ")
        };
        said.into_iter().map(one).collect()
    }

    #[test]
    fn each_change_is_told_once() {
        let found = told(vec![
            vec![version("1", "ready", "quiet", None, None)],
            vec![version("1", "ready", "drifting", Some(1), Some(false))],
            vec![version("1", "ready", "drifting", Some(2), Some(true))],
            vec![version("1", "ready", "quiet", Some(3), Some(true))],
            vec![version("1", "ready", "quiet", Some(4), Some(false))],
        ]);
        assert_eq!(found, ["", "+m/1 labels", "+m/1 accuracy", "-m/1 labels", "-m/1 accuracy"]);
    }

    #[test]
    fn a_server_that_starts_anew_ends_nothing_and_a_version_that_is_gone_does() {
        let found = told(vec![
            vec![
                version("1", "ready", "drifting", Some(1), Some(true)),
                version("10", "ready", "quiet", Some(1), None),
            ],
            vec![version("1", "loading", "quiet", None, None)],
            vec![version("1", "ready", "quiet", None, None)],
            vec![version("1", "ready", "drifting", Some(1), None)],
            vec![version("10", "ready", "drifting", Some(1), None)],
            vec![],
        ]);
        assert_eq!(
            found,
            ["+m/1 labels, +m/1 accuracy", "", "", "", "-m/1 accuracy, -m/1 labels, +m/10 labels", "-m/10 labels"]
        );
    }
}
