//! The alerts that one channel is still to be told, in their order.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use reqwest::Client;
use tokio::sync::Notify;

use super::alert::Alert;
use super::channel::{Channel, Undelivered};
use super::metrics::WatchMetrics;

/// Alerts that wait at most; the oldest is given up for a newer one.
const MOST: usize = 1_000;
/// First pause after an attempt that failed; each further one is twice as long, up to the last.
const PAUSES: (Duration, Duration) = (Duration::from_secs(1), Duration::from_mins(1));

/// The alerts that one channel is still to be told.
#[derive(Debug)]
pub struct Outbox {
    channel: Channel,
    waiting: Mutex<VecDeque<Alert>>,
    more: Notify,
    fewer: Notify,
}

impl Outbox {
    /// One that has none.
    #[must_use]
    pub fn new(channel: Channel) -> Arc<Self> {
        Arc::new(Self { channel, waiting: Mutex::default(), more: Notify::new(), fewer: Notify::new() })
    }

    /// Its channel's name.
    #[must_use]
    pub fn name(&self) -> &'static str {
        self.channel.name()
    }

    /// One more alert.
    pub fn put(&self, alert: Alert) {
        let mut waiting = self.waiting.lock();
        if waiting.len() >= MOST {
            waiting.pop_front();
            tracing::error!(channel = self.name(), "too many alerts wait: the oldest is given up");
        }
        waiting.push_back(alert);
        drop(waiting);
        self.more.notify_one();
    }

    /// Those that are not delivered yet.
    #[must_use]
    pub fn waiting(&self) -> Vec<Alert> {
        self.waiting.lock().iter().cloned().collect()
    }

    /// Waits until all are delivered or given up.
    pub async fn empty(&self) {
        loop {
            let fewer = self.fewer.notified();
            if self.waiting.lock().is_empty() {
                return;
            }
            fewer.await;
        }
    }

    /// From now on nobody waits for a program that goes on.
    pub fn let_go(&self) {
        self.channel.let_go();
    }

    /// Delivers, to no end. Each alert is tried again for so long.
    pub async fn deliver(&self, client: &Client, retry_for: Duration, metrics: &WatchMetrics) {
        loop {
            let Some(alert) = self.waiting.lock().front().cloned() else {
                self.more.notified().await;
                continue;
            };
            let delivered = self.persist(client, &alert, retry_for).await;
            metrics.delivered(self.name(), delivered);
            let mut waiting = self.waiting.lock();
            // A newer alert may have pushed it out.
            if waiting.front() == Some(&alert) {
                waiting.pop_front();
            }
            drop(waiting);
            self.fewer.notify_waiters();
        }
    }

    /// Tries until it is delivered, or its time is over, or there is no hope.
    async fn persist(&self, client: &Client, alert: &Alert, retry_for: Duration) -> bool {
        let (channel, url, end) = (self.name(), &alert.url, Instant::now() + retry_for);
        let (mut pause, longest) = PAUSES;
        loop {
            match self.channel.deliver(client, alert).await {
                Ok(()) => {
                    tracing::info!(channel, url, "an alert was delivered");
                    return true;
                }
                Err(Undelivered::Later(reason)) if Instant::now() + pause < end => {
                    tracing::warn!(channel, url, reason, "an alert could not be delivered: it is tried again");
                    tokio::time::sleep(pause).await;
                    pause = longest.min(2 * pause);
                }
                Err(Undelivered::Later(reason) | Undelivered::Never(reason)) => {
                    tracing::error!(channel, url, reason, "an alert could not be delivered: it is given up");
                    return false;
                }
            }
        }
    }
}
