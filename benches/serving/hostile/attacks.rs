//! What hostile clients send. The `n`th request is the same in every run.

use predictd::stats::split_mix64::SplitMix64;

fn pick<T: Copy>(r: &mut SplitMix64, all: &[T]) -> T {
    all[r.next_index(all.len())]
}

fn bytes(r: &mut SplitMix64, count: usize) -> Vec<u8> {
    (0..count).map(|_| r.next_index(256).to_le_bytes()[0]).collect()
}

/// What the client does once it has sent everything.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum AfterSend {
    /// Reads one answer and stays.
    ReadOneAnswer,
    /// Reads one answer, sends no more, and reads until the server closes.
    ReadToEnd,
    /// Sends no more at once, and reads until the server closes: what it sent may be no whole request.
    ShutDownWrite,
    /// Leaves.
    Disconnect,
}

/// One hostile request.
pub(super) struct Attack {
    pub(super) bytes: Vec<u8>,
    pub(super) after_send: AfterSend,
    /// An answer of 200 would be wrong.
    pub(super) must_fail: bool,
}

impl Attack {
    fn read_one_answer(bytes: Vec<u8>) -> Self {
        Self { bytes, after_send: AfterSend::ReadOneAnswer, must_fail: true }
    }

    fn read_to_end(bytes: impl Into<Vec<u8>>) -> Self {
        Self { bytes: bytes.into(), after_send: AfterSend::ReadToEnd, must_fail: true }
    }

    fn shut_down_write(bytes: impl Into<Vec<u8>>) -> Self {
        Self { after_send: AfterSend::ShutDownWrite, ..Self::read_to_end(bytes) }
    }

    /// The server may take it for a request like any other.
    fn allow_ok(self) -> Self {
        Self { must_fail: false, ..self }
    }
}

const JSON_HEADER: &str = "content-type: application/json\r\n";
const GOOD_BODY: &str = r#"{"text":"Where is my card?","model":"banking77-tfidf"}"#;

fn build_request(line: &str, headers: &str, body: &[u8]) -> Vec<u8> {
    let mut bytes =
        format!("{line} HTTP/1.1\r\nhost: bench\r\n{headers}content-length: {}\r\n\r\n", body.len()).into_bytes();
    bytes.extend_from_slice(body);
    bytes
}

fn predict(body: impl AsRef<[u8]>) -> Attack {
    Attack::read_one_answer(build_request("POST /predict", JSON_HEADER, body.as_ref()))
}

fn batch(body: impl AsRef<[u8]>) -> Attack {
    Attack::read_one_answer(build_request("POST /batch_predict", JSON_HEADER, body.as_ref()))
}

fn chunked(chunks: &[u8]) -> Attack {
    let mut bytes = format!("POST /predict HTTP/1.1\r\nhost: bench\r\n{JSON_HEADER}transfer-encoding: chunked\r\n\r\n")
        .into_bytes();
    bytes.extend_from_slice(chunks);
    Attack::shut_down_write(bytes)
}

fn not_json(r: &mut SplitMix64) -> Attack {
    predict(pick(
        r,
        &[
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
        ],
    ))
}

