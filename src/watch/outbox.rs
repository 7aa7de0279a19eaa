//! The alerts that one channel has still to deliver, in their order.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use reqwest::Client;
use tokio::sync::Notify;

use super::alert::Alert;
use super::channel::Channel;
use super::delivery_error::DeliveryError;
use super::metrics::WatchMetrics;

/// Alerts that wait at most; the oldest is given up for a newer one.
const MAX_PENDING_ALERTS: usize = 1_000;
/// First pause after an attempt that failed; each further one is twice as long, up to the last.
const RETRY_DELAYS: (Duration, Duration) = (Duration::from_secs(1), Duration::from_mins(1));

/// The alerts that one channel has still to deliver.
#[derive(Debug)]
pub struct Outbox {
    channel: Channel,
    pending: Mutex<VecDeque<Alert>>,
    alert_added: Notify,
    alert_removed: Notify,
}

impl Outbox {
    /// One that has none.
    #[must_use]
    pub fn new(channel: Channel) -> Arc<Self> {
        Arc::new(Self { channel, pending: Mutex::default(), alert_added: Notify::new(), alert_removed: Notify::new() })
    }

    /// Its channel's name.
    #[must_use]
    pub fn name(&self) -> &'static str {
        self.channel.name()
    }

    /// One more alert.
    pub fn push(&self, alert: Alert) {
        let mut waiting = self.pending.lock();
        if waiting.len() >= MAX_PENDING_ALERTS {
            waiting.pop_front();
            tracing::error!(channel = self.name(), "alert queue full; oldest alert dropped");
        }
        waiting.push_back(alert);
        drop(waiting);
        self.alert_added.notify_one();
    }

    /// Those that are not delivered yet.
    #[must_use]
    pub fn pending(&self) -> Vec<Alert> {
        self.pending.lock().iter().cloned().collect()
    }

    /// Waits until all are delivered or given up.
    pub async fn wait_until_empty(&self) {
        loop {
            let fewer = self.alert_removed.notified();
            if self.pending.lock().is_empty() {
                return;
            }
            fewer.await;
        }
    }

    /// From now on no delivery waits for a program that goes on.
    pub fn detach(&self) {
        if let Channel::Command(program) = &self.channel {
            program.detach();
        }
    }

    /// Delivers, to no end. Each alert is tried again for so long.
    pub async fn deliver(&self, client: &Client, retry_for: Duration, metrics: &WatchMetrics) {
        loop {
            let Some(alert) = self.pending.lock().front().cloned() else {
                self.alert_added.notified().await;
                continue;
            };
            let delivered = self.deliver_with_retries(client, &alert, retry_for).await;
            metrics.record_delivery(self.name(), delivered);
            let mut waiting = self.pending.lock();
            // A newer alert may have pushed it out.
            if waiting.front() == Some(&alert) {
                waiting.pop_front();
            }
            drop(waiting);
            self.alert_removed.notify_waiters();
        }
    }

    /// Tries until it is delivered, or its time is over, or there is no hope.
    async fn deliver_with_retries(&self, client: &Client, alert: &Alert, retry_for: Duration) -> bool {
        let channel = self.name();
        let url = &alert.url;
        let end = Instant::now() + retry_for;
        let (mut pause, longest) = RETRY_DELAYS;
        loop {
            match self.channel.deliver(client, alert).await {
                Ok(()) => {
                    tracing::info!(channel, url, "alert delivered");
                    return true;
                }
                Err(DeliveryError::Transient(reason)) if Instant::now() + pause < end => {
                    tracing::warn!(channel, url, reason, "alert delivery failed; retrying");
                    tokio::time::sleep(pause).await;
                    pause = longest.min(2 * pause);
                }
                Err(DeliveryError::Transient(reason) | DeliveryError::Permanent(reason)) => {
                    tracing::error!(channel, url, reason, "alert delivery failed; alert dropped");
                    return false;
                }
            }
        }
    }
}
