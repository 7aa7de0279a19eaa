//! Texts that are being run: whoever asks the same meanwhile waits for that run.
//!
//! The right to run a text and to tell its answer, a [`Lead`], travels with the text to the
//! worker. So an answer is told as soon as it is there, not when the rest of its batch is, and
//! also if its own client left during the run. A lead that is dropped before leaves those who
//! wait to themselves: one of them becomes the next.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

use tokio::sync::watch;

use super::{Cache, Key};
use crate::engine::{Answer, TextError};

/// How a run ended that others waited for.
#[derive(Debug, Clone)]
pub enum End {
    /// With an answer.
    Answered(Arc<Answer>),
    /// With an error, which is its own request's: whoever waited runs the text by itself, and nobody waits for that.
    Failed,
    /// Not at all: its client left, or its time was over.
    Left,
}

/// A place among those who wait for a run.
#[derive(Debug)]
pub struct Joined(watch::Receiver<Option<End>>);

impl Joined {
    /// Waits for the end of the run.
    pub async fn end(mut self) -> End {
        // An error: the lead was dropped.
        let end = self.0.wait_for(Option::is_some).await.map(|end| end.clone());
        end.ok().flatten().unwrap_or(End::Left)
    }
}

/// The texts that are being run. Each has a permit, which bounds them.
#[derive(Debug, Default)]
pub(super) struct Flights {
    by_key: HashMap<Key, Flight>,
    begun: u64,
}

#[derive(Debug)]
struct Flight {
    number: u64,
    deadline: Instant,
    end: watch::Receiver<Option<End>>,
}

/// A lead's part of a flight.
#[derive(Debug)]
pub(super) struct Own {
    number: u64,
    end: watch::Sender<Option<End>>,
}

impl Flights {
    pub(super) fn join(&self, key: Key, deadline: Instant) -> Option<Joined> {
        let flight = self.by_key.get(&key).filter(|flight| flight.deadline <= deadline)?;
        Some(Joined(flight.end.clone()))
    }

    /// Takes the place of a flight that had more time, if there is one; those who wait for it stay with it.
    pub(super) fn begin(&mut self, key: Key, deadline: Instant) -> Own {
        self.begun += 1;
        let (sender, end) = watch::channel(None);
        self.by_key.insert(key, Flight { number: self.begun, deadline, end });
        Own { number: self.begun, end: sender }
    }

    fn end(&mut self, key: Key, number: u64) {
        if self.by_key.get(&key).is_some_and(|flight| flight.number == number) {
            self.by_key.remove(&key);
        }
    }
}

/// Whoever holds it runs the text.
#[derive(Debug)]
pub struct Lead {
    cache: Arc<Cache>,
    key: Key,
    own: Option<Own>,
}

impl Lead {
    pub(super) fn new(cache: Arc<Cache>, key: Key, own: Option<Own>) -> Self {
        Self { cache, key, own }
    }

    /// Keeps the answer, and tells it to those who wait.
    pub fn done(mut self, answer: &Result<Answer, TextError>) {
        let end = match answer {
            Ok(answer) => {
                let answer = Arc::new(answer.clone());
                // First: whoever finds no flight any more must find the answer.
                self.cache.answers.insert(self.key, Arc::clone(&answer));
                End::Answered(answer)
            }
            // Those who wait may have more time.
            Err(TextError::DeadlineExceeded) => End::Left,
            Err(_) => End::Failed,
        };
        self.finish(end);
    }

    fn finish(&mut self, end: End) {
        if let Some(own) = self.own.take() {
            self.cache.flights.lock().end(self.key, own.number);
            own.end.send_replace(Some(end));
        }
    }
}

impl Drop for Lead {
    fn drop(&mut self) {
        self.finish(End::Left);
    }
}
