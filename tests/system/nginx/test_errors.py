"""Every error, asked of the server and through nginx: it must be the same one (RELIABILITY.md, section 3)."""

import re
import unittest
from dataclasses import dataclass

import wire
from instance import ROOT, Nginx, until
from predictd import Predictd
from wire import Answer, get, post

MOST = 2 << 20
# What every connection and every proxy has of its own.
OF_ITS_OWN = {"server", "date", "connection", "content-length", "x-request-id", "retry-after"}


@dataclass
class Case:
    """A request, what the server answers, and what nginx does where that is something else, and why."""

    name: str
    request: bytes
    direct: tuple[int, str]
    through: tuple[int, str] | None = None
    why: str = ""


def chunked(body: bytes) -> bytes:
    """A request with a body of one chunk."""
    head = post("/predict").split(b"Content-Length")[0]
    return head + b"Transfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n0\r\n\r\n" % (len(body), body)


def announced(length: int) -> bytes:
    """A request whose body does not come."""
    return post("/predict").split(b"Content-Length")[0] + b"Content-Length: %d\r\n\r\n" % length


def many(count: int, header: str = "X-%d: a\r\n") -> str:
    """So many headers."""
    return "".join(header % number for number in range(count))


GENERAL = "nginx has one answer for all heads that it does not take"
CASES = [
    Case("no JSON", post("/predict", "{"), (400, "malformed-json")),
    Case("no JSON in a batch", post("/batch_predict", '["a",'), (400, "malformed-json")),
    Case("no UTF-8", post("/predict").replace(b"hello", b"hell\xff"), (400, "malformed-json")),
    Case("nothing", post("/predict", ""), (400, "malformed-json")),
    Case("an unknown field", post("/predict", '{"text":"a","colour":"red"}'), (422, "invalid-request")),
    Case("a wrong type", post("/predict", '{"text":1}'), (422, "invalid-request")),
    Case("an empty text", post("/predict", '{"text":""}'), (422, "invalid-request")),
    Case("an empty batch", post("/batch_predict", "[]"), (422, "invalid-request")),
    Case("out of range", post("/predict", '{"text":"a","top_k":-1}'), (422, "invalid-request")),
    Case("no content type", post("/predict", kind=""), (415, "unsupported-media-type")),
    Case("another content type", post("/predict", kind="text/plain"), (415, "unsupported-media-type")),
    Case("another charset", post("/predict", kind="application/json; charset=latin-1"),
         (415, "unsupported-media-type")),
    Case("compressed", post("/predict", headers="Content-Encoding: br\r\n"), (415, "unsupported-media-type")),
    Case("compressed, and damaged", post("/predict", headers="Content-Encoding: gzip\r\n"), (400, "damaged-encoding")),
    Case("no such route", get("/nowhere"), (404, "not-found")),
    Case("no such route for a POST", post("/nowhere"), (404, "not-found")),
    Case("no such route below a route", post("/predict/x"), (404, "not-found")),
    Case("no such model to show", get("/models/none"), (404, "model-not-found")),
    Case("no such model to ask", post("/predict", '{"text":"a","model":"none"}'), (404, "model-not-found")),
    Case("no such version", post("/predict", '{"text":"a","model":"m","version":"9"}'), (404, "model-not-found")),
    Case("GET of a POST", get("/predict"), (405, "method-not-allowed")),
    Case("HEAD of a POST", get("/batch_predict", method="HEAD"), (405, "")),
    Case("POST of a GET", post("/health"), (405, "method-not-allowed")),
    Case("PUT", post("/predict").replace(b"POST", b"PUT"), (405, "method-not-allowed")),
    Case("OPTIONS", get("/models", method="OPTIONS"), (405, "method-not-allowed")),
    Case("an unknown method", get("/livez", method="FOO"), (405, "method-not-allowed")),
    Case("TRACE", get("/predict", method="TRACE"), (405, "method-not-allowed")),
    Case("TRACE of a GET", get("/health", method="TRACE"), (405, "method-not-allowed")),
    Case("TRACE of nothing", get("/nowhere", method="TRACE"), (404, "not-found"), (405, "method-not-allowed"),
         "nginx refuses the method before it looks for the route"),
    Case("no time", post("/predict", headers="X-Request-Timeout-Ms: 0\r\n"), (400, "invalid-header")),
    Case("too little time", post("/batch_predict", str(["a"] * 1_000).replace("'", '"'),
                                 "X-Request-Timeout-Ms: 1\r\n"), (504, "deadline-exceeded")),
    Case("a large header", get("/livez", "X: " + "a" * (33 << 10) + "\r\n"), (431, "headers-too-large")),
    Case("a larger header", get("/livez", "X: " + "a" * 60_000 + "\r\n"), (431, "headers-too-large")),
    Case("a huge header", get("/livez", "X: " + "a" * 600_000 + "\r\n"), (431, ""), (431, "headers-too-large"),
         "over the limits of hyper, which says no more"),
    Case("many headers", get("/livez", many(65)), (431, "headers-too-large")),
    Case("63 headers", get("/livez", many(61)), (200, ""), (431, "headers-too-large"),
         "nginx adds three, and takes one away"),
    Case("large headers", get("/livez", many(20, "X-%d: " + "a" * 2_000 + "\r\n")), (431, "headers-too-large")),
    Case("a long URI", get("/livez?" + "a" * (8 << 10)), (414, "uri-too-long")),
    Case("a longer URI", get("/livez?" + "a" * 60_000), (414, "uri-too-long")),
    Case("a long URI of nothing", get("/nowhere?" + "a" * 9_000), (414, "uri-too-long"), (404, "not-found"),
         "up to 33 KiB the server measures it, and this route is not its"),
    Case("a large body", announced(MOST + 1), (413, "body-too-large")),
    Case("an endless body", announced(99_999_999_999), (413, "body-too-large")),
    Case("a large body in chunks", chunked(b'"' + b"a" * MOST), (413, "body-too-large")),
    Case("the largest body", post("/predict", '{"text":"a"}'.ljust(MOST)), (200, "")),
    Case("the largest body in chunks", chunked(b'{"text":"a"}'.ljust(MOST)), (200, "")),
    Case("no host", get("/livez").replace(b"Host: x\r\n", b""), (400, "invalid-host"), (400, "malformed-request"),
         GENERAL),
    Case("two hosts", get("/livez", "Host: y\r\n"), (400, "invalid-host"), (400, "malformed-request"), GENERAL),
    Case("an empty host", get("/livez").replace(b"Host: x", b"Host:"), (200, ""), (400, "malformed-request"), GENERAL),
    Case("a host without a name", get("/livez").replace(b"Host: x", b"Host: :80"), (200, ""),
         (400, "malformed-request"), GENERAL),
    Case("no host's name", get("/livez").replace(b"Host: x", b"Host: %zz"), (400, "invalid-host")),
    Case("a path in the host", get("/livez").replace(b"Host: x", b"Host: x/y"), (400, "invalid-host"),
         (400, "malformed-request"), GENERAL),
    Case("HTTP/1.0 without a host", b"GET /livez HTTP/1.0\r\n\r\n", (200, "")),
    Case("both lengths", post("/predict", headers="Transfer-Encoding: chunked\r\n").replace(
        wire.TEXT.encode(), b"10\r\n%s\r\n0\r\n\r\n" % wire.TEXT.encode()), (200, ""), (400, "malformed-request"),
         "RFC 9112 allows both; see the section"),
    Case("an unknown encoding", post("/predict", headers="Transfer-Encoding: x\r\n"), (400, ""),
         (400, "malformed-request"), "hyper says no more"),
    Case("no request line", b"hello\r\n\r\n", (400, ""), (400, "malformed-request"), "hyper says no more"),
    Case("HTTP/2.0", b"GET /livez HTTP/2.0\r\nHost: x\r\n\r\n", (400, ""), (400, "malformed-request"),
         "hyper says no more"),
    Case("metrics", get("/metrics"), (200, ""), (404, "not-found"), "they are not for everybody"),
]


