//! What a server says of drift and of its accuracy, and what of that is news.

use std::collections::BTreeMap;
use std::time::Duration;

use predictd_api::drift::{AccuracyView, DriftReportView, SignalView, VersionDriftView};
use predictd_registry::http_client::{read_body, root_cause};
use reqwest::{Client, Url};
use serde::{Deserialize, Serialize};

/// Most bytes of an answer that are read: a thousand windows.
const MAX_RESPONSE_BYTES: usize = 4 << 20;

/// The signal of alerts about an accuracy.
const ACCURACY_SIGNAL: &str = "accuracy";

/// Findings that last, by [`Finding::key`].
pub type ActiveFindings = BTreeMap<String, ActiveFinding>;

/// A finding that lasts, as it was reported.
#[derive(Debug, Serialize, Deserialize)]
pub struct ActiveFinding {
    /// As it was reported.
    #[serde(flatten)]
    pub finding: Finding,
    /// The version was not there at the last look.
    #[serde(default)]
    pub absent: bool,
}

/// What becomes of a finding.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FindingChange {
    /// It was not known before.
    Started,
    /// It is not so any more.
    Ended,
    /// Its version is not served any more.
    Removed,
}

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
        self.signal == ACCURACY_SIGNAL
    }

    /// Names it among those of a server.
    #[must_use]
    pub fn key(&self) -> String {
        format!("{}/{} {}", self.model, self.version, self.signal)
    }
}

/// Asks a server how its versions stand.
///
/// # Errors
/// One sentence.
pub async fn fetch_drift(
    client: &Client,
    url: &Url,
    key: Option<&str>,
    timeout: Duration,
) -> Result<DriftReportView, String> {
    let response = async {
        let request = client.get(without_windows(url));
        let request = if let Some(key) = key { request.bearer_auth(key) } else { request };
        let answer = request.send().await.map_err(|error| root_cause(&error))?;
        let status = answer.status();
        let body = read_body(answer, MAX_RESPONSE_BYTES).await?;
        if !status.is_success() {
            return Err(format!("it answered with {}", status.as_u16()));
        }
        serde_json::from_slice(&body).map_err(|_| "its answer is not that of /admin/drift".to_owned())
    };
    tokio::time::timeout(timeout, response)
        .await
        .unwrap_or_else(|_| Err(format!("no answer within {}", humantime::format_duration(timeout))))
}

/// What is asked: the windows do not matter here, and are most of an answer.
fn without_windows(url: &Url) -> Url {
    let mut url = url.clone();
    if url.query_pairs().all(|(name, _)| name != "windows") {
        url.query_pairs_mut().append_pair("windows", "0");
    }
    url
}

fn is_version_of(version: &VersionDriftView, finding: &Finding) -> bool {
    version.model == finding.model && version.version == finding.version
}

fn new_finding(version: &VersionDriftView, signal: &str, value: Option<f64>, threshold: Option<f64>) -> Finding {
    Finding {
        model: version.model.clone(),
        version: version.version.clone(),
        signal: signal.to_owned(),
        value,
        threshold,
    }
}

/// Whether the accuracy of a version has dropped, if that is known.
fn accuracy_finding(version: &VersionDriftView) -> Option<(Finding, bool)> {
    let AccuracyView { accuracy, expected, dropped, .. } = *version.accuracy.as_ref()?;
    // Where nothing is expected any more, nothing has dropped.
    let is_on = if expected.is_some() { dropped? } else { false };
    Some((new_finding(version, ACCURACY_SIGNAL, accuracy, expected), is_on))
}

/// True if this version is in the report, whatever its state.
#[must_use]
pub fn has_version(report: &DriftReportView, finding: &Finding) -> bool {
    report.versions.iter().any(|version| is_version_of(version, finding))
}

fn ready_versions(report: &DriftReportView) -> impl Iterator<Item = &VersionDriftView> {
    report.versions.iter().filter(|version| version.state == "ready")
}

