//! Where in a client's stream of bytes its messages begin and end (RFC 9112), pure.
//!
//! hyper decides what a request is; this follows the same bytes only to know which wait is
//! which: for a new request, for the rest of a head, or for a body. A client that confuses it
//! gets a wrong time limit and nothing else.
//!
//! hyper reports neither a part of the next head behind a request, nor the arrival of a refused body.
//! Without this, the former would have the time limit of an idle connection, and each refusal of a
//! small body would close its connection.

use FramingState::{Between, Body, Chunk, ChunkEnd, ChunkSize, Head, Lost, Trailer};

/// Bytes that are kept of a line: enough for the two headers that frame a body.
const LONGEST_LINE: usize = 256;

/// The position in the stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum FramingState {
    /// Between two messages.
    #[default]
    Between,
    /// In a head.
    Head,
    /// In a body of which this many bytes are missing.
    Body(u64),
    /// In the line that says the size of a chunk.
    ChunkSize,
    /// In a chunk of which this many bytes are missing.
    Chunk(u64),
    /// Between a chunk and its line's end.
    ChunkEnd,
    /// Behind the last chunk.
    Trailer,
    /// After a chunk without a size: the rest cannot be parsed.
    Lost,
}

/// Follows one stream.
#[derive(Debug, Default)]
pub struct Framing {
    state: FramingState,
    line: Vec<u8>,
    /// Heads that have begun so far.
    pub message_starts: u64,
    request_line_seen: bool,
    length: u64,
    chunked: bool,
}

impl Framing {
    /// Messages that have come to their end.
    #[must_use]
    pub fn complete_messages(&self) -> u64 {
        self.message_starts - u64::from(!self.is_between_messages())
    }

    /// True in a head that is not complete.
    #[must_use]
    pub fn is_in_headers(&self) -> bool {
        self.state == Head
    }

    /// True between two messages, and before the first.
    #[must_use]
    pub fn is_between_messages(&self) -> bool {
        self.state == Between
    }

