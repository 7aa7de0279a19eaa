//! `predictd watch`: checks servers, and tells when one becomes unhealthy or healthy again, or when a model drifts.
//!
//! - [`args`]: its options
//! - [`mod@check`]: one check; [`target`]: what checks in a row make of a server (pure)
//! - [`drift`]: what a server says of its models, and what of that is news
//! - [`alert`]: what is told, in the forms of its receivers (pure); [`channel`]: how it gets there; [`outbox`]: until it does
//! - [`program`]: a program that is told, and may go on
//! - [`memory`]: what is remembered over its end; [`metrics`]: its own metrics

pub mod alert;
pub mod args;
pub mod channel;
pub mod check;
pub mod drift;
pub mod memory;
pub mod metrics;
pub mod outbox;
pub mod program;
pub mod target;

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use reqwest::{Client, Url};
use tokio::net::TcpListener;
use tokio::time::MissedTickBehavior;
use tokio_util::task::AbortOnDropHandle;

use crate::RunError;
use crate::client;
use crate::clock;
use crate::http::metrics_only;
use crate::shutdown::Shutdown;
use alert::{Alert, Status};
use args::{WatchCommand, shown};
use channel::Channel;
use check::check;
use drift::{Change, Finding, Said};
use memory::Memory;
use metrics::WatchMetrics;
use outbox::Outbox;
use target::{Health, Thresholds};

/// Time for alerts to be delivered when the watcher ends.
const LAST_WORDS: Duration = Duration::from_secs(10);
/// And a moment for those that a program has.
const LET_GO: Duration = Duration::from_millis(500);
/// Shortest interval and timeout.
const SHORTEST: Duration = Duration::from_millis(10);
/// Most servers that are asked how their models stand.
const MOST_ASKED: usize = 100;

/// A watcher at work.
struct Watcher<'a> {
    command: &'a WatchCommand,
    urls: Vec<Url>,
    /// Who is asked how their models stand.
    asked: Vec<Url>,
    client: Client,
    memory: Memory,
    outboxes: Vec<Arc<Outbox>>,
    metrics: Arc<WatchMetrics>,
}

impl WatchCommand {
    /// Watches until it is told to stop, or checks once.
    ///
    /// # Errors
    /// [`RunError::Configuration`] for options that cannot work, [`RunError::Failed`] for a server that is not healthy
    /// where it was to be checked once.
    pub fn run(&self) -> Result<(), RunError> {
        if self.interval < SHORTEST || self.timeout < SHORTEST {
            return Err(RunError::Configuration("--interval and --timeout must be 10ms or longer".to_owned()));
        }
        if self.drift.len() > MOST_ASKED {
            return Err(RunError::Configuration(format!("--drift: more than {MOST_ASKED} servers")));
        }
        let failed = |error: std::io::Error| RunError::Failed(error.to_string());
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(failed)?;
        runtime.block_on(async {
            let shutdown = Shutdown::on_signals().map_err(failed)?;
            let (mut watcher, _delivering) = Watcher::new(self).map_err(RunError::Configuration)?;
            let _metrics = watcher.serve_metrics().await?;
            if self.once {
                let interrupted = || RunError::Failed("the checks were interrupted".to_owned());
                let unhealthy = tokio::select! {
                    unhealthy = watcher.round() => unhealthy,
                    () = shutdown.soft.cancelled() => return Err(interrupted()),
                };
                tokio::select! {
                    () = watcher.last_words() => {}
                    () = shutdown.soft.cancelled() => return Err(interrupted()),
                }
                return match unhealthy {
                    (0, 0) => Ok(()),
                    (0, silent) => {
                        Err(RunError::Failed(format!("{silent} of {} servers do not tell of drift", self.drift.len())))
                    }
                    (failed, _) => {
                        Err(RunError::Failed(format!("{failed} of {} servers are not healthy", self.urls.len())))
                    }
                };
            }
            let mut ticks = tokio::time::interval(self.interval);
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            loop {
                tokio::select! {
                    _ = async {
                        ticks.tick().await;
                        watcher.round().await
                    } => {}
                    () = shutdown.soft.cancelled() => break,
                }
            }
            tokio::select! {
                () = watcher.last_words() => {}
                () = shutdown.hard.cancelled() => {}
            }
            tracing::info!("the watcher has stopped");
            Ok(())
        })
    }
}