/// Changes of the drift findings of one server against `active`, which it updates. In the order of the server.
///
/// A version that is being loaded says nothing yet, and neither does a signal that has judged no window.
pub fn drift_changes(report: &DriftReportView, active: &mut ActiveFindings) -> Vec<(Finding, FindingChange)> {
    let mut found = Vec::new();
    for version in ready_versions(report) {
        let signals = version.drift.iter().flat_map(|drift| &drift.signals);
        let counted: Vec<&SignalView> = signals.filter(|signal| signal.needed.is_some()).collect();
        // A restarted server has judged nothing yet: it does not say that all is well.
        for signal in counted.iter().filter(|signal| signal.window.is_some()) {
            let value = signal.distance.map(|distance| distance.value);
            let threshold = signal.distance.map(|distance| distance.threshold);
            found.push((new_finding(version, &signal.signal, value, threshold), signal.level == "drifting"));
        }
        // What is not counted any more does not drift.
        let signals = active.values().map(|one| &one.finding).filter(|finding| is_version_of(version, finding));
        let ended = signals.filter(|finding| counted.iter().all(|signal| signal.signal != finding.signal));
        found.extend(ended.map(|finding| (new_finding(version, &finding.signal, None, None), false)));
    }
    apply_findings(found, |finding| has_version(report, finding), active)
}

/// Changes of the accuracy findings against `active`, which it updates. Replicas read one database: a finding of one of them
/// counts for all, and is over when no replica has it any more.
pub fn accuracy_changes(responses: &[&DriftReportView], active: &mut ActiveFindings) -> Vec<(Finding, FindingChange)> {
    let mut found: Vec<(Finding, bool)> = Vec::new();
    for (finding, is_on) in responses.iter().copied().flat_map(ready_versions).filter_map(accuracy_finding) {
        match found.iter_mut().find(|(one, _)| one.key() == finding.key()) {
            Some(one) if is_on && !one.1 => *one = (finding, is_on),
            Some(_) => {}
            None => found.push((finding, is_on)),
        }
    }
    apply_findings(found, |finding| responses.iter().any(|response| has_version(response, finding)), active)
}

