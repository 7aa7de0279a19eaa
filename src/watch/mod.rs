//! `predictd watch`: checks servers, and sends alerts when one becomes unhealthy or healthy again, or when a model drifts.
//!
//! - [`args`]: its options
//! - [`probe`]: one check; [`target_health`]: what checks in a row make of a server (pure)
//! - [`drift`]: what a server says of its models, and what of that is news
//! - [`alert`]: alerts in the forms of their receivers (pure); [`channel`]: how it gets there; [`outbox`]: until it does
//! - [`program`]: a program that is run for an alert, and may go on
//! - [`watch_state`]: what is remembered over its end; [`metrics`]: its own metrics

pub mod alert;
pub mod args;
pub mod channel;
pub mod delivery_error;
pub mod drift;
pub mod metrics;
pub mod outbox;
pub mod probe;
pub mod program;
pub mod target_health;
pub mod watch_state;

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use predictd_api::drift::DriftReportView;
use predictd_http::metrics_server;
use predictd_platform::clock;
use predictd_registry::http_client;
use reqwest::{Client, Url};
use tokio::net::TcpListener;
use tokio::time::MissedTickBehavior;
use tokio_util::task::AbortOnDropHandle;

use crate::ServerError;
use crate::config::parsers::is_set;
use crate::shutdown::Shutdown;
use alert::Alert;
use args::{WatchCommand, redact_url};
use channel::Channel;
use drift::{Finding, FindingChange, drift_changes, has_version};
use metrics::WatchMetrics;
use outbox::Outbox;
use probe::{ProbeResult, check_server};
use target_health::HealthThresholds;
use watch_state::WatchState;

/// Time for alerts to be delivered when the watcher ends.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(10);
/// And a moment for those that a program has.
const DETACH_TIMEOUT: Duration = Duration::from_millis(500);
/// Shortest interval and timeout.
const MIN_INTERVAL: Duration = Duration::from_millis(10);
/// Most servers that are asked how their models stand.
const MAX_DRIFT_SERVERS: usize = 100;

/// A watcher at work.
struct Watcher<'a> {
    command: &'a WatchCommand,
    urls: Vec<Url>,
    /// Who is asked how their models stand.
    drift_urls: Vec<Url>,
    client: Client,
    state: WatchState,
    outboxes: Vec<Arc<Outbox>>,
    metrics: Arc<WatchMetrics>,
}

impl WatchCommand {
    /// Watches until a signal stops it, or checks once.
    ///
    /// # Errors
    /// [`ServerError::Configuration`] for options that cannot work, [`ServerError::Runtime`] for a server that is not healthy
    /// where it was to be checked once.
    pub fn run(mut self) -> Result<(), ServerError> {
        self.state.take_if(|path| !is_set(path));
        if self.interval < MIN_INTERVAL || self.timeout < MIN_INTERVAL {
            return Err(ServerError::Configuration("--interval and --timeout must be 10ms or longer".to_owned()));
        }
        if self.drift.len() > MAX_DRIFT_SERVERS {
            return Err(ServerError::Configuration(format!("--drift: more than {MAX_DRIFT_SERVERS} servers")));
        }
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(ServerError::runtime)?;
        runtime.block_on(async {
            let shutdown = Shutdown::from_signals().map_err(ServerError::runtime)?;
            let (mut watcher, _delivering) = Watcher::new(&self).map_err(ServerError::Configuration)?;
            let _metrics = watcher.serve_metrics().await?;
            if self.once {
                return tokio::select! {
                    result = watcher.check_once() => result,
                    () = shutdown.drain.cancelled() => {
                        Err(ServerError::Runtime("the checks were interrupted".to_owned()))
                    }
                };
            }
            let mut ticks = tokio::time::interval(self.interval);
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            let checks = async {
                loop {
                    ticks.tick().await;
                    watcher.check_all().await;
                }
            };
            tokio::select! {
                () = checks => {}
                () = shutdown.drain.cancelled() => {}
            }
            tokio::select! {
                () = watcher.flush_alerts() => {}
                () = shutdown.abort.cancelled() => {}
            }
            tracing::info!("watcher stopped");
            Ok(())
        })
    }
}

