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

/// True if the headers say that the body is compressed by gzip (RFC 1952), false if it is not compressed.
///
/// # Errors
/// 415 for another encoding, or for several.
pub fn is_gzip(headers: &HeaderMap) -> Result<bool, ApiError> {
    let mut is_gzip = false;
    for line in headers.get_all(CONTENT_ENCODING) {
        let line = line.to_str().map_err(|_| unsupported_encoding_error())?;
        for name in line.split(',').map(str::trim) {
            if name.is_empty() || name.eq_ignore_ascii_case("identity") {
                continue;
            }
            let names_gzip = ["gzip", "x-gzip"].iter().any(|gzip| name.eq_ignore_ascii_case(gzip));
            if is_gzip || !names_gzip {
                return Err(unsupported_encoding_error());
            }
            is_gzip = true;
        }
    }
    Ok(is_gzip)
}

fn unsupported_encoding_error() -> ApiError {
    ApiError::new(
        Code::UnsupportedMediaType,
        "This Content-Encoding is not supported: send the body as it is, or compressed by gzip.",
    )
}

/// A body that is being received and decoded.
pub enum BodyDecoder<'a> {
    /// It is not compressed.
    Plain(BoundedOutput<'a>),
    /// It is compressed by gzip.
    Gzip(Box<MultiGzDecoder<BoundedOutput<'a>>>),
}

/// What was decoded so far, within the limit of bodies and the memory for them.
pub struct BoundedOutput<'a> {
    bytes: Vec<u8>,
    app: &'a App,
    memory: &'a mut Option<OwnedSemaphorePermit>,
    /// Memory that is taken besides that of the bytes.
    decoder_bytes: usize,
    error: Option<ApiError>,
}

impl BoundedOutput<'_> {
    fn append(&mut self, bytes: &[u8]) -> Result<(), ApiError> {
        if bytes.len() > self.app.limits.requests.max_body_bytes - self.bytes.len() {
            return Err(too_large_error(&self.app.limits.requests));
        }
        self.app.reserve_body_memory(self.memory, self.decoder_bytes + self.bytes.len() + bytes.len())?;
        self.bytes.extend_from_slice(bytes);
        Ok(())
    }

    /// The body is refused, or it is not gzip.
    fn take_error(&mut self) -> ApiError {
        self.error.take().unwrap_or_else(|| {
            ApiError::new(
                Code::CorruptEncoding,
                "The Content-Encoding is gzip, and the body is not: it is damaged, cut off, or not compressed.",
            )
        })
    }
}

impl Write for BoundedOutput<'_> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.append(bytes).map(|()| bytes.len()).map_err(|error| {
            self.error = Some(error);
            Error::other("the body is refused")
        })
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl<'a> BodyDecoder<'a> {
    /// Nothing so far.
    ///
    /// # Errors
    /// 503 if there is no memory for another body.
    pub fn new(is_gzip: bool, app: &'a App, memory: &'a mut Option<OwnedSemaphorePermit>) -> Result<Self, ApiError> {
        let mut output = BoundedOutput { bytes: Vec::new(), app, memory, decoder_bytes: 0, error: None };
        if !is_gzip {
            return Ok(Self::Plain(output));
        }
        output.decoder_bytes = DECODER_BYTES;
        output.append(&[])?;
        Ok(Self::Gzip(Box::new(MultiGzDecoder::new(output))))
    }

    /// Decodes the next bytes, and lets other tasks run in between.
    ///
    /// # Errors
    /// 413 if there is more than a body may have, 400 for what is not gzip.
    pub async fn decode(&mut self, encoded: &[u8]) -> Result<(), ApiError> {
        let decoder = match self {
            Self::Plain(output) => return output.append(encoded),
            Self::Gzip(decoder) => decoder,
        };
        for chunk in encoded.chunks(CHUNK_BYTES) {
            if decoder.write_all(chunk).is_err() {
                return Err(decoder.get_mut().take_error());
            }
            tokio::task::coop::consume_budget().await;
        }
        Ok(())
    }

    /// The whole body.
    ///
    /// # Errors
    /// 413 and 400 as before; 400 if the end is missing, or the checksum is another.
    pub fn finish(self) -> Result<Vec<u8>, ApiError> {
        match self {
            Self::Plain(output) => Ok(output.bytes),
            Self::Gzip(mut decoder) => {
                if decoder.try_finish().is_err() {
                    return Err(decoder.get_mut().take_error());
                }
                Ok(std::mem::take(&mut decoder.get_mut().bytes))
            }
        }
    }
}