impl<'a> Watcher<'a> {
    /// Ready to watch, with tasks that deliver.
    fn new(command: &'a WatchCommand) -> Result<(Self, Vec<AbortOnDropHandle<()>>), String> {
        let client = client::builder().user_agent(concat!("predictd-watch/", env!("CARGO_PKG_VERSION")));
        let client = client.build().map_err(|error| error.to_string())?;
        let metrics = Arc::new(WatchMetrics::new().map_err(|error| error.to_string())?);
        let path = command.state.as_deref().filter(|path| !path.as_os_str().is_empty());
        let mut memory = match path {
            Some(path) => Memory::read(path).map_err(|error| format!("--state {}: {error}", path.display()))?,
            None => Memory::default(),
        };
        let outboxes: Vec<_> = Channel::of(&command.alerts)?.into_iter().map(Outbox::new).collect();
        let mut left = std::mem::take(&mut memory.waiting);
        for outbox in &outboxes {
            left.remove(outbox.name()).into_iter().flatten().for_each(|alert| outbox.put(alert));
        }
        let deliver = |outbox: &Arc<Outbox>| {
            let (outbox, client, metrics) = (Arc::clone(outbox), client.clone(), Arc::clone(&metrics));
            let retry_for = command.alerts.retry_for;
            AbortOnDropHandle::new(tokio::spawn(async move { outbox.deliver(&client, retry_for, &metrics).await }))
        };
        let delivering = outboxes.iter().map(deliver).collect();
        let urls = command.urls.iter().cloned().map(|url| with_path(url, "/health")).collect();
        let asked = command.drift.iter().cloned().map(|url| with_path(url, "/admin/drift")).collect();
        Ok((Self { command, urls, asked, client, memory, outboxes, metrics }, delivering))
    }

    /// Checks every server, and asks how models stand; how many checks, and how many questions, failed.
    async fn round(&mut self) -> (usize, usize) {
        let WatchCommand { timeout, unhealthy_after, healthy_after, .. } = self.command;
        // Who looks once and remembers nothing has nothing to wait for.
        let forgets = self.command.once && self.command.state.as_deref().is_none_or(|path| path.as_os_str().is_empty());
        let unhealthy_after = if forgets { 1 } else { unhealthy_after.get() };
        let thresholds = Thresholds { unhealthy_after, healthy_after: healthy_after.get() };
        let records = join_all(self.urls.iter().map(|url| check(&self.client, url, *timeout))).await;
        let mut failed = 0;
        for (url, record) in self.urls.iter().zip(records) {
            let target = self.memory.targets.entry(shown(url)).or_default();
            let changed = target.checked(record.healthy, thresholds, clock::now());
            self.metrics.checked(&record, target.health);
            let (url, healthy, status_code, response_time) =
                (record.url.as_str(), record.healthy, record.status_code, record.response_time);
            match &record.error {
                None => tracing::info!(url, healthy, status_code, response_time, "a check was good"),
                Some(error) => {
                    failed += 1;
                    tracing::warn!(url, healthy, status_code, response_time, error, "a check failed");
                }
            }
            let Some(health) = changed else { continue };
            let status = if health == Health::Healthy { Status::Healthy } else { Status::Unhealthy };
            let alert = Alert::new(status, &record);
            if status.is_good() {
                self.metrics.changed(url, "healthy");
                tracing::info!(url, "the server is healthy again");
            } else {
                self.metrics.changed(url, "unhealthy");
                tracing::error!(url, summary = alert.summary, "the server is unhealthy");
            }
            self.outboxes.iter().for_each(|outbox| outbox.put(alert.clone()));
        }
        let silent = self.ask_of_drift(*timeout).await;
        self.remember();
        (failed, silent)
    }