impl<'a> Watcher<'a> {
    /// Ready to watch, with tasks that deliver.
    fn new(command: &'a WatchCommand) -> Result<(Self, Vec<AbortOnDropHandle<()>>), String> {
        let client = http_client::client_builder().user_agent(concat!("predictd-watch/", env!("CARGO_PKG_VERSION")));
        let client = client.build().map_err(|error| error.to_string())?;
        let metrics = Arc::new(WatchMetrics::new().map_err(|error| error.to_string())?);
        let mut memory = match &command.state {
            Some(path) => WatchState::load(path).map_err(|error| format!("--state {}: {error}", path.display()))?,
            None => WatchState::default(),
        };
        let outboxes: Vec<_> = Channel::from_args(&command.alerts)?.into_iter().map(Outbox::new).collect();
        for outbox in &outboxes {
            memory.waiting.remove(outbox.name()).into_iter().flatten().for_each(|alert| outbox.push(alert));
        }
        let deliver = |outbox: &Arc<Outbox>| {
            let outbox = Arc::clone(outbox);
            let client = client.clone();
            let metrics = Arc::clone(&metrics);
            let retry_for = command.alerts.retry_for;
            AbortOnDropHandle::new(tokio::spawn(async move { outbox.deliver(&client, retry_for, &metrics).await }))
        };
        let delivering = outboxes.iter().map(deliver).collect();
        let urls = command.urls.iter().cloned().map(|url| with_path(url, "/health")).collect();
        let drift_urls = command.drift.iter().cloned().map(|url| with_path(url, "/admin/drift")).collect();
        Ok((Self { command, urls, drift_urls, client, state: memory, outboxes, metrics }, delivering))
    }

    /// Checks every server once, and delivers alerts.
    async fn check_once(&mut self) -> Result<(), ServerError> {
        let counts = self.check_all().await;
        self.flush_alerts().await;
        let sentence = match counts {
            (0, 0) => return Ok(()),
            (0, silent) => format!("{silent} of {} servers do not tell of drift", self.drift_urls.len()),
            (failed, _) => format!("{failed} of {} servers are not healthy", self.urls.len()),
        };
        Err(ServerError::Runtime(sentence))
    }

    /// Checks every server, and polls the drift of models; how many checks, and how many polls, failed.
    async fn check_all(&mut self) -> (usize, usize) {
        let WatchCommand { timeout, unhealthy_after, healthy_after, .. } = self.command;
        // Who looks once and remembers nothing has nothing to wait for.
        let forgets = self.command.once && self.command.state.is_none();
        let unhealthy_after = if forgets { 1 } else { unhealthy_after.get() };
        let thresholds = HealthThresholds { unhealthy_after, healthy_after: healthy_after.get() };
        let records = join_all(self.urls.iter().map(|url| check_server(&self.client, url, *timeout))).await;
        let failed = records.iter().filter(|record| record.error.is_some()).count();
        for record in &records {
            let target = self.state.targets.entry(record.url.clone()).or_default();
            let changed = target.record_check(record.healthy, thresholds, clock::now());
            self.metrics.record_check(record, target.health);
            log_check(record);
            if changed.is_some() {
                self.send_health_alert(record);
            }
        }
        let silent = self.check_drift().await;
        self.save_state();
        (failed, silent)
    }

    /// Tells that a server has recovered, or failed.
    fn send_health_alert(&self, record: &ProbeResult) {
        let alert = Alert::from_check(record);
        let Alert { url, summary, .. } = &alert;
        if record.healthy {
            self.metrics.record_change(url, "healthy");
            tracing::info!(url, "server recovered");
        } else {
            self.metrics.record_change(url, "unhealthy");
            tracing::error!(url, summary, "server unhealthy");
        }
        self.outboxes.iter().for_each(|outbox| outbox.push(alert.clone()));
    }