/// Takes what is said into account. A version counts as gone once it is absent twice in a row.
fn apply_findings(
    found: Vec<(Finding, bool)>,
    is_there: impl Fn(&Finding) -> bool,
    active: &mut ActiveFindings,
) -> Vec<(Finding, FindingChange)> {
    let mut changes = Vec::new();
    active.retain(|_, ActiveFinding { finding, absent }| {
        let is_absent = !is_there(finding);
        let is_gone = std::mem::replace(absent, is_absent) && is_absent;
        if is_gone {
            changes.push((Finding { value: None, threshold: None, ..finding.clone() }, FindingChange::Removed));
        }
        !is_gone
    });
    for (finding, is_on) in found {
        let before = if is_on {
            active.insert(finding.key(), ActiveFinding { finding: finding.clone(), absent: false })
        } else {
            active.remove(&finding.key())
        };
        if is_on != before.is_some() {
            changes.push((finding, if is_on { FindingChange::Started } else { FindingChange::Ended }));
        }
    }
    changes
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn version(name: &str, state: &str, level: &str, window: Option<u64>, dropped: Option<bool>) -> Value {
        let distance = json!({ "value": 0.5, "threshold": 0.3, "clear_below": 0.2, "psi": 0.5, "js": 0.1 });
        let mut signal = json!({ "signal": "labels", "level": level, "needed": 100, "window": window });
        signal.as_object_mut().unwrap().extend(distance.as_object().unwrap().clone());
        let profile = json!({ "model": "m", "version": name, "made": "", "texts": 1_000 });
        let drift = json!({ "profile": profile, "window_texts": 100, "needed": 100, "open_texts": 0, "signals": [signal], "windows": [] });
        let accuracy = json!({ "accuracy": 0.5, "labelled": 100, "expected": 0.9, "dropped": dropped });
        json!({ "model": "m", "version": name, "state": state, "drift": drift, "accuracy": accuracy })
    }

    fn response(versions: &[Value]) -> DriftReportView {
        serde_json::from_value(json!({ "versions": versions })).unwrap()
    }

    fn change_sign(change: FindingChange) -> char {
        match change {
            FindingChange::Started => '+',
            FindingChange::Ended => '-',
            FindingChange::Removed => 'x',
        }
    }

    /// `+` before what begins, `-` before what is over, `x` before what is gone.
    fn fmt_changes(news: &[(Finding, FindingChange)]) -> String {
        news.iter()
            .map(|(finding, change)| format!("{}{}", change_sign(*change), finding.key()))
            .collect::<Vec<_>>()
            .join(", ")
    }

    /// The changes of one server, poll by poll.
    fn changes_by_poll(looks: &[Vec<Value>]) -> Vec<String> {
        let mut texts = ActiveFindings::new();
        let mut accuracies = ActiveFindings::new();
        let changes = looks.iter().map(|versions| {
            let report = response(versions);
            let mut changes = drift_changes(&report, &mut texts);
            changes.extend(accuracy_changes(&[&report], &mut accuracies));
            fmt_changes(&changes)
        });
        changes.collect()
    }

    #[test]
    fn drift_changes_repeated_state_is_reported_once() {
        let found = changes_by_poll(&[
            vec![version("1", "ready", "quiet", None, None)],
            vec![version("1", "ready", "drifting", Some(1), Some(false))],
            vec![version("1", "ready", "drifting", Some(2), Some(true))],
            vec![version("1", "ready", "quiet", Some(3), None)],
            vec![version("1", "ready", "quiet", Some(4), Some(false))],
        ]);
        assert_eq!(found, ["", "+m/1 labels", "+m/1 accuracy", "-m/1 labels", "-m/1 accuracy"]);
    }

    fn version_1(level: &str, window: Option<u64>, dropped: Option<bool>) -> Value {
        version("1", "ready", level, window, dropped)
    }

    #[test]
    fn drift_changes_version_absent_twice_is_removed() {
        let other = version("10", "ready", "drifting", Some(1), None);
        let found = changes_by_poll(&[
            vec![version_1("drifting", Some(1), Some(true))],
            vec![version("1", "loading", "quiet", None, None)],
            vec![version_1("quiet", None, None)],
            vec![],
            vec![version_1("drifting", Some(1), None)],
            vec![other.clone()],
            vec![other],
            vec![],
        ]);
        let removed = "xm/1 labels, xm/1 accuracy";
        assert_eq!(found, ["+m/1 labels, +m/1 accuracy", "", "", "", "", "+m/10 labels", removed, ""]);
    }

    fn drifting_version() -> Vec<Value> {
        vec![version("1", "ready", "drifting", Some(1), Some(true))]
    }

    #[test]
    fn drift_changes_signal_uncounted_ends() {
        let mut without = version("1", "ready", "quiet", None, None);
        without["drift"] = Value::Null;
        without["accuracy"]["expected"] = Value::Null;
        let mut uncounted = version("1", "ready", "quiet", None, None);
        uncounted["drift"]["signals"][0]["needed"] = Value::Null;
        let found = changes_by_poll(&[drifting_version(), vec![without], drifting_version(), vec![uncounted]]);
        let begins = "+m/1 labels, +m/1 accuracy";
        let over = "-m/1 labels, -m/1 accuracy";
        assert_eq!(found, [begins, over, begins, "-m/1 labels"]);
    }

    /// The changes by replicas that have version 1 with this drop of accuracy, or no version.
    fn replica_changes(dropped: &[&[Option<bool>]], active: &mut ActiveFindings) -> String {
        let mut reports: Vec<DriftReportView> = Vec::new();
        for dropped in dropped {
            let versions: Vec<Value> =
                dropped.iter().map(|dropped| version("1", "ready", "quiet", None, *dropped)).collect();
            reports.push(response(&versions));
        }
        fmt_changes(&accuracy_changes(&reports.iter().collect::<Vec<_>>(), active))
    }

    #[test]
    fn accuracy_changes_many_replicas_report_once() {
        let mut active = ActiveFindings::new();
        let yes: &[Option<bool>] = &[Some(true)];
        let no: &[Option<bool>] = &[Some(false)];
        let unknown: &[Option<bool>] = &[None];
        let absent: &[Option<bool>] = &[];
        assert_eq!(replica_changes(&[no, yes], &mut active), "+m/1 accuracy");
        for dropped in [[yes, yes], [yes, no], [unknown, unknown], [absent, unknown], [absent, unknown]] {
            assert_eq!(replica_changes(&dropped, &mut active), "", "{dropped:?}");
        }
        assert_eq!(replica_changes(&[no, unknown], &mut active), "-m/1 accuracy");
        assert_eq!(
            (replica_changes(&[yes, absent], &mut active), replica_changes(&[absent, absent], &mut active)),
            ("+m/1 accuracy".to_owned(), String::new())
        );
        assert_eq!(replica_changes(&[absent, absent], &mut active), "xm/1 accuracy");
    }

    #[test]
    fn drift_url_without_windows_asks_for_none() {
        for (url, asked) in [
            ("http://a/admin/drift", "http://a/admin/drift?windows=0"),
            ("http://a/x?key=1", "http://a/x?key=1&windows=0"),
            ("http://a/x?windows=3", "http://a/x?windows=3"),
        ] {
            assert_eq!(without_windows(&Url::parse(url).unwrap()).as_str(), asked);
        }
    }
}
