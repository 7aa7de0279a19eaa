//! The receivers of alerts, and how an alert gets there.

use std::time::Duration;

use lettre::message::Mailbox;
use lettre::{AsyncSmtpTransport, AsyncTransport, Message, Tokio1Executor};
use predictd_platform::clock;
use predictd_registry::http_client::root_cause;
use reqwest::{Client, Url};
use serde_json::Value;

use super::alert::Alert;
use super::args::AlertArgs;
use super::delivery_error::DeliveryError;
use super::program::AlertProgram;
use crate::config::parsers::is_set;

/// Time for one attempt.
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(20);

/// A receiver of alerts.
#[derive(Debug)]
pub enum Channel {
    /// Any program that takes JSON.
    Webhook(Url),
    /// A channel of Slack.
    Slack(Url),
    /// `PagerDuty`, with the routing key.
    PagerDuty(Url, String),
    /// An Alertmanager.
    Alertmanager(Url),
    /// People, by mail.
    Email(Box<Mailer>),
    /// A program on this machine.
    Command(AlertProgram),
}

/// How mails are sent.
#[derive(Debug)]
pub struct Mailer {
    server: AsyncSmtpTransport<Tokio1Executor>,
    from: Mailbox,
    to: Vec<Mailbox>,
}

impl Channel {
    /// All that the options name.
    ///
    /// # Errors
    /// One sentence that names the option.
    pub fn from_args(args: &AlertArgs) -> Result<Vec<Self>, String> {
        let mut channels = Vec::new();
        channels.extend(args.webhook.clone().map(Self::Webhook));
        channels.extend(args.slack.clone().map(Self::Slack));
        let key = args.pagerduty.clone().filter(|key| !key.is_empty());
        channels.extend(key.map(|key| Self::PagerDuty(args.pagerduty_url.clone(), key)));
        if let Some(url) = &args.alertmanager {
            let path = format!("{}/api/v2/alerts", url.path().trim_end_matches('/'));
            let mut url = url.clone();
            url.set_path(&path);
            channels.push(Self::Alertmanager(url));
        }
        channels.extend(Mailer::from_args(args)?.map(Box::new).map(Self::Email));
        let command = args.command.clone().filter(is_set);
        channels.extend(command.map(AlertProgram::new).map(Self::Command));
        Ok(channels)
    }

    /// Its name, which is no secret.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Webhook(_) => "webhook",
            Self::Slack(_) => "slack",
            Self::PagerDuty(..) => "pagerduty",
            Self::Alertmanager(_) => "alertmanager",
            Self::Email(_) => "email",
            Self::Command(_) => "command",
        }
    }

    /// Tries once.
    ///
    /// # Errors
    /// [`DeliveryError`] with the reason.
    pub async fn deliver(&self, client: &Client, alert: &Alert) -> Result<(), DeliveryError> {
        match self {
            Self::Webhook(url) => {
                let alert = serde_json::to_value(alert).map_err(DeliveryError::permanent)?;
                post_json(client, url, &alert).await
            }
            Self::Slack(url) => post_json(client, url, &alert.for_slack()).await,
            Self::PagerDuty(url, key) => post_json(client, url, &alert.for_pagerduty(key)).await,
            Self::Alertmanager(url) => post_json(client, url, &alert.for_alertmanager()).await,
            Self::Email(mail) => within_timeout(mail.send(alert)).await,
            // It may go on for longer, and is not ended then.
            Self::Command(program) => {
                let alert = serde_json::to_vec(alert).map_err(DeliveryError::permanent)?;
                program.run(&alert, ATTEMPT_TIMEOUT).await
            }
        }
    }
}

/// What comes of an attempt, unless that takes too long.
async fn within_timeout<T>(attempt: impl Future<Output = Result<T, DeliveryError>>) -> Result<T, DeliveryError> {
    tokio::time::timeout(ATTEMPT_TIMEOUT, attempt).await.unwrap_or_else(|_| {
        let limit = humantime::format_duration(ATTEMPT_TIMEOUT);
        Err(DeliveryError::Transient(format!("it took more than {limit}")))
    })
}

async fn post_json(client: &Client, url: &Url, body: &Value) -> Result<(), DeliveryError> {
    let request = client.post(url.clone()).json(body);
    let sent = async { request.send().await.map_err(|error| DeliveryError::Transient(root_cause(&error))) };
    let status = within_timeout(sent).await?.status().as_u16();
    let reason = format!("it answered with {status}");
    match status {
        200..300 => Ok(()),
        // What was sent will not do. Anything else may be a rollout on the way, or a key that is being changed.
        400 | 410 | 413 | 422 => Err(DeliveryError::Permanent(reason)),
        _ => Err(DeliveryError::Transient(reason)),
    }
}

impl Mailer {
    fn from_args(args: &AlertArgs) -> Result<Option<Self>, String> {
        let Some(url) = args.smtp.as_deref().filter(|url| !url.is_empty()) else { return Ok(None) };
        // The reason may quote the URL, and with it the password.
        let server = AsyncSmtpTransport::<Tokio1Executor>::from_url(url)
            .map_err(|_| "--smtp: this is no URL that begins with smtp:// or smtps://".to_owned())?
            .build();
        let from = parse_mailbox("--email-from", args.email_from.as_deref().unwrap_or_default())?;
        let to = args.email_to.iter().map(|address| parse_mailbox("--email-to", address)).collect::<Result<_, _>>()?;
        Ok(Some(Self { server, from, to }))
    }

    async fn send(&self, alert: &Alert) -> Result<(), DeliveryError> {
        let mut message = Message::builder().date(clock::now()).from(self.from.clone()).subject(alert.summary.clone());
        for to in &self.to {
            message = message.to(to.clone());
        }
        let body = serde_json::to_string_pretty(alert).map_err(DeliveryError::permanent)?;
        let message = message.body(format!("{}\n\n{body}\n", alert.summary)).map_err(DeliveryError::permanent)?;
        let sent = self.server.send(message).await;
        sent.map(drop).map_err(|error| {
            let kind = if error.is_permanent() { DeliveryError::Permanent } else { DeliveryError::Transient };
            kind(error.to_string())
        })
    }
}

fn parse_mailbox(option: &str, address: &str) -> Result<Mailbox, String> {
    address.trim().parse().map_err(|error| format!("{option} {address:?}: {error}"))
}