    /// Polls the drift of models, and sends alerts of changes; how many servers gave no answer.
    async fn check_drift(&mut self) -> usize {
        let key = self.command.api_key.as_deref().filter(|key| !key.is_empty());
        let timeout = self.command.timeout;
        let responses =
            join_all(self.drift_urls.iter().map(|url| drift::fetch_drift(&self.client, url, key, timeout))).await;
        let mut answers = Vec::new();
        for (url, response) in self.drift_urls.iter().map(redact_url).zip(responses) {
            self.metrics.record_drift_poll(&url, response.is_ok());
            match response {
                Ok(response) => answers.push((url, response)),
                Err(error) => tracing::warn!(url, error, "drift status could not be read"),
            }
        }
        let silent = self.drift_urls.len() - answers.len();
        for (url, response) in &answers {
            let active = self.state.drifting.entry(url.clone()).or_default();
            for change in drift_changes(response, active) {
                self.send_drift_alert(url, change);
            }
        }
        // Of servers of which none says anything, nothing is gone.
        let Some((first, _)) = answers.first() else { return silent };
        let all: Vec<&DriftReportView> = answers.iter().map(|(_, response)| response).collect();
        for change in drift::accuracy_changes(&all, &mut self.state.dropped) {
            let there = answers.iter().find(|(_, response)| has_version(response, &change.0));
            self.send_drift_alert(there.map_or(first, |(url, _)| url), change);
        }
        silent
    }

    /// Sends an alert about a model version.
    fn send_drift_alert(&self, url: &str, (finding, change): (Finding, FindingChange)) {
        let alert = Alert::from_finding(change, url.to_owned(), probe::timestamp_now(), finding);
        let summary = &alert.summary;
        if change == FindingChange::Started {
            tracing::error!(url, summary, "model alert raised");
        } else {
            tracing::info!(url, summary, "model alert cleared");
        }
        self.outboxes.iter().for_each(|outbox| outbox.push(alert.clone()));
    }

    /// Writes the state of servers and the undelivered alerts to the state file.
    fn save_state(&mut self) {
        let Some(path) = &self.command.state else { return };
        let waiting = self.outboxes.iter().map(|outbox| (outbox.name().to_owned(), outbox.pending()));
        self.state.waiting = waiting.filter(|(_, alerts)| !alerts.is_empty()).collect();
        if let Err(error) = self.state.save(path) {
            tracing::error!(file = %path.display(), error = error.to_string(), "watcher state could not be written");
        }
    }

    async fn wait_until_empty(&self) {
        join_all(self.outboxes.iter().map(|outbox| outbox.wait_until_empty())).await;
    }

    /// Gives the alerts that wait some time, and writes down those that are left.
    async fn flush_alerts(&mut self) {
        if tokio::time::timeout(FLUSH_TIMEOUT, self.wait_until_empty()).await.is_err() {
            // A program that goes on counts as delivered.
            self.outboxes.iter().for_each(|outbox| outbox.detach());
            if tokio::time::timeout(DETACH_TIMEOUT, self.wait_until_empty()).await.is_err() {
                tracing::warn!("watcher stops with undelivered alerts");
            }
        }
        self.save_state();
    }

    /// Serves `/metrics`, if an address is named.
    async fn serve_metrics(&self) -> Result<Option<AbortOnDropHandle<()>>, ServerError> {
        let Some(address) = self.command.metrics else { return Ok(None) };
        let failed = |error: std::io::Error| ServerError::Runtime(format!("--metrics {address}: {error}"));
        let listener = TcpListener::bind(address).await.map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        tracing::info!(%address, "metrics listener opened");
        let metrics = Arc::clone(&self.metrics);
        let serve = metrics_server::serve(listener, move || metrics.render());
        Ok(Some(AbortOnDropHandle::new(tokio::spawn(serve))))
    }
}

fn log_check(record: &ProbeResult) {
    let ProbeResult { url, healthy, status_code, response_time, error, .. } = record;
    match error {
        None => tracing::info!(url, healthy, status_code, response_time, "check passed"),
        Some(error) => tracing::warn!(url, healthy, status_code, response_time, error, "check failed"),
    }
}

/// This path of a server, unless another one is named.
fn with_path(mut url: Url, path: &str) -> Url {
    if url.path() == "/" {
        url.set_path(path);
    }
    url
}
