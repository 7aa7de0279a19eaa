//! Large responses: written in parts, so that no part holds a thread for long and no more than a part is in memory.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use axum::body::{Body, Bytes};
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use hyper::body::Frame;
use serde::Serialize;
use tokio::task::coop;

use super::buffer_sizes::PART_BYTES;
use super::error::{ApiError, Code};

/// JSON of no more bytes is written at once, with its length in the head of the response.
pub const MAX_UNSTREAMED_BYTES: usize = 64 << 10;
/// What a part takes from the budget that tokio gives a task (128) before it has to let others run.
const PART_COOP_COST: usize = 16;

/// What stands around the items of a list, in JSON.
#[derive(Debug)]
pub struct JsonFrame {
    /// Before the first item, `[` at its end.
    pub opening: &'static str,
    /// After the last item, `]` at its start.
    pub closing: &'static str,
}

/// A list in JSON, whose items are made when they are written.
pub struct JsonListStream<I> {
    items: I,
    frame: JsonFrame,
    is_started: bool,
    is_finished: bool,
}

impl<I: Iterator<Item: Serialize> + Send + Unpin + 'static> JsonListStream<I> {
    /// The response with these items, of at most `max_bytes` bytes: at once if these are few, else part by part.
    ///
    /// # Errors
    /// [`ApiError`] if an item cannot be written as JSON, which only a bug can cause.
    pub fn json_response(items: I, frame: JsonFrame, max_bytes: usize) -> Result<Response, ApiError> {
        let broken = |_| ApiError::new(Code::Internal, "The answer could not be written as JSON.");
        let mut stream = Self { items, frame, is_started: false, is_finished: false };
        let body = if max_bytes > MAX_UNSTREAMED_BYTES {
            Body::new(stream)
        } else {
            let mut whole = Vec::new();
            stream.write_items(&mut whole, usize::MAX).map_err(broken)?;
            Body::from(whole)
        };
        Ok(([(CONTENT_TYPE, "application/json")], body).into_response())
    }

    /// Writes items until there are `most` bytes or no further items.
    fn write_items(&mut self, part: &mut Vec<u8>, most: usize) -> serde_json::Result<()> {
        while part.len() < most {
            let Some(item) = self.items.next() else {
                if !self.is_started {
                    part.extend_from_slice(self.frame.opening.as_bytes());
                }
                part.extend_from_slice(self.frame.closing.as_bytes());
                self.is_finished = true;
                break;
            };
            part.extend_from_slice(if self.is_started { b"," } else { self.frame.opening.as_bytes() });
            self.is_started = true;
            serde_json::to_writer(&mut *part, &item)?;
        }
        Ok(())
    }
}

impl<I: Iterator<Item: Serialize> + Send + Unpin + 'static> hyper::body::Body for JsonListStream<I> {
    type Data = Bytes;
    type Error = serde_json::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, serde_json::Error>>> {
        if self.is_finished {
            return Poll::Ready(None);
        }
        for _ in 0..PART_COOP_COST {
            ready!(coop::poll_proceed(cx)).made_progress();
        }
        let mut part = Vec::with_capacity(PART_BYTES);
        let written = self.write_items(&mut part, PART_BYTES);
        Poll::Ready(Some(written.map(|()| Frame::data(Bytes::from(part)))))
    }

    fn is_end_stream(&self) -> bool {
        self.is_finished
    }
}