fn numbers(r: &mut SplitMix64) -> Attack {
    let number = pick(
        r,
        &[
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
        ],
    );
    predict(format!(r#"{{"text":"a","top_k":{number}}}"#))
}

fn nesting(r: &mut SplitMix64) -> Attack {
    let depth = pick(r, &[127, 128, 129, 1_000, 20_000]);
    let opening = pick(r, &["[", "{\"a\":", "{\"text\":", "[{\"a\":"]);
    predict(opening.repeat(depth))
}

fn types(r: &mut SplitMix64) -> Attack {
    let value = pick(r, &["1", "null", "true", "[]", "{}", "[\"a\"]", "{\"a\":1}", "1.5"]);
    let field = pick(r, &["text", "model", "version", "user_id", "return_probabilities", "raw_scores", "colour"]);
    let attack = predict(format!(r#"{{"text":"a","text":"b","{field}":{value}}}"#));
    if r.next_index(2) == 0 { attack } else { predict(value) }
}

fn nul_bytes(r: &mut SplitMix64) -> Attack {
    let text = pick(r, &["\\u0000", "a\\u0000b", "\\u0001\\u0002", "\\u001b[31m", "\\u009f"]);
    if r.next_index(2) == 0 { predict(format!(r#"{{"text":"{text}"}}"#)) } else { predict([0; 64]) }
}

fn bad_utf8(r: &mut SplitMix64) -> Attack {
    let bytes: &[u8] =
        pick(r, &[&b"\xff"[..], b"\xc0\xaf", b"\xed\xa0\x80", b"\xf5\x80\x80\x80", b"\xe2\x82", b"\x80"]);
    predict([b"{\"text\":\"a", bytes, b"\"}"].concat())
}

fn blank(r: &mut SplitMix64) -> Attack {
    let text = pick(r, &["", " ", "\\t\\n", "\u{a0}", "\u{3000}\u{3000}", "\u{200b}", "<script>x</script>"]);
    // Some of these are blank to people only.
    predict(format!(r#"{{"text":"{text}","model":"banking77-tfidf"}}"#)).allow_ok()
}

fn long_text(r: &mut SplitMix64) -> Attack {
    let letter = pick(r, &["a", "a ", "é", "\u{1f980}"]);
    predict(format!(r#"{{"text":"{}"}}"#, letter.repeat(32_769)))
}

fn batches(r: &mut SplitMix64) -> Attack {
    let many = vec!["a"; 1_025];
    match r.next_index(6) {
        0 => batch("[]"),
        1 => batch(r#"{"texts":[]}"#),
        2 => batch(serde_json::json!(many).to_string()),
        3 => batch("[1,2,3]"),
        4 => batch(r#"{"texts":"a"}"#),
        _ => batch(r#"{"texts":["a"],"texts":["b"]}"#),
    }
}

fn names(r: &mut SplitMix64) -> Attack {
    let name = pick(r, &["", ".", "..", "../../etc/passwd", "banking77-minilm/1", "BANKING77", "%00", "a\\u0000"]);
    let field = pick(r, &["model", "version"]);
    predict(format!(r#"{{"text":"a","{field}":"{name}"}}"#))
}

fn content_types(r: &mut SplitMix64) -> Attack {
    let kind = pick(
        r,
        &[
            "",
            "text/plain",
            "application/x-www-form-urlencoded",
            "application/json; charset=utf-16",
            "multipart/form-data; boundary=x",
            "application/jsonx",
            ";;;",
        ],
    );
    let header = if kind.is_empty() { String::new() } else { format!("content-type: {kind}\r\n") };
    let encoding =
        if r.next_index(3) == 0 { "content-encoding: gzip\r\ncontent-type: application/json\r\n" } else { &header };
    Attack::read_one_answer(build_request("POST /predict", encoding, GOOD_BODY.as_bytes()))
}

fn request_headers(r: &mut SplitMix64) -> Attack {
    let value = pick(r, &["0", "-1", "abc", "1e3", "", "99999999999999999999999", "1.5", "\u{e9}"]);
    Attack::read_one_answer(build_request(
        "POST /predict",
        &format!("{JSON_HEADER}x-request-timeout-ms: {value}\r\n"),
        GOOD_BODY.as_bytes(),
    ))
}

fn methods(r: &mut SplitMix64) -> Attack {
    let method = pick(r, &["GET", "PUT", "DELETE", "PATCH", "TRACE", "PROPFIND", "BREW", "predict"]);
    Attack::read_one_answer(build_request(&format!("{method} /predict"), JSON_HEADER, b""))
}

fn routes(r: &mut SplitMix64) -> Attack {
    let path = pick(
        r,
        &[
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
        ],
    );
    Attack::read_one_answer(build_request(&format!("GET {path}"), "", b""))
}

fn long_line(r: &mut SplitMix64) -> Attack {
    let length = pick(r, &[1_000, 8_000, 60_000, 70_000, 300_000]);
    Attack::read_to_end(build_request(&format!("GET /{}", "a".repeat(length)), "", b""))
}

fn many_headers(r: &mut SplitMix64) -> Attack {
    let count = pick(r, &[90, 101, 1_000, 5_000]);
    let headers = "x-hostile: 1\r\n".repeat(count);
    Attack::read_to_end(build_request("GET /models/none", &headers, b""))
}

fn bad_heads(r: &mut SplitMix64) -> Attack {
    let head = pick(
        r,
        &[
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
        ],
    );
    Attack::read_to_end(head).allow_ok()
}

fn hosts(r: &mut SplitMix64) -> Attack {
    let hosts = pick(r, &["", "host: a\r\nhost: b\r\n", "host: a b\r\n", "host: a@b\r\n"]);
    Attack::read_to_end(format!("GET /livez HTTP/1.1\r\n{hosts}\r\n"))
}

fn lengths(r: &mut SplitMix64) -> Attack {
    let lengths = pick(
        r,
        &[
            "content-length: -1",
            "content-length: +5",
            "content-length: 5, 6",
            "content-length: 5\r\ncontent-length: 6",
            "content-length: 18446744073709551616",
            "content-length: abc",
            "content-length: 99999999999",
            "content-length: 3000000",
            "content-length:",
        ],
    );
    Attack::shut_down_write(format!(
        "POST /predict HTTP/1.1\r\nhost: bench\r\n{JSON_HEADER}{lengths}\r\n\r\n{GOOD_BODY}"
    ))
}

fn both_framings(r: &mut SplitMix64) -> Attack {
    let encoding = pick(r, &["chunked", "identity", "chunked, chunked", "xchunked", "chunked, identity", " chunked"]);
    let smuggled = "0\r\n\r\nGET /livez HTTP/1.1\r\nhost: bench\r\n\r\n";
    let head = format!(
        "POST /predict HTTP/1.1\r\nhost: bench\r\n{JSON_HEADER}content-length: 6\r\ntransfer-encoding: {encoding}\r\n\r\n"
    );
    // The second request is answered where the end of the first is beyond doubt.
    Attack::shut_down_write(head + smuggled).allow_ok()
}

fn bad_chunks(r: &mut SplitMix64) -> Attack {
    let chunks: &[u8] = pick(
        r,
        &[
            &b"zz\r\n"[..],
            b"-1\r\na\r\n",
            b"5\r\nab",
            b"5\r\nabcdefgh\r\n0\r\n\r\n",
            b"ffffffffffffffffff\r\n",
            b"1;\x00\r\na\r\n0\r\n\r\n",
            b"0\r\nx: y",
            b"\r\n\r\n",
            b"1\na\n0\n\n",
        ],
    );
    chunked(chunks)
}

fn too_many_chunks(_: &mut SplitMix64) -> Attack {
    chunked(&[&b"100\r\n"[..], &[b' '; 256], b"\r\n"].concat().repeat(9_000))
}

fn garbage(r: &mut SplitMix64) -> Attack {
    let count = 1 + r.next_index(2_000);
    Attack::shut_down_write(bytes(r, count))
}

fn tls_hello(r: &mut SplitMix64) -> Attack {
    let mut hello = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03".to_vec();
    hello.extend(bytes(r, 506));
    Attack::shut_down_write(hello)
}

fn half_requests(r: &mut SplitMix64) -> Attack {
    let whole = build_request("POST /predict", JSON_HEADER, GOOD_BODY.as_bytes());
    let part = whole[..r.next_index(whole.len())].to_vec();
    Attack { after_send: pick(r, &[AfterSend::Disconnect, AfterSend::ShutDownWrite]), ..Attack::read_to_end(part) }
}

fn early_disconnect(r: &mut SplitMix64) -> Attack {
    let model = pick(r, &["banking77-tfidf", "banking77-minilm"]);
    let body = format!(r#"{{"text":"Where is my card?","model":"{model}"}}"#);
    Attack { after_send: AfterSend::Disconnect, ..predict(body) }
}

fn noise_in_json(r: &mut SplitMix64) -> Attack {
    let mut body = GOOD_BODY.as_bytes().to_vec();
    for _ in 0..=r.next_index(4) {
        let at = r.next_index(body.len());
        body[at] = r.next_index(256).to_le_bytes()[0];
    }
    predict(body).allow_ok()
}

type AttackKind = (&'static str, usize, fn(&mut SplitMix64) -> Attack);

/// Every kind with its weight: what needs a connection of its own, or megabytes, comes less often.
pub(super) const ATTACK_KINDS: &[AttackKind] = &[
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
    ("leaves early", 2, early_disconnect),
    ("many small chunks", 1, too_many_chunks),
];
