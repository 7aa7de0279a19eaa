//! Compressed request bodies: gzip, within the limit of bodies that are not compressed.

use std::io::{Error, Write};

use axum::http::HeaderMap;
use axum::http::header::CONTENT_ENCODING;
use flate2::write::MultiGzDecoder;
use tokio::sync::OwnedSemaphorePermit;

use super::body_limits::{FREE_BODY_BYTES, too_large_error};
use super::error::{ApiError, Code};
use super::state::App;

/// Memory of a decoder: its window and its tables.
const DECODER_BYTES: usize = 3 * FREE_BODY_BYTES;
/// Bytes that are decompressed in one go: they become about a megabyte at most.
const CHUNK_BYTES: usize = 1 << 10;

/// How a body is encoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ContentEncoding {
    /// Not at all.
    Identity,
    /// gzip (RFC 1952).
    Gzip,
}

impl ContentEncoding {
    /// What the headers say.
    ///
    /// # Errors
    /// 415 for another encoding, or for several.
    pub fn from_headers(headers: &HeaderMap) -> Result<Self, ApiError> {
        let mut encoding = Self::Identity;
        for value in headers.get_all(CONTENT_ENCODING) {
            for name in value.to_str().map_err(|_| unsupported_encoding_error())?.split(',').map(str::trim) {
                let gzip = ["gzip", "x-gzip"].iter().any(|known| name.eq_ignore_ascii_case(known));
                match encoding {
                    _ if name.is_empty() || name.eq_ignore_ascii_case("identity") => {}
                    Self::Identity if gzip => encoding = Self::Gzip,
                    Self::Identity | Self::Gzip => return Err(unsupported_encoding_error()),
                }
            }
        }
        Ok(encoding)
    }
}

/// A gzip body on its way.
pub struct GzipDecoder<'a>(MultiGzDecoder<BoundedOutput<'a>>);

/// What was decompressed so far, within the limit of bodies and the memory for them.
struct BoundedOutput<'a> {
    bytes: Vec<u8>,
    app: &'a App,
    memory: &'a mut Option<OwnedSemaphorePermit>,
    error: Option<ApiError>,
}

impl BoundedOutput<'_> {
    fn append(&mut self, bytes: &[u8]) -> Result<(), ApiError> {
        if bytes.len() > self.app.limits.requests.max_body_bytes - self.bytes.len() {
            return Err(too_large_error(&self.app.limits.requests));
        }
        self.app.reserve_body_memory(self.memory, DECODER_BYTES + self.bytes.len() + bytes.len())?;
        self.bytes.extend_from_slice(bytes);
        Ok(())
    }
}

impl Write for BoundedOutput<'_> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        match self.append(bytes) {
            Ok(()) => Ok(bytes.len()),
            Err(error) => {
                self.error = Some(error);
                Err(Error::other("the body is refused"))
            }
        }
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl<'a> GzipDecoder<'a> {
    /// Nothing so far.
    ///
    /// # Errors
    /// 503 if there is no memory for another body.
    pub fn new(app: &'a App, memory: &'a mut Option<OwnedSemaphorePermit>) -> Result<Self, ApiError> {
        app.reserve_body_memory(memory, DECODER_BYTES)?;
        Ok(Self(MultiGzDecoder::new(BoundedOutput { bytes: Vec::new(), app, memory, error: None })))
    }

    /// Decompresses the next bytes, and lets other tasks run in between.
    ///
    /// # Errors
    /// 413 if there is more than a body may have, 400 for what is not gzip.
    pub async fn decode(&mut self, compressed: &[u8]) -> Result<(), ApiError> {
        for piece in compressed.chunks(CHUNK_BYTES) {
            if self.0.write_all(piece).is_err() {
                return Err(self.0.get_mut().error.take().unwrap_or_else(damaged_encoding_error));
            }
            tokio::task::coop::consume_budget().await;
        }
        Ok(())
    }

    /// The whole body.
    ///
    /// # Errors
    /// 413 and 400 as before; 400 if the end is missing, or the checksum is another.
    pub fn finish(mut self) -> Result<Vec<u8>, ApiError> {
        if self.0.try_finish().is_err() {
            return Err(self.0.get_mut().error.take().unwrap_or_else(damaged_encoding_error));
        }
        Ok(std::mem::take(&mut self.0.get_mut().bytes))
    }
}

fn unsupported_encoding_error() -> ApiError {
    let detail = "This Content-Encoding is not supported: send the body as it is, or compressed by gzip.";
    ApiError::new(Code::UnsupportedMediaType, detail)
}

fn damaged_encoding_error() -> ApiError {
    let detail = "The Content-Encoding is gzip, and the body is not: it is damaged, cut off, or not compressed.";
    ApiError::new(Code::CorruptEncoding, detail)
}