    /// Takes the next bytes of the stream.
    pub fn feed(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            bytes = match self.state {
                // Old clients send a line end after a body: it begins nothing.
                Between if let [b'\r' | b'\n', rest @ ..] = bytes => rest,
                Between => {
                    self.message_starts += 1;
                    (self.request_line_seen, self.length, self.chunked) = (false, 0, false);
                    self.state = Head;
                    bytes
                }
                Body(missing) => self.skip(bytes, missing, Body, Between),
                Chunk(missing) => self.skip(bytes, missing, Chunk, ChunkEnd),
                Head | ChunkSize | ChunkEnd | Trailer => self.read_line(bytes),
                Lost => &[],
            };
        }
    }

    fn skip<'a>(
        &mut self,
        bytes: &'a [u8],
        missing: u64,
        rest: fn(u64) -> FramingState,
        then: FramingState,
    ) -> &'a [u8] {
        let skipped = bytes.len().min(usize::try_from(missing).unwrap_or(usize::MAX));
        let missing = missing - skipped as u64;
        self.state = if missing == 0 { then } else { rest(missing) };
        bytes.get(skipped..).unwrap_or_default()
    }

    fn read_line<'a>(&mut self, bytes: &'a [u8]) -> &'a [u8] {
        let end = bytes.iter().position(|&byte| byte == b'\n');
        let (part, rest) = bytes.split_at(end.map_or(bytes.len(), |end| end + 1));
        let room = LONGEST_LINE.saturating_sub(self.line.len());
        self.line.extend(part.iter().filter(|byte| !matches!(byte, b'\r' | b'\n')).take(room));
        if end.is_some() {
            let line = std::mem::take(&mut self.line);
            self.end_line(&line);
            self.line = line;
            self.line.clear();
        }
        rest
    }

    fn end_line(&mut self, line: &[u8]) {
        match self.state {
            Head if line.is_empty() && self.request_line_seen => {
                self.state = match self.length {
                    _ if self.chunked => ChunkSize,
                    0 => Between,
                    length => Body(length),
                };
            }
            // Empty lines before a request are passed over.
            Head if line.is_empty() => {}
            Head if self.request_line_seen => self.read_header(line),
            Head => self.request_line_seen = true,
            ChunkSize => {
                let digits = line.split(|&byte| byte == b';').next().unwrap_or_default().trim_ascii();
                let size = std::str::from_utf8(digits).ok().and_then(|digits| u64::from_str_radix(digits, 16).ok());
                self.state = match size {
                    None => Lost,
                    Some(0) => Trailer,
                    Some(size) => Chunk(size),
                };
            }
            ChunkEnd => self.state = ChunkSize,
            Trailer if line.is_empty() => self.state = Between,
            _ => {}
        }
    }

    fn read_header(&mut self, line: &[u8]) {
        let Some((name, value)) = std::str::from_utf8(line).unwrap_or_default().split_once(':') else { return };
        if name.eq_ignore_ascii_case("content-length") {
            self.length = value.trim().parse().unwrap_or_default();
        } else if name.eq_ignore_ascii_case("transfer-encoding") {
            self.chunked |= value.to_ascii_lowercase().contains("chunked");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: &str = "POST / HTTP/1.1\r\nHost: x\r\n";

    /// The framing after these bytes, however they are cut.
    fn after(stream: &str) -> Framing {
        let mut whole = Framing::default();
        whole.feed(stream.as_bytes());
        for size in 1..=stream.len() {
            let mut parts = Framing::default();
            stream.as_bytes().chunks(size).for_each(|part| parts.feed(part));
            assert_eq!((parts.state, parts.message_starts), (whole.state, whole.message_starts), "in parts of {size}");
        }
        whole
    }

    #[test]
    fn framing_complete_message_end_is_found() {
        for (message, heads) in [
            (format!("{HEAD}\r\n"), 1),
            (HEAD.replace('\r', "") + "\n", 1),
            (format!("\r\n\r\n{HEAD}\r\n"), 1),
            (format!("{HEAD}Content-Length: 5\r\n\r\n12345"), 1),
            (format!("{HEAD}content-length:5\r\n\r\n1\n\n\n5{HEAD}CONTENT-LENGTH:  0\r\n\r\n"), 2),
            (
                format!(
                    "{HEAD}Transfer-Encoding: gzip, Chunked\r\n\r\n5;a=b\r\n12345\r\nA\r\n\r\n\r\n\r\n\r\n\r\n\r\n0\r\n\r\n"
                ),
                1,
            ),
            (format!("{HEAD}Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\nA: b\r\n\r\n{HEAD}\r\n"), 2),
        ] {
            let framing = after(&message);
            assert!(framing.is_between_messages(), "{message:?}: {framing:?}");
            assert_eq!(framing.message_starts, heads, "{message:?}");
            assert_eq!(after(&(message.clone() + "\r\n\r\n")).message_starts, heads, "line ends begin nothing");
            let more = after(&(message.clone() + "P"));
            assert_eq!(
                (more.is_in_headers(), more.message_starts, more.complete_messages()),
                (true, heads + 1, heads),
                "{message:?}"
            );
        }
    }

    #[test]
    fn framing_partial_message_is_not_between() {
        for (stream, is_in_headers) in [
            ("P".to_owned(), true),
            ("\r\nP".to_owned(), true),
            (HEAD.to_owned(), true),
            (format!("{HEAD}\r"), true),
            (format!("{HEAD}X: {}\r\n", "a".repeat(10_000)), true),
            (format!("{HEAD}Content-Length: 5\r\n\r\n1234"), false),
            (format!("{HEAD}Content-Length: 99999999999999999999\r\nContent-Length: 7\r\n\r\n"), false),
            (format!("{HEAD}Transfer-Encoding: chunked\r\n\r\n"), false),
            (format!("{HEAD}Transfer-Encoding: chunked\r\n\r\n5\r\n12345"), false),
            (format!("{HEAD}Transfer-Encoding: chunked\r\n\r\n0\r\n"), false),
            (format!("{HEAD}Transfer-Encoding: chunked\r\n\r\nffffffffffffffff\r\nx"), false),
            (format!("{HEAD}Transfer-Encoding: chunked\r\n\r\n-1\r\n\r\n{HEAD}\r\n"), false),
        ] {
            let framing = after(&stream);
            assert!(
                !framing.is_between_messages() && framing.is_in_headers() == is_in_headers,
                "{stream:?}: {framing:?}"
            );
        }
    }
}
