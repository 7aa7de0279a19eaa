"""What nginx does by itself: its own errors (W15), its limits, TLS, and how it is started."""

import os
import shutil
import ssl
import subprocess
import tempfile
import unittest
from pathlib import Path

import wire
from instance import Nginx, free_port, replace, until, version
from predictd import Predictd
from upstream import Upstream

UPSTREAMS = ["upstream"] + ["upstream-resolve"] * (version() >= (1, 27, 3))


def make_certificate(place: Path) -> None:
    """One that nobody else has signed."""
    subprocess.run(["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost",
                    "-keyout", place / "tls.key", "-out", place / "tls.crt"], check=True, capture_output=True)


class OwnErrors(unittest.TestCase):
    """All are problem details, whatever is wrong and however early."""

    def check(self, answer: wire.Answer, status: int, kind: str) -> None:
        """The shape that the server gives its own."""
        self.assertEqual((answer.status, answer.kind()), (status, kind), answer)
        problem = answer.json()
        self.assertEqual(list(problem), ["type", "title", "status", "detail", "instance"])
        self.assertEqual((problem["status"], problem["instance"]), (status, answer.headers["x-request-id"]))
        self.assertTrue(problem["title"] and problem["detail"] and problem["instance"])
        headers = {name: answer.headers.get(name) for name in ("cache-control", "x-content-type-options", "server")}
        self.assertEqual(headers, {"cache-control": "no-store", "x-content-type-options": "nosniff", "server": "nginx"})
        self.assertEqual("retry-after" in answer.headers, status in (429, 502, 503))
        self.assertEqual("allow" in answer.headers, status == 405)

    def test_all(self) -> None:
        """Nobody is behind this nginx."""
        with Nginx([f"127.0.0.1:{free_port()}"]) as nginx:
            for request, status, kind in (
                    (b"hello\r\n\r\n", 400, "malformed-request"),
                    (b"GET /livez HTTP/1.1\r\n\r\n", 400, "malformed-request"),
                    (b"GET /livez HTTP/3.1\r\nHost: x\r\n\r\n", 400, "malformed-request"),
                    (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400, "malformed-request"),
                    (wire.post("/predict", headers="Transfer-Encoding: gzip\r\n"), 400, "malformed-request"),
                    (wire.get("/x"), 404, "not-found"),
                    (wire.get("/metrics"), 404, "not-found"),
                    (wire.get("/problem"), 404, "not-found"),
                    (wire.get("/predict", method="TRACE"), 405, "method-not-allowed"),
                    (wire.post("/predict", "x" * ((2 << 20) + 1)), 413, "body-too-large"),
                    (wire.get("/" + "a" * 40_000), 414, "uri-too-long"),
                    (wire.get("/livez", f"X: {'a' * 40_000}\r\n"), 431, "headers-too-large"),
                    (wire.get("/livez", f"X: {'a' * 30_000}\r\n" * 6), 431, "headers-too-large"),
                    (wire.get("/livez"), 502, "server-unreachable"),
                    (wire.post("/predict"), 502, "server-unreachable"),
                    (wire.post("/feedback"), 502, "server-unreachable")):
                with self.subTest(request[:60]):
                    self.check(wire.ask(nginx.address, request), status, kind)
            head = wire.ask(nginx.address, wire.get("/livez", method="HEAD"))
            self.assertEqual((head.status, head.headers["content-type"]), (502, "application/problem+json"))

    def test_allowed_methods(self) -> None:
        """405 says what is allowed, in the server's words."""
        with Predictd() as server, Nginx([server.address]) as nginx:
            for path in ("/predict", "/batch_predict?x", "/models/m", "/livez"):
                request = wire.get(path, method="TRACE")
                allowed = [wire.ask(address, request).headers["allow"] for address in (server.address, nginx.address)]
                self.assertEqual(*allowed, path)

    def test_rate(self) -> None:
        """More requests than an address may send."""
        changes = {"nginx.conf": [("rate=1000r/s", "rate=1r/m"), ("burst=1000", "burst=3")]}
        with Upstream("answers") as upstream, Nginx([upstream.address], changes=changes) as nginx:
            answers = [wire.ask(nginx.address, wire.post("/predict")) for _ in range(8)]
            self.assertEqual([answer.status for answer in answers], [200] * 4 + [429] * 4)
            self.check(answers[-1], 429, "rate-limited")
            self.assertEqual(len(upstream.requests), 4)
            # Somebody else may still.
            with wire.connect(nginx.address, source="127.0.0.2") as other:
                other.sendall(wire.post("/predict"))
                self.assertEqual(wire.parse(wire.read_to_end(other))[0].status, 200)

    def test_requests_at_a_time(self) -> None:
        """More at a time than an address may have."""
        changes = {"nginx.conf": [("limit_conn predictd_http_connections 128", "limit_conn predictd_http_connections 2")]}
        with Upstream("hangs") as upstream, Nginx([upstream.address], changes=changes) as nginx:
            with wire.connect(nginx.address) as one, wire.connect(nginx.address) as two:
                for stream in (one, two):
                    stream.sendall(wire.post("/predict"))
                until("both are passed on", lambda: len(upstream.requests) == 2)
                self.check(wire.ask(nginx.address, wire.post("/predict")), 429, "rate-limited")

    def test_one_address_may_send_many(self) -> None:
        """A load test is no flood: 128 at a time, and a thousand at once."""
        with Upstream("answers") as upstream, Nginx([upstream.address]) as nginx:
            streams = [wire.connect(nginx.address) for _ in range(125)]
            statuses = set()
            for _ in range(8):
                for stream in streams:
                    stream.sendall(wire.post("/predict").replace(b"Connection: close\r\n", b""))
                for stream in streams:
                    received = b""
                    while not wire.is_whole(received, False) and (piece := wire.receive(stream)):
                        received += piece
                    statuses.add(wire.parse(received)[0].status)
            for stream in streams:
                stream.close()
            self.assertEqual((statuses, len(upstream.requests)), ({200}, 1_000))