    /// Asks how models stand, and tells what has changed; how many servers did not say.
    async fn ask_of_drift(&mut self, timeout: Duration) -> usize {
        let key = self.command.api_key.as_deref().filter(|key| !key.is_empty());
        let said = join_all(self.asked.iter().map(|url| drift::ask(&self.client, url, key, timeout))).await;
        let (mut silent, mut answers) = (0, Vec::new());
        for (url, said) in self.asked.iter().map(shown).zip(said) {
            self.metrics.looked(&url, said.is_ok());
            match said {
                Ok(said) => answers.push((url, said)),
                Err(error) => {
                    silent += 1;
                    tracing::warn!(url, error, "the server does not tell of drift");
                }
            }
        }
        for (url, said) in &answers {
            let known = self.memory.drifting.entry(url.clone()).or_default();
            said.news(known).into_iter().for_each(|news| self.tell(url, news));
        }
        // Of servers of which none says anything, nothing is gone.
        let Some((first, _)) = answers.first() else { return silent };
        let all: Vec<&Said> = answers.iter().map(|(_, said)| said).collect();
        let news = drift::news_of_accuracy(&all, &mut self.memory.dropped);
        for (finding, change) in news {
            let there = answers.iter().find(|(_, said)| said.has(&finding));
            self.tell(there.map_or(first, |(url, _)| url), (finding, change));
        }
        silent
    }

    /// Tells what has become of a model version.
    fn tell(&self, url: &str, (finding, change): (Finding, Change)) {
        let alert = Alert::of_drift(change, url.to_owned(), check::now(), finding);
        let summary = &alert.summary;
        if change == Change::Begins {
            tracing::error!(url, summary, "a model is not as it was");
        } else {
            tracing::info!(url, summary, "a model is as it was again, or gone");
        }
        self.outboxes.iter().for_each(|outbox| outbox.put(alert.clone()));
    }

    /// Writes down how servers are, and who is to be told.
    fn remember(&mut self) {
        let Some(path) = self.command.state.as_deref().filter(|path| !path.as_os_str().is_empty()) else { return };
        let waiting = self.outboxes.iter().map(|outbox| (outbox.name().to_owned(), outbox.waiting()));
        self.memory.waiting = waiting.filter(|(_, alerts)| !alerts.is_empty()).collect();
        if let Err(error) = self.memory.write(path) {
            tracing::error!(file = %path.display(), error, "the state could not be written");
        }
    }

    /// Gives the alerts that wait some time, and writes down those that are left.
    async fn last_words(&mut self) {
        let all = || join_all(self.outboxes.iter().map(|outbox| outbox.empty()));
        if tokio::time::timeout(LAST_WORDS, all()).await.is_err() {
            // A program that goes on counts as told.
            self.outboxes.iter().for_each(|outbox| outbox.let_go());
            if tokio::time::timeout(LET_GO, all()).await.is_err() {
                tracing::warn!("alerts are left that could not be delivered in time");
            }
        }
        self.remember();
    }

    /// Serves `/metrics`, if an address is named.
    async fn serve_metrics(&self) -> Result<Option<AbortOnDropHandle<()>>, RunError> {
        let Some(address) = self.command.metrics else { return Ok(None) };
        let said = |error: std::io::Error| RunError::Failed(format!("--metrics {address}: {error}"));
        let listener = TcpListener::bind(address).await.map_err(said)?;
        let address = listener.local_addr().map_err(said)?;
        tracing::info!(%address, "metrics are served");
        let metrics = Arc::clone(&self.metrics);
        let render = move || metrics.render();
        let serve = metrics_only::serve(listener, render);
        Ok(Some(AbortOnDropHandle::new(tokio::spawn(serve))))
    }
}

/// This path of a server, unless another one is named.
fn with_path(mut url: Url, path: &str) -> Url {
    if url.path() == "/" {
        url.set_path(path);
    }
    url
}
