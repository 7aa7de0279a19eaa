//! What hostile clients send. The `n`th request is the same in every run.

/// Numbers that depend on the seed only (`SplitMix64`).
pub(super) struct Random(u64);

impl Random {
    pub(super) fn new(seed: usize) -> Self {
        Self(seed as u64)
    }

    /// Below `end`.
    pub(super) fn below(&mut self, end: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        usize::try_from((mixed ^ (mixed >> 31)) % end as u64).unwrap()
    }

    fn one_of<T: Copy>(&mut self, all: &[T]) -> T {
        all[self.below(all.len())]
    }

    fn bytes(&mut self, count: usize) -> Vec<u8> {
        (0..count).map(|_| self.below(256).to_le_bytes()[0]).collect()
    }
}

/// What the client does once it has sent everything.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Then {
    /// Reads one answer and stays.
    Stays,
    /// Reads one answer, sends no more, and reads until the server closes.
    Ends,
    /// Sends no more at once, and reads until the server closes: what it sent may be no whole request.
    BreaksOff,
    /// Leaves.
    Leaves,
}

/// One hostile request.
pub(super) struct Attack {
    pub(super) bytes: Vec<u8>,
    pub(super) then: Then,
    /// An answer of 200 would be wrong.
    pub(super) never_ok: bool,
}

impl Attack {
    fn stays(bytes: Vec<u8>) -> Self {
        Self { bytes, then: Then::Stays, never_ok: true }
    }

    fn ends(bytes: impl Into<Vec<u8>>) -> Self {
        Self { bytes: bytes.into(), then: Then::Ends, never_ok: true }
    }

    fn breaks_off(bytes: impl Into<Vec<u8>>) -> Self {
        Self { then: Then::BreaksOff, ..Self::ends(bytes) }
    }

    /// The server may take it for a request like any other.
    fn perhaps_ok(self) -> Self {
        Self { never_ok: false, ..self }
    }
}

const JSON: &str = "content-type: application/json\r\n";
const GOOD: &str = r#"{"text":"Where is my card?","model":"banking77-tfidf"}"#;

fn request(line: &str, headers: &str, body: &[u8]) -> Vec<u8> {
    let mut bytes =
        format!("{line} HTTP/1.1\r\nhost: bench\r\n{headers}content-length: {}\r\n\r\n", body.len()).into_bytes();
    bytes.extend_from_slice(body);
    bytes
}

fn predict(body: impl AsRef<[u8]>) -> Attack {
    Attack::stays(request("POST /predict", JSON, body.as_ref()))
}

fn batch(body: impl AsRef<[u8]>) -> Attack {
    Attack::stays(request("POST /batch_predict", JSON, body.as_ref()))
}

fn chunked(chunks: &[u8]) -> Attack {
    let mut bytes =
        format!("POST /predict HTTP/1.1\r\nhost: bench\r\n{JSON}transfer-encoding: chunked\r\n\r\n").into_bytes();
    bytes.extend_from_slice(chunks);
    Attack::breaks_off(bytes)
}

fn not_json(r: &mut Random) -> Attack {
    predict(r.one_of(&[
        "",
        "{",
        "[",
        "{\"text\":",
        "{\"text\":\"a\"",
        "nul",
        "{'text':'a'}",
        "{\"text\":\"a\",}",
        "\u{feff}{}",
        "{\"text\":\"\\ud800\"}",
        "{\"text\":\"a\u{1}\"}",
    ]))
}

