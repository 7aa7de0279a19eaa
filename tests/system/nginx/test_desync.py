"""Messages that two programs could read differently, to the server and through nginx (W8).

`tests/it/transport` has the same. Every message has a request behind it, and many have one inside: that one must never be
run. No more requests may reach the server than nginx has logged.
"""

import unittest

import wire
from instance import Nginx
from predictd import Predictd

# Stands inside messages. Nobody sends this as a request.
HIDDEN = "GET /health HTTP/1.1\r\nHost: x\r\n\r\n"
# Stands behind messages.
NEXT = "GET /livez HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
TEXT = wire.TEXT
N = len(TEXT)
CHUNKED = f"{N:x}\r\n{TEXT}\r\n0\r\n\r\n"
BOTH = N + len(HIDDEN)
TE = "Transfer-Encoding: chunked"
GET = "GET /livez HTTP/1.1\r\n"
HOST = "Host: x\r\n"


def post(headers: str, body: str) -> str:
    """A prediction with these headers, and what follows it."""
    return f"POST /predict HTTP/1.1\r\n{HOST}Content-Type: application/json\r\n{headers}\r\n\r\n{body}"


def old(headers: str, body: str) -> str:
    """The same by the older protocol."""
    return post(headers, body).replace("HTTP/1.1", "HTTP/1.0")


def head(headers: str = "", target: str = "/livez", method: str = "GET") -> str:
    """A request without a body."""
    return f"{method} {target} HTTP/1.1\r\n{HOST}{headers}\r\n"


