//! As much of HTTP/1.1 as reading answers takes: a status, a Content-Length, a body.

use std::io::{Error, ErrorKind, Read, Result};

/// The head of an answer.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ResponseHead {
    pub(crate) status: u16,
    /// Bytes of the head itself, the empty line included.
    pub(crate) head_bytes: usize,
    /// Bytes of the body after it.
    pub(crate) body_bytes: usize,
    /// The server closes the connection after this answer.
    pub(crate) close: bool,
}

fn invalid_data(reason: &'static str) -> Error {
    Error::new(ErrorKind::InvalidData, reason)
}

/// Reads a head from the start of `bytes`; nothing if it is not there in full.
pub(crate) fn parse_head(bytes: &[u8]) -> Result<Option<ResponseHead>> {
    let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") else { return Ok(None) };
    let text = std::str::from_utf8(&bytes[..end]).map_err(|_| invalid_data("a head that is not text"))?;
    let mut lines = text.split("\r\n");
    let status = lines.next().and_then(|line| line.strip_prefix("HTTP/1.")?.get(2..5)?.parse().ok());
    let mut head = ResponseHead {
        status: status.ok_or(invalid_data("no status"))?,
        head_bytes: end + 4,
        body_bytes: 0,
        close: false,
    };
    for (name, value) in lines.filter_map(|line| line.split_once(':')) {
        if name.eq_ignore_ascii_case("content-length") {
            head.body_bytes = value.trim().parse().map_err(|_| invalid_data("no length"))?;
        } else if name.eq_ignore_ascii_case("connection") {
            head.close = value.trim().eq_ignore_ascii_case("close");
        }
    }
    Ok(Some(head))
}

/// An answer read in full.
pub(crate) struct Response {
    pub(crate) status: u16,
    pub(crate) body: Vec<u8>,
    pub(crate) close: bool,
}

/// Reads the next answer; nothing if the server closed the connection before it began. `left` keeps
/// what came after an answer for the next call.
pub(crate) fn read_response(stream: &mut impl Read, left: &mut Vec<u8>) -> Result<Option<Response>> {
    let mut chunk = [0; 16 * 1024];
    loop {
        if let Some(head) = parse_head(left)?
            && left.len() >= head.head_bytes + head.body_bytes
        {
            let rest = left.split_off(head.head_bytes + head.body_bytes);
            let whole = std::mem::replace(left, rest);
            return Ok(Some(Response {
                status: head.status,
                body: whole[head.head_bytes..].to_vec(),
                close: head.close,
            }));
        }
        match stream.read(&mut chunk)? {
            0 if left.is_empty() => return Ok(None),
            0 => return Err(ErrorKind::UnexpectedEof.into()),
            read => left.extend_from_slice(&chunk[..read]),
        }
    }
}