fn numbers(r: &mut Random) -> Attack {
    let number = r.one_of(&[
        "1e999",
        "-1e999",
        "18446744073709551616",
        "-1",
        "0",
        "1.5",
        "1e-400",
        "99999999999999999999999999",
        "NaN",
        "Infinity",
        "0x10",
        "01",
    ]);
    predict(format!(r#"{{"text":"a","top_k":{number}}}"#))
}

fn nesting(r: &mut Random) -> Attack {
    let depth = r.one_of(&[127, 128, 129, 1_000, 20_000]);
    let opening = r.one_of(&["[", "{\"a\":", "{\"text\":", "[{\"a\":"]);
    predict(opening.repeat(depth))
}

fn types(r: &mut Random) -> Attack {
    let value = r.one_of(&["1", "null", "true", "[]", "{}", "[\"a\"]", "{\"a\":1}", "1.5"]);
    let field = r.one_of(&["text", "model", "version", "user_id", "return_probabilities", "raw_scores", "colour"]);
    let attack = predict(format!(r#"{{"text":"a","text":"b","{field}":{value}}}"#));
    if r.below(2) == 0 { attack } else { predict(value) }
}

fn nul_bytes(r: &mut Random) -> Attack {
    let text = r.one_of(&["\\u0000", "a\\u0000b", "\\u0001\\u0002", "\\u001b[31m", "\\u009f"]);
    if r.below(2) == 0 { predict(format!(r#"{{"text":"{text}"}}"#)) } else { predict([0; 64]) }
}

fn bad_utf8(r: &mut Random) -> Attack {
    let bytes: &[u8] =
        r.one_of(&[&b"\xff"[..], b"\xc0\xaf", b"\xed\xa0\x80", b"\xf5\x80\x80\x80", b"\xe2\x82", b"\x80"]);
    predict([b"{\"text\":\"a", bytes, b"\"}"].concat())
}

fn blank(r: &mut Random) -> Attack {
    let text = r.one_of(&["", " ", "\\t\\n", "\u{a0}", "\u{3000}\u{3000}", "\u{200b}", "<script>x</script>"]);
    // Some of these are blank to people only.
    predict(format!(r#"{{"text":"{text}","model":"banking77-tfidf"}}"#)).perhaps_ok()
}

fn long_text(r: &mut Random) -> Attack {
    let letter = r.one_of(&["a", "a ", "é", "\u{1f980}"]);
    predict(format!(r#"{{"text":"{}"}}"#, letter.repeat(32_769)))
}

fn batches(r: &mut Random) -> Attack {
    let many = vec!["a"; 1_025];
    match r.below(6) {
        0 => batch("[]"),
        1 => batch(r#"{"texts":[]}"#),
        2 => batch(serde_json::json!(many).to_string()),
        3 => batch("[1,2,3]"),
        4 => batch(r#"{"texts":"a"}"#),
        _ => batch(r#"{"texts":["a"],"texts":["b"]}"#),
    }
}

fn names(r: &mut Random) -> Attack {
    let name = r.one_of(&["", ".", "..", "../../etc/passwd", "banking77-minilm/1", "BANKING77", "%00", "a\\u0000"]);
    let field = r.one_of(&["model", "version"]);
    predict(format!(r#"{{"text":"a","{field}":"{name}"}}"#))
}

fn content_types(r: &mut Random) -> Attack {
    let kind = r.one_of(&[
        "",
        "text/plain",
        "application/x-www-form-urlencoded",
        "application/json; charset=utf-16",
        "multipart/form-data; boundary=x",
        "application/jsonx",
        ";;;",
    ]);
    let header = if kind.is_empty() { String::new() } else { format!("content-type: {kind}\r\n") };
    let encoding =
        if r.below(3) == 0 { "content-encoding: gzip\r\ncontent-type: application/json\r\n" } else { &header };
    Attack::stays(request("POST /predict", encoding, GOOD.as_bytes()))
}

fn request_headers(r: &mut Random) -> Attack {
    let value = r.one_of(&["0", "-1", "abc", "1e3", "", "99999999999999999999999", "1.5", "\u{e9}"]);
    Attack::stays(request("POST /predict", &format!("{JSON}x-request-timeout-ms: {value}\r\n"), GOOD.as_bytes()))
}

fn methods(r: &mut Random) -> Attack {
    let method = r.one_of(&["GET", "PUT", "DELETE", "PATCH", "TRACE", "PROPFIND", "BREW", "predict"]);
    Attack::stays(request(&format!("{method} /predict"), JSON, b""))
}

fn routes(r: &mut Random) -> Attack {
    let path = r.one_of(&[
        "/",
        "/predict/",
        "//predict",
        "/admin",
        "/.env",
        "/models/../etc/passwd",
        "/models/%2e%2e",
        "/models/%00",
        "/models/%ff",
        "/PREDICT",
        "/predict%2f",
        "/models/x/y/z",
    ]);
    Attack::stays(request(&format!("GET {path}"), "", b""))
}

fn long_line(r: &mut Random) -> Attack {
    let length = r.one_of(&[1_000, 8_000, 60_000, 70_000, 300_000]);
    Attack::ends(request(&format!("GET /{}", "a".repeat(length)), "", b""))
}

fn many_headers(r: &mut Random) -> Attack {
    let count = r.one_of(&[90, 101, 1_000, 5_000]);
    let headers = "x-hostile: 1\r\n".repeat(count);
    Attack::ends(request("GET /models/none", &headers, b""))
}

fn bad_heads(r: &mut Random) -> Attack {
    let head = r.one_of(&[
        "GET / HTTP/1.1\r\nhost : bench\r\n\r\n",
        "GET / HTTP/1.1\r\n host: bench\r\n\r\n",
        "GET / HTTP/9.9\r\nhost: bench\r\n\r\n",
        "GET / HTTP/1.1\r\nho\0st: bench\r\n\r\n",
        "GET / HTTP/1.1\r\nhost: be\0nch\r\n\r\n",
        "GET  / HTTP/1.1\r\nhost: bench\r\n\r\n",
        "GET / HTTP/1.1\nhost: bench\n\n",
        "GET\r\n\r\n",
        "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        "CONNECT example.com:443 HTTP/1.1\r\nhost: example.com\r\n\r\n",
        "OPTIONS * HTTP/1.1\r\nhost: bench\r\n\r\n",
        "GET http://example.com/none HTTP/1.1\r\nhost: bench\r\n\r\n",
    ]);
    Attack::ends(head).perhaps_ok()
}

fn hosts(r: &mut Random) -> Attack {
    let hosts = r.one_of(&["", "host: a\r\nhost: b\r\n", "host: a b\r\n", "host: a@b\r\n"]);
    Attack::ends(format!("GET /livez HTTP/1.1\r\n{hosts}\r\n"))
}

fn lengths(r: &mut Random) -> Attack {
    let lengths = r.one_of(&[
        "content-length: -1",
        "content-length: +5",
        "content-length: 5, 6",
        "content-length: 5\r\ncontent-length: 6",
        "content-length: 18446744073709551616",
        "content-length: abc",
        "content-length: 99999999999",
        "content-length: 3000000",
        "content-length:",
    ]);
    Attack::breaks_off(format!("POST /predict HTTP/1.1\r\nhost: bench\r\n{JSON}{lengths}\r\n\r\n{GOOD}"))
}

fn both_framings(r: &mut Random) -> Attack {
    let encoding = r.one_of(&["chunked", "identity", "chunked, chunked", "xchunked", "chunked, identity", " chunked"]);
    let smuggled = "0\r\n\r\nGET /livez HTTP/1.1\r\nhost: bench\r\n\r\n";
    let head = format!(
        "POST /predict HTTP/1.1\r\nhost: bench\r\n{JSON}content-length: 6\r\ntransfer-encoding: {encoding}\r\n\r\n"
    );
    // The second request is answered where the end of the first is beyond doubt.
    Attack::breaks_off(head + smuggled).perhaps_ok()
}

fn bad_chunks(r: &mut Random) -> Attack {
    let chunks: &[u8] = r.one_of(&[
        &b"zz\r\n"[..],
        b"-1\r\na\r\n",
        b"5\r\nab",
        b"5\r\nabcdefgh\r\n0\r\n\r\n",
        b"ffffffffffffffffff\r\n",
        b"1;\x00\r\na\r\n0\r\n\r\n",
        b"0\r\nx: y",
        b"\r\n\r\n",
        b"1\na\n0\n\n",
    ]);
    chunked(chunks)
}

fn too_many_chunks(_: &mut Random) -> Attack {
    chunked(&[&b"100\r\n"[..], &[b' '; 256], b"\r\n"].concat().repeat(9_000))
}

fn garbage(r: &mut Random) -> Attack {
    let count = 1 + r.below(2_000);
    Attack::breaks_off(r.bytes(count))
}

fn tls_hello(r: &mut Random) -> Attack {
    let mut hello = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03".to_vec();
    hello.extend(r.bytes(506));
    Attack::breaks_off(hello)
}

fn half_requests(r: &mut Random) -> Attack {
    let whole = request("POST /predict", JSON, GOOD.as_bytes());
    let part = whole[..r.below(whole.len())].to_vec();
    Attack { then: r.one_of(&[Then::Leaves, Then::BreaksOff]), ..Attack::ends(part) }
}

fn leaves(r: &mut Random) -> Attack {
    let model = r.one_of(&["banking77-tfidf", "banking77-minilm"]);
    let body = format!(r#"{{"text":"Where is my card?","model":"{model}"}}"#);
    Attack { then: Then::Leaves, ..predict(body) }
}

fn noise_in_json(r: &mut Random) -> Attack {
    let mut body = GOOD.as_bytes().to_vec();
    for _ in 0..=r.below(4) {
        let at = r.below(body.len());
        body[at] = r.below(256).to_le_bytes()[0];
    }
    predict(body).perhaps_ok()
}

type Kind = (&'static str, usize, fn(&mut Random) -> Attack);

/// Every kind with its weight: what needs a connection of its own, or megabytes, comes less often.
pub(super) const KINDS: &[Kind] = &[
    ("not JSON", 10, not_json),
    ("numbers", 10, numbers),
    ("nesting", 3, nesting),
    ("types", 10, types),
    ("NUL and control characters", 6, nul_bytes),
    ("bad UTF-8", 8, bad_utf8),
    ("flipped bytes", 8, noise_in_json),
    ("blank texts", 6, blank),
    ("too long texts", 1, long_text),
    ("batches", 6, batches),
    ("models and versions", 8, names),
    ("content types", 8, content_types),
    ("X-Request-Timeout-Ms", 6, request_headers),
    ("methods", 8, methods),
    ("routes", 8, routes),
    ("long lines", 1, long_line),
    ("many headers", 1, many_headers),
    ("bad heads", 3, bad_heads),
    ("hosts", 3, hosts),
    ("lengths", 3, lengths),
    ("length and chunks", 3, both_framings),
    ("bad chunks", 3, bad_chunks),
    ("garbage", 2, garbage),
    ("TLS hello", 2, tls_hello),
    ("half requests", 3, half_requests),
    ("leaves early", 2, leaves),
    ("many small chunks", 1, too_many_chunks),
];