# The message; what the server answers, that to the request behind it included; what comes through nginx. Several where
# that depends on nginx's version or on which bytes come first.
LENGTHS = [
    (post(f"Content-Length: {len(CHUNKED)}\r\n{TE}", CHUNKED), [200], [400]),
    (post(f"{TE}\r\nContent-Length: {len(CHUNKED)}", CHUNKED), [200], [400]),
    (post(f"Content-Length: {len(CHUNKED) + len(HIDDEN)}\r\n{TE}", CHUNKED + HIDDEN), [200], [400]),
    (post(f"{TE}\r\nContent-Length: 0", CHUNKED + HIDDEN), [200], [400]),
    (post(f"{TE}\r\nContent-Length: x", CHUNKED + HIDDEN), [200], [400]),
    (post(f"Content-Length: 4\r\n{TE}", f"{len(HIDDEN):x}\r\n{HIDDEN}\r\n0\r\n\r\n"), [400], [400]),
    (post(f"Content-Length: {BOTH}\r\n{TE}", f"0\r\n\r\n{HIDDEN}"), [400], [400]),
    (post(f"Content-Length: {N}\r\nContent-Length: {BOTH}", TEXT + HIDDEN), [400], [400]),
    (post(f"Content-Length: {BOTH}\r\nContent-Length: {N}", TEXT + HIDDEN), [400], [400]),
    (post(f"Content-Length: 0\r\nContent-Length: {N}", TEXT + HIDDEN), [400], [400]),
    (post(f"Content-Length: {N}, {BOTH}", TEXT + HIDDEN), [400], [400]),
    (post(f"Content-Length: {N}, {N}", TEXT + HIDDEN), [400], [400]),
    (post(f"Content-Length: {N},{N}", TEXT + HIDDEN), [400], [400]),
    (post(f"Content-Length: {N}\r\nContent-Length: {N}", TEXT), [200, 200], [400]),
    (post(f"Content-Length: {N}", TEXT), [200, 200], [200, 200]),
    (post(f"Content-Length: \t {N} \t", TEXT), [200, 200], [400]),
    (post(f"Content-Length: 000{N}", TEXT), [200, 200], [200, 200]),
    *((post(f"Content-Length: {length}", TEXT), [400], [400]) for length in (
        "", f"+{N}", f"-{N}", f"0x{N:x}", f"{N}.0", f"{N} {N}", f"{N};a", f'"{N}"', "١٢", "18446744073709551616")),
    (post("Content-Length: 18446744073709551615", TEXT), [431], [400]),
    (post(f"Transfer_Encoding: chunked\r\nContent-Length: {N}", TEXT), [200, 200], [200, 200]),
]
ENCODINGS = [
    (post(TE, CHUNKED), [200, 200], [200, 200]),
    (post("TRANSFER-ENCODING:\tCHUNKED\t", CHUNKED), [200, 200], [400]),
    (post("Transfer-Encoding: identity, chunked", CHUNKED), [200, 200], [400]),
    (post("Transfer-Encoding: identity\r\nTransfer-Encoding: chunked", CHUNKED), [200, 200], [400]),
    (post("Transfer-Encoding: chunked, chunked", CHUNKED), [200, 200], [400]),
    (post(f"{TE}\r\n{TE}", CHUNKED), [200, 200], [400]),
    *((post(encoding, CHUNKED), [400], [400]) for encoding in (
        "Transfer-Encoding:", "Transfer-Encoding: identity", "Transfer-Encoding: gzip", "Transfer-Encoding: xchunked",
        "Transfer-Encoding: chunkedx", "Transfer-Encoding: chunked;a=b", 'Transfer-Encoding: "chunked"',
        "Transfer-Encoding: \x0bchunked", "Transfer-Encoding: \xa0chunked", "Transfer-Encoding: chunked, identity",
        f"{TE}\r\nTransfer-Encoding: identity", "Content-Length: 5\r\nTransfer-Encoding: identity",
        "Transfer-Encoding : chunked", "Transfer-Encoding\t: chunked", " Transfer-Encoding: chunked",
        "Transfer-Encoding:\r\n chunked", "X: a\r\n Transfer-Encoding: chunked")),
    (old(f"Content-Length: {N}", TEXT), [200], [200]),
    (old(f"Connection: keep-alive\r\nContent-Length: {N}", TEXT), [200, 200], [200, 200]),
    (old(TE, CHUNKED), [400], [400]),
    (old(f"Content-Length: {N}\r\n{TE}", TEXT), [400], [400]),
]
WHOLE = CHUNKED[:-2]
# nginx 1.22 lets a line feed alone end a chunk and its size; 1.31 does not.
LENIENT = ([200, 200], [400])
CHUNKS = [
    (post(TE, body), direct, through) for body, direct, through in (
        (f"{WHOLE}Content-Length: 5\r\nTransfer-Encoding: x\r\n\r\n", [200, 200], [200, 200]),
        (f'{N:x};a="b";c\r\n{TEXT}\r\n000;d\r\n\r\n', [200, 200], [200, 200]),
        (f"{N:X} \r\n{TEXT}\r\n0\r\n\r\n", [200, 200], [200, 200]),
        (f"{WHOLE}{HIDDEN}", [400], [200, 200]),
        (CHUNKED.replace("\r", ""), [400], LENIENT),
        (f"{N:x};a\n{TEXT}\r\n0\r\n\r\n", [400], LENIENT),
        (f"{N:x};a\rb\r\n{TEXT}\r\n0\r\n\r\n", [400], [400]),
        (f"{N:x};{HIDDEN}{TEXT}\r\n0\r\n\r\n", [400], [400]),
        (f"1{N:016x}\r\n{TEXT}\r\n0\r\n\r\n", [400], [400]),
        (f"-{N:x}\r\n{TEXT}\r\n0\r\n\r\n", [400], [400]),
        (f"{N - 1:x}\r\n{TEXT}\r\n0\r\n\r\n", [400], [400]),
        (f"{N + 1:x}\r\n{TEXT}\r\n0\r\n\r\n", [400], LENIENT),
        (f"{N:x};{'a' * 20_000}\r\n{TEXT}\r\n0\r\n\r\n", [400], [200, 200]),
    )
]
LINES = [
    ("GET /livez HTTP/1.1\nHost: x\n\n", [200, 200], [200, 200]),
    ("GET /livez HTTP/1.1\r\nHost: x\n\r\n", [200, 200], [200, 200]),
    (f"\r\n\r\n\r\n{head()}", [200, 200], [200, 200]),
    (f"\n\n{head()}", [200, 200], [200, 200]),
    (f"\r{head()}", [400], [200, 200]),
    (f" {head()}", [400], [400]),
    ("GET /livez HTTP/1.1\rHost: x\r\r", [400], [400]),
    ("GET /livez HTTP/1.1\r\nHost: x\rContent-Length: 34\r\n\r\n", [400], [400]),
    (head("X: a\rY: b\r\n"), [400], [400]),
    (f"{GET}Host: x\r\r\nX: a\r\n\r\n", [400], [200, 200]),
    (f"{GET} Host: x\r\n{HOST}\r\n", [400], [400]),
    (head("X: a\r\n b\r\n"), [400], [400]),
    (head("X: a\r\n\tb\r\n"), [400], [400]),
    (head("X:\r\n"), [200, 200], [200, 200]),
    (head("X: \xe9\r\n"), [200, 200], [200, 200]),
    (f"{GET}hOST:x\r\n\r\n", [200, 200], [200, 200]),
    *((head(line), [400], [400]) for line in (": a\r\n", "X Y: a\r\n", "X\0: a\r\n", "X: a\0b\r\n")),
    # nginx leaves out lines that it does not like.
    *((head(line), [400], [200, 200]) for line in ("X\r\n", "X(): a\r\n", "X\xe9: a\r\n")),
    # It passes these on, and hyper refuses them.
    *((head(line), [400], [400, 200]) for line in ("X: a\x1bb\r\n", "X: a\x7fb\r\n")),
    (f"{GET}Host : x\r\n\r\n", [400], [400]),
]
NO_HEAD = [9]
REQUEST_LINES = [
    *((f"{line}\r\n{HOST}\r\n", [400], [400]) for line in (
        "GET HTTP/1.1", "/livez HTTP/1.1", "GET /li vez HTTP/1.1", "GET\t/livez\tHTTP/1.1", "GET /liv\0ez HTTP/1.1",
        "G@T /livez HTTP/1.1", "GET /livez http/1.1", "GET /livez HTTPS/1.1", "GET /livez HTTP/1",
        "GET /livez HTTP/0.9", "GET /livez HTTP/2.0")),
    # nginx knows HTTP/0.9, whose answers have no head, and later versions of HTTP/1.
    *((f"{line}\r\n{HOST}\r\n", [400], NO_HEAD) for line in ("GET /livez", "GET /livez ")),
    *((f"GET /livez HTTP/{number}\r\n{HOST}\r\n", [400], [200, 200]) for number in ("1.10", "1.2")),
    *((f"{line}\r\n{HOST}\r\n", [400], [200, 200]) for line in (
        "GET  /livez HTTP/1.1", "GET /livez  HTTP/1.1", "GET /livez HTTP/1.1 ")),
    (head(target="/livez?a=b#c"), [200, 200], [200, 200]),
    (head(target="http://other/livez"), [200, 200], [200, 200]),
    (head(target="https://other:1/livez?a"), [200, 200], [200, 200]),
    ("GET http://other/livez HTTP/1.1\r\n\r\n", [400, 200], [400]),
    (head(target="//other/livez"), [404, 200], [404, 200]),
    (head(target="http://other"), [404, 200], [404, 200]),
    (head(target="livez"), [404, 200], [400]),
    (head(target="*"), [404, 200], [400]),
    (head(target="*", method="OPTIONS"), [404, 200], [400]),
    (head(target="/livez%20HTTP/1.1"), [404, 200], [404, 200]),
    ("CONNECT other:80 HTTP/1.1\r\nHost: other:80\r\n\r\n", [404, 200], ([400], [405])),
    (head(method="CONNECT"), [405, 200], ([400], [405])),
    (head("Connection: Upgrade\r\nUpgrade: websocket\r\n"), [200, 200], [200, 200]),
    (head("Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n"), [200, 200],
     [200, 200]),
    (head(method="get"), [405, 200], [400]),
    (head(method="TRACE"), [405, 200], [405]),
    (head("Content-Length: 0\r\n", method="TRACE"), [405, 200], [405]),
    (head(method="M-SEARCH"), [405, 200], [405, 200]),
    (head(method="A" * 5_000), [405, 200], [405, 200]),
    (f"{GET}{HOST}Content-Length: x\r\n\r\n{HIDDEN}", [400], [400]),
    # The server answers before the body is there, and may not want to wait for it.
    (head(f"Content-Length: {len(HIDDEN)}\r\n") + HIDDEN, ([200, 200], [200]), [200, 200]),
    (head(HOST), [400, 200], [400]),
    (f"{GET}\r\n", [400, 200], [400]),
]