def shape(answer: Answer) -> dict:
    """What must be the same however an answer came."""
    headers = {name: value for name, value in answer.headers.items() if name not in OF_ITS_OWN}
    problem = answer.json() if answer.kind() else {}
    return {"status": answer.status, "headers": headers, "retry-after": "retry-after" in answer.headers,
            "keys": list(problem), "problem": {key: problem.get(key) for key in ("type", "title", "status")}}


class Errors(unittest.TestCase):
    """Both answers to one request."""

    def assert_well_formed(self, answer: Answer) -> None:
        """It has an id, and says nothing of what answered."""
        self.assertRegex(answer.headers.get("x-request-id", ""), r"^[A-Za-z0-9._-]{1,64}$", answer)
        if answer.kind():
            self.assertEqual(answer.json()["instance"], answer.headers["x-request-id"])
            self.assertEqual(answer.json()["status"], answer.status)
            self.assertEqual(list(answer.json())[:5], ["type", "title", "status", "detail", "instance"])
        self.assertEqual(answer.headers.get("server"), "nginx")
        said = str(answer.headers).encode() + answer.body
        self.assertNotRegex(said, rb"(?i)nginx/|openresty|<html|\d\.\d\d\.\d")

    def compare(self, server: Predictd, nginx: Nginx, case: Case) -> None:
        """Asks both."""
        direct, through = wire.ask(server.address, case.request), wire.ask(nginx.address, case.request)
        self.assertEqual((direct.status, direct.kind()), case.direct, direct)
        self.assertEqual((through.status, through.kind()), case.through or case.direct, through)
        self.assert_well_formed(through)
        if case.through is None:
            self.assertEqual(shape(direct), shape(through), f"{direct}\n{through}")
        elif through.kind():
            self.assertEqual(shape(through)["headers"]["cache-control"], "no-store")
            self.assertEqual(shape(through)["headers"]["x-content-type-options"], "nosniff")

    def test_table(self) -> None:
        """What anybody can provoke."""
        with Predictd() as server, Nginx([server.address]) as nginx:
            for case in CASES:
                with self.subTest(case.name):
                    self.compare(server, nginx, case)
            self.assertIsNone(nginx.process.poll(), nginx.said())
            # Long heads are passed on whole: those in the table were over a limit.
            for request in (get("/livez", "X: " + "a" * (30 << 10) + "\r\n"), get("/livez?" + "a" * (8_000))):
                self.assertEqual(wire.ask(nginx.address, request).status, 200)

    def test_keys(self) -> None:
        """401 and 403."""
        with Predictd() as server:
            good, other = server.key("predict"), server.key("metrics")
            server.kill()
            server.start()
            with Nginx([server.address]) as nginx:
                for name, header, expected in (
                        ("none", "", (401, "unauthenticated")), ("a good one", good, (200, "")),
                        ("an unknown one", "Authorization: Bearer pd_x\r\n", (401, "unauthenticated")),
                        ("no scope", other, (403, "forbidden"))):
                    with self.subTest(name):
                        self.compare(server, nginx, Case(name, post("/predict", headers=header), expected))

    def test_rates(self) -> None:
        """429 of the server."""
        with Predictd("--rate-limit", "1") as server, Nginx([server.address]) as nginx:
            answers = []
            for address in (server.address, nginx.address):
                for _ in range(100):
                    if (answer := wire.ask(address, post("/predict"))).status != 200:
                        break
                self.assertEqual((answer.status, answer.kind()), (429, "rate-limited"))
                answers.append(answer)
            self.assertEqual(*map(shape, answers))
            self.assert_well_formed(answers[1])

    def test_overload(self) -> None:
        """503 of the server, which is full of texts that take long and that it may take its time over."""
        options = ("--default-model", "banking77-minilm", "--max-inflight-items", "1024", "--max-queue-wait", "1h",
                   "--timeout", "1h", "--max-timeout", "1h")
        with Predictd(*options, models=ROOT / "models") as server, Nginx([server.address]) as nginx:
            texts = str([" ".join(["word"] * 400) + f" {number}" for number in range(1_024)]).replace("'", '"')
            with wire.connect(server.address) as busy:
                busy.sendall(post("/batch_predict", texts))
                until("it is full", lambda: wire.ask(server.address, post("/predict")).status == 503)
                case = Case("full", post("/predict"), (503, "overloaded"))
                self.compare(server, nginx, case)
                self.assertEqual(wire.ask(nginx.address, get("/readyz")).status, 200)

    def test_slow_body(self) -> None:
        """The server answers 408. nginx ends the connection, and the server never sees the request."""
        changes = {"nginx.conf": [("client_body_timeout 10s", "client_body_timeout 1s")]}
        with Predictd("--body-idle-timeout", "300ms") as server, Nginx([server.address], changes=changes) as nginx:
            direct = wire.ask(server.address, announced(100) + b"{")
            self.assertEqual((direct.status, direct.kind()), (408, "body-timeout"))
            before = server.reached()
            self.assertEqual(wire.exchange(nginx.address, announced(100) + b"{"), b"")
            self.assertEqual(nginx.logged(1)[0]["status"], 408)
            self.assertEqual(server.reached(), before)
            self.assertEqual(wire.ask(nginx.address, post("/predict")).status, 200)

    def test_slow_head(self) -> None:
        """Neither answers a head that does not come."""
        changes = {"nginx.conf": [("client_header_timeout 5s", "client_header_timeout 1s")]}
        options = ("--header-timeout", "300ms", "--first-byte-timeout", "300ms")
        with Predictd(*options) as server, Nginx([server.address], changes=changes) as nginx:
            for half in (b"GET /livez HTTP/1.1\r\nHost:", b"P"):
                for address in (server.address, nginx.address):
                    self.assertEqual(wire.exchange(address, half), b"", f"{half} to {address}")


class Words(unittest.TestCase):
    """What nginx says of itself is what the server's table of errors says."""

    def test_kinds(self) -> None:
        """Kinds, statuses and titles are those of the server, and the page lists them."""
        text = (ROOT / "deploy/nginx/problems.conf").read_text(encoding="utf-8")
        said = re.findall(r'"type":"/docs#([a-z-]+)","title":"([^"]+)","status":(\d+)', text)
        self.assertGreater(len(said), 10)
        with Predictd() as server:
            page = wire.ask(server.address, get("/docs")).body.decode()
        source = (ROOT / "crates/http/src/error.rs").read_text(encoding="utf-8")
        titles = dict(re.findall(r'"([a-z-]+)", (?:[A-Z_]+|\d+), "([^"]+)"', source))
        for kind, title, _ in said:
            self.assertIn(f'id="{kind}"', page)
            self.assertEqual(title, titles[kind], kind)


if __name__ == "__main__":
    unittest.main()