class Tls(unittest.TestCase):
    """The HTTPS block, with a certificate of its own making."""

    @classmethod
    def setUpClass(cls) -> None:
        cls.place = Path(cls.enterClassContext(tempfile.TemporaryDirectory()))
        make_certificate(cls.place)
        cls.server = cls.enterClassContext(Predictd())
        cls.nginx = cls.enterClassContext(Nginx([cls.server.address], "https", certificates=cls.place))

    def context(self, version_: ssl.TLSVersion | None = None, alpn: tuple[str, ...] = ()) -> ssl.SSLContext:
        """A client that would take any cipher."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.load_verify_locations(self.place / "tls.crt")
        context.set_ciphers("ALL:@SECLEVEL=0")
        if version_:
            context.minimum_version = context.maximum_version = version_
        if alpn:
            context.set_alpn_protocols(list(alpn))
        return context

    def test_versions(self) -> None:
        """1.2 and 1.3, and none before."""
        for good, name in ((ssl.TLSVersion.TLSv1_2, "TLSv1.2"), (ssl.TLSVersion.TLSv1_3, "TLSv1.3")):
            answer = wire.ask(self.nginx.tls_address, wire.post("/predict"), self.context(good))
            self.assertEqual((answer.status, answer.json()["prediction"]), (200, "v1"))
            self.assertEqual(answer.headers["strict-transport-security"], "max-age=31536000")
            until(f"{name} is logged", lambda found=name: found in [line["tls"] for line in self.nginx.log()])
        # The library would refuse old versions by itself: it is told not to.
        lax = ("ssl_ciphers ", "ssl_ciphers @SECLEVEL=0:ECDHE-RSA-AES128-SHA:")
        for version_ in (ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1):
            context = self.context(version_)
            with Nginx([self.server.address], "https", {"server-https.conf": [lax]}, self.place) as nginx:
                with self.assertRaisesRegex(ssl.SSLError, "ALERT_PROTOCOL_VERSION"):
                    wire.exchange(nginx.tls_address, wire.get("/livez"), tls=context)
            changes = {"server-https.conf": [lax, ("TLSv1.2 TLSv1.3", "TLSv1 TLSv1.1 TLSv1.2")]}
            with Nginx([self.server.address], "https", changes, self.place) as nginx:
                self.assertEqual(wire.ask(nginx.tls_address, wire.get("/livez"), context).status, 200)

    def test_ciphers(self) -> None:
        """None without forward secrecy, and no tickets."""
        context = self.context(ssl.TLSVersion.TLSv1_2)
        context.set_ciphers("AES128-GCM-SHA256:AES256-GCM-SHA384:@SECLEVEL=0")
        with self.assertRaisesRegex(ssl.SSLError, "HANDSHAKE_FAILURE"):
            wire.exchange(self.nginx.tls_address, wire.get("/livez"), tls=context)
        with wire.connect(self.nginx.tls_address, self.context(ssl.TLSVersion.TLSv1_2)) as stream:
            self.assertFalse(stream.session.has_ticket)

    def test_protocols(self) -> None:
        """HTTP/2 for those who speak it."""
        for offered, chosen in ((("h2", "http/1.1"), "h2"), (("http/1.1",), "http/1.1")):
            with wire.connect(self.nginx.tls_address, self.context(alpn=offered)) as stream:
                self.assertEqual(stream.selected_alpn_protocol(), chosen)
        name = f"localhost:{self.nginx.tls_port}"
        command = ["curl", "-sS", "--http2", "--cacert", self.place / "tls.crt", "-w", "\n%{http_version} %{http_code}",
                   "--resolve", f"{name}:127.0.0.1", f"https://{name}/models"]
        asked = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        self.assertEqual(asked.splitlines()[-1], "2 200")
        self.assertNotIn("warn", self.nginx.said())

    def test_redirect(self) -> None:
        """HTTP leads to HTTPS: the same method, the same path."""
        for request in (wire.get("/models?a=b%20c"), wire.post("/predict")):
            request = request.replace(b"Host: x", b"Host: example.org:80")
            answer = wire.ask(self.nginx.address, request)
            self.assertEqual(answer.status, 308)
            target = request.split(b" ")[1].decode()
            self.assertEqual(answer.headers["location"], f"https://example.org{target}")
            self.assertNotIn("strict-transport-security", answer.headers)
        self.assertEqual(wire.ask(self.nginx.address, b"hello\r\n\r\n").kind(), "malformed-request")

    def test_errors(self) -> None:
        """Those of nginx are the same here."""
        for request, status, kind in ((wire.get("/metrics"), 404, "not-found"),
                                      (b"hello\r\n\r\n", 400, "malformed-request")):
            answer = wire.ask(self.nginx.tls_address, request, self.context())
            self.assertEqual((answer.status, answer.kind()), (status, kind))
            self.assertIn("strict-transport-security", answer.headers)
        plain = wire.ask(self.nginx.tls_address, wire.get("/livez"))
        self.assertEqual((plain.status, plain.kind()), (400, "malformed-request"))


class Start(unittest.TestCase):
    """The container's command."""

    def laid(self, **arguments: str) -> Nginx:
        """The files, and nothing started."""
        nginx = Nginx(["127.0.0.1:1"], **arguments)
        self.addCleanup(shutil.rmtree, nginx.place)
        nginx.write()
        return nginx

    def start(self, nginx: Nginx, said: str, **environment: str) -> subprocess.CompletedProcess:
        """Starts with an nginx that only says which version it is, and how it was called."""
        (nginx.place / "bin/nginx").write_text(
            f'#!/bin/sh\nif [ "$1" = -v ]; then echo "nginx version: {said}" >&2; else echo "called: $*"; fi\n',
            encoding="utf-8")
        return subprocess.run([nginx.place / "predictd/start"], capture_output=True, text=True, check=False,
                              env={"PATH": f"{nginx.place}/bin:{os.environ['PATH']}"} | environment)

    def chosen(self, nginx: Nginx) -> tuple[str, str]:
        """What it wrote."""
        return tuple((nginx.place / "run" / name).read_text() for name in ("upstream.conf", "server.conf"))

    def test_which_pieces(self) -> None:
        """By version: names that are looked up again, and how HTTP/2 is asked for."""
        for said, resolves, is_directive in (
                ("nginx/1.22.1", False, False), ("nginx/1.25.0", False, False), ("nginx/1.25.1", False, True),
                ("nginx/1.27.2", False, True), ("nginx/1.27.3", True, True), ("nginx/1.30.0", True, True),
                ("nginx/1.100.0 (Debian)", True, True)):
            nginx = self.laid()
            done = self.start(nginx, said, PREDICTD_NGINX_SERVER="https", PREDICTD_UPSTREAM="models.example-1.org:81")
            self.assertEqual((done.returncode, done.stdout), (0, "called: -g daemon off;\n"), done.stderr)
            upstream, server = self.chosen(nginx)
            self.assertIn("server models.example-1.org:81 ", upstream)
            self.assertNotIn("predictd:8000", upstream)
            self.assertEqual((" resolve;" in upstream, "\n    resolver " in upstream), (resolves, resolves), said)
            is_both = ("ssl; http2 on;" in server, "ssl http2;" in server)
            self.assertEqual(is_both, (is_directive, not is_directive), said)

    def test_https_elsewhere(self) -> None:
        """Where clients find HTTPS at another port, HTTP leads to that."""
        for port, place in (("443", "https://$host$"), ("8443", "https://$host:8443$")):
            nginx = self.laid()
            self.assertEqual(self.start(nginx, "nginx/1.22.1", PREDICTD_NGINX_SERVER="https", PREDICTD_HTTPS_PORT=port).returncode, 0)
            self.assertIn(f"return 308 {place}request_uri;", self.chosen(nginx)[1])

    def test_defaults(self) -> None:
        """HTTP, and the name that compose gives the server."""
        nginx = self.laid()
        self.assertEqual(self.start(nginx, "nginx/1.22.1").returncode, 0)
        upstream, server = self.chosen(nginx)
        self.assertIn("server predictd:8000 ", upstream)
        self.assertNotIn("ssl", server)

    def test_refused(self) -> None:
        """What is no name and port would be more of the configuration."""
        refused = {"PREDICTD_UPSTREAM": ("a", "a:", ":80", "a:0", "a:b", "a:80;", "a b:80", "a:80 backup", "a;}:80",
                                         "-a:80", "a:123456", "a/b:80", "[::1]:80", "a:80\nb:80", "b\na:80",
                                         "$a:80", "&:80"),
                   "PREDICTD_HTTPS_PORT": ("0", "x", "443;", "123456", " 443", "1\n2"),
                   "PREDICTD_NGINX_SERVER": (" ", "HTTP", "http2", "../x", "https;", "http\nhttps")}
        for name, values in refused.items():
            for value in values:
                nginx = self.laid()
                done = self.start(nginx, "nginx/1.22.1", **{name: value})
                self.assertEqual((done.returncode, done.stdout), (64, ""), f"{name}={value!r}")
                self.assertIn(name, done.stderr)
                self.assertFalse((nginx.place / "run").exists())

    def test_every_combination_is_valid(self) -> None:
        """As `nginx -t` sees it, and without a warning; this nginx chooses the right one."""
        with tempfile.TemporaryDirectory() as certificates:
            make_certificate(Path(certificates))
            for server in ("http", "https"):
                for upstream in UPSTREAMS:
                    with Nginx(["127.0.0.1:1"], server, certificates=Path(certificates)) as nginx:
                        written = (nginx.place / "run/upstream.conf").read_text()
                        self.assertEqual(" resolve;" in written, UPSTREAMS[-1] == "upstream-resolve")
                        shutil.copy(nginx.place / f"predictd/{upstream}.conf", nginx.place / "run/upstream.conf")
                        replace(nginx.place / "run/upstream.conf", [("predictd:8000", "127.0.0.1:1")])
                        done = subprocess.run([nginx.place / "bin/nginx", "-t"], capture_output=True, text=True,
                                              check=False)
                        self.assertEqual(done.returncode, 0, done.stderr)
                        self.assertNotRegex(done.stderr, r"\[(warn|error|emerg)\]")

    def test_reload(self) -> None:
        """Requests that are in work are finished by the old workers."""
        with Upstream("answers") as upstream, Nginx([upstream.address]) as nginx:
            for _ in range(5):
                with wire.connect(nginx.address) as stream:
                    request = wire.post("/predict")
                    stream.sendall(request[:-3])
                    nginx.reload()
                    self.assertEqual(wire.ask(nginx.address, wire.post("/predict")).status, 200)
                    stream.sendall(request[-3:])
                    self.assertEqual(wire.parse(wire.read_to_end(stream))[0].status, 200)


if __name__ == "__main__":
    unittest.main()