class Desync(unittest.TestCase):
    """Every message, in one piece and in many."""

    @classmethod
    def setUpClass(cls) -> None:
        cls.server = cls.enterClassContext(Predictd())
        cls.nginx = cls.enterClassContext(Nginx([cls.server.address]))
        # nginx's log so far.
        cls.seen = 0

    def answers(self, address: str, message: bytes, piece: int) -> tuple[list[int], int]:
        """Statuses, and how many requests reached the server."""
        before, hidden = self.server.reached(), self.server.reached("/health")
        received = wire.exchange(address, message, piece)
        has_head = received.startswith(b"HTTP/")
        statuses = [answer.status for answer in wire.parse(received)] if has_head else NO_HEAD
        after = self.server.reached()
        self.assertEqual(self.server.reached("/health"), hidden, f"the hidden request was run: {message[:300]!r}")
        return statuses, after - before

    def check(self, messages: list[tuple[str, list[int], list[int]]]) -> None:
        """Sends them to both."""
        for message, direct, through in messages:
            whole = (message + NEXT).encode("utf-8" if "١" in message else "latin-1")
            for piece in (0, 5 if len(whole) < 5_000 else 500):
                with self.subTest(message[:200], piece=piece):
                    statuses, _ = self.answers(self.server.address, whole, piece)
                    self.assertIn(statuses, direct if isinstance(direct, tuple) else (direct,), "direct")
                    statuses, reached = self.answers(self.nginx.address, whole, piece)
                    logged = self.nginx.logged(self.seen + len(statuses))[self.seen:]
                    type(self).seen += len(logged)
                    self.assertIn(statuses, through if isinstance(through, tuple) else (through,), logged)
                    self.assertEqual([line["status"] for line in logged], [200] if statuses is NO_HEAD else statuses)
                    self.assertEqual(len({line["connection"] for line in logged}), 1, logged)
                    passed_on = sum(line["upstream"] != "" for line in logged)
                    # What hyper refuses reaches no route, and is not counted.
                    refused = sum(line["upstream_status"] == "400" for line in logged)
                    self.assertEqual(reached, passed_on - refused, f"{reached} reached the server: {logged}")
        # Nothing is logged later that nobody was answered.
        self.assertEqual(len(self.nginx.log()), self.seen)

    def test_lengths(self) -> None:
        """Two lengths, or none that is one."""
        self.check(LENGTHS)

    def test_encodings(self) -> None:
        """What is chunked and what is not."""
        self.check(ENCODINGS)

    def test_chunks(self) -> None:
        """Where chunks end."""
        self.check(CHUNKS)

    def test_lines(self) -> None:
        """Where lines end, and what is in them."""
        self.check(LINES)

    def test_request_lines(self) -> None:
        """Methods, targets, protocols."""
        self.check(REQUEST_LINES)


if __name__ == "__main__":
    unittest.main()
