"""Ways round what nginx and the server allow (S2, W16): other spellings of routes, what clients say of themselves."""

import json
import unittest

import wire
from instance import Nginx, until
from predictd import Predictd
from upstream import Upstream

# Nothing of these may be answered, whoever is asked and however.
CLOSED = ["/metrics", "/admin", "/admin/models", "/admin/logs", "/problem", "/problem/"]
OTHER_SPELLINGS = ["//{}", "/{}/", "/./{}", "/x/../{}", "/{};x", "/{}%00", "/{}%2f", "/{}%20", "/{}.", "/{}%0a",
                   "/x/..;/{}", "/%2e/{}", "/x/%2e%2e/{}", "/models/..%2f{}", "/health/../{}", "/livez/..%2f{}",
                   "/docs//../{}", "/models/%2e%2e/{}", "/{}%23", "/{}%3f"]
TRICKS = ("X-Original-URL: /{0}\r\nX-Rewrite-URL: /{0}\r\nX-HTTP-Method-Override: GET\r\nX-Forwarded-For: 127.0.0.1\r\n"
          "X-Forwarded-Host: localhost\r\nX-Forwarded-Prefix: /{0}\r\nForwarded: for=127.0.0.1;host=localhost\r\n")


def spellings(name: str) -> list[str]:
    """Other ways to write a route, none of which is it."""
    first = f"{ord(name[0]):02x}"
    return [shape.format(name) for shape in OTHER_SPELLINGS] + [
        f"/{name.upper()}", f"/%{first}{name[1:]}", f"/%25{first}{name[1:]}", f"\\{name}", f"/{name}\\", name,
        f"*/{name}"]


def message(method: str, target: str, version: str, headers: str, body: str) -> bytes:
    """A request that may be anything."""
    head = f"{method} {target} HTTP/{version}\r\nHost: 127.0.0.1:8001\r\nConnection: close\r\n{headers}"
    return f"{head}Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n{body}".encode()


class Paths(unittest.TestCase):
    """Each to the server and through nginx."""

    def test_there_is_no_way_round(self) -> None:
        """Neither to what is closed, nor without a key, nor by another name."""
        with Predictd() as server:
            server.key("admin")
            server.kill()
            server.start()
            with Nginx([server.address]) as nginx:
                for name in ("predict", "metrics", "admin/models"):
                    whole = [f"http://{host}/{name}" for host in ("localhost", server.admin, server.address)]
                    targets = [f"/{name}", *whole, *spellings(name)]
                    for target in targets:
                        for method in ("GET", "POST", "HEAD", "PUT", "get"):
                            for version in ("1.0", "1.1"):
                                self.check(server, nginx, name,
                                           message(method, target, version, TRICKS.format(name), wire.TEXT))

    def check(self, server: Predictd, nginx: Nginx, name: str, request: bytes) -> None:
        """Nothing is answered, and both say the same of it."""
        head_only = request.startswith(b"HEAD ")
        answers = [wire.parse(wire.exchange(address, request), head_only)[0]
                   for address in (server.address, nginx.address)]
        shown = f"{request[:120]!r}: {answers}"
        for answer in answers:
            self.assertIn(answer.status, (400, 401, 404, 405), shown)
            self.assertFalse(b"predictd_" in answer.body or b"prediction_id" in answer.body, shown)
        # nginx refuses some of what the server finds no route for. /metrics needs a key; through nginx it is not there.
        direct, through = (answer.status for answer in answers)
        allowed = {direct, 400} | ({404} if name == "metrics" else set())
        self.assertIn(through, allowed, shown)

    def test_what_is_closed_is_closed_with_a_key(self) -> None:
        """Nobody who comes through nginx is an operator, whatever key they have."""
        with Predictd() as server:
            key = server.key("admin,metrics,predict")
            server.kill()
            server.start()
            with Nginx([server.address]) as nginx:
                self.assertEqual(wire.ask(server.address, wire.get("/metrics", key)).status, 200)
                # /admin answers to hosts that are allowed only.
                own = wire.get("/admin/models", key).replace(b"Host: x", b"Host: localhost")
                self.assertEqual(wire.ask(server.admin, own).status, 200)
                self.assertEqual(wire.ask(nginx.address, wire.get("/models", key)).status, 200)
                for path in CLOSED:
                    for method in ("GET", "POST", "PUT", "DELETE"):
                        answer = wire.ask(nginx.address, wire.get(path, key, method))
                        self.assertEqual((answer.status, answer.kind()), (404, "not-found"), f"{method} {path}")

    def test_what_is_closed_is_not_passed_on(self) -> None:
        """Not even to a server that would answer it."""
        with Upstream("answers") as upstream, Nginx([upstream.address]) as nginx:
            paths = [*CLOSED, "/x", "/admin/models/m/1", "/x/health", "/healthz", "/predictions", "/predict/x", "/"]
            for path in paths:
                answer = wire.ask(nginx.address, wire.get(path))
                self.assertEqual((answer.status, answer.kind()), (404, "not-found"), path)
            self.assertEqual(upstream.requests, [])

    def test_every_route_is_open(self) -> None:
        """All that the server describes, but for metrics."""
        with Predictd() as server, Nginx([server.address]) as nginx:
            paths = wire.ask(nginx.address, wire.get("/openapi.json")).json()["paths"]
            self.assertIn("/predict", paths)
            for path in [*paths, "/docs", "/openapi.json"]:
                path = path.replace("{name}", "m")
                for request in (wire.get(path), wire.post(path)):
                    direct, through = wire.ask(server.address, request), wire.ask(nginx.address, request)
                    expected = 404 if path == "/metrics" else direct.status
                    self.assertEqual(through.status, expected, request)

    def test_ids(self) -> None:
        """A harmless id is the client's, any other is nginx's. Both logs and the client have the same."""
        with Predictd() as server, Nginx([server.address]) as nginx:
            # The connection that found nginx ready left no line.
            requests = 0
            good, bad = ("abc-DEF_1.2", "a" * 64), ("a" * 65, "a b", "é", "", "pd_secret", '"', "a\\")
            for given in good + bad:
                for path, status in (("/models", 200), ("/nowhere", 404)):
                    header = f"X-Request-Id: {given}\r\n"
                    answer = wire.ask(nginx.address, wire.get(path, header))
                    got = answer.headers["x-request-id"]
                    self.assertEqual(answer.status, status)
                    self.assertEqual(got == given, given in good, f"{given!r} became {got!r}")
                    self.assertRegex(got, r"^[A-Za-z0-9._-]{1,64}$")
                    requests += 1
                    self.assertEqual(nginx.logged(requests)[-1]["request_id"], got)
                    if status == 200:
                        until(f"{got} is logged", lambda id=got: f'"request_id":"{id}"' in server.log())
            self.assertNotIn("pd_secret", server.log() + str(nginx.log()))

    def test_what_is_passed_on(self) -> None:
        """What the server needs, and nothing that a client could make itself another by."""
        told = "".join(f"{name}: {value}\r\n" for name, value in {
            "Authorization": "Bearer x", "X-Request-Timeout-Ms": "5", "Cache-Control": "no-cache", "X-Request-Id": "a",
            "X-Forwarded-For": "10.0.0.1", "X-Forwarded-Proto": "https", "X-Forwarded-Host": "evil",
            "Forwarded": "for=a", "X-Forwarded-Port": "1", "X-Real-IP": "10.0.0.1",
            "X-Original-URL": "/metrics", "X-Rewrite-URL": "/metrics",
            "X-HTTP-Method-Override": "GET", "traceparent": f"00-{'a' * 32}-{'b' * 16}-01", "tracestate": "a=b",
            "TE": "trailers", "Upgrade": "h2c", "X_Forwarded_For": "10.0.0.1", "Expect": "100-continue"}.items())
        with Upstream("answers") as upstream, Nginx([upstream.address]) as nginx:
            wire.ask(nginx.address, wire.post("/predict?%7e=%2F", headers=told).replace(b"Host: x", b"Host: a.b:81"))
            head, body = upstream.requests[0].decode().split("\r\n\r\n")
            line, *headers = head.split("\r\n")
            self.assertEqual((line, body), ("POST /predict?%7e=%2F HTTP/1.1", wire.TEXT))
            self.assertEqual(dict(header.lower().split(": ", 1) for header in headers), {
                "host": "a.b:81", "authorization": "bearer x", "x-request-timeout-ms": "5", "cache-control": "no-cache",
                "x-request-id": "a", "x-forwarded-for": "127.0.0.1", "x-forwarded-proto": "http",
                "content-type": "application/json", "content-length": str(len(wire.TEXT))})
            self.assertEqual(len(headers), 9)

    def test_log_lines(self) -> None:
        """Each is JSON, and a query is not in it."""
        with Predictd() as server, Nginx([server.address]) as nginx:
            requests = [wire.get("/livez?text=SECRET"), wire.get('/a"b\\c'), wire.get("/é"), wire.get("/%0a%00\x7f"),
                        wire.get("/livez", 'User-Agent: "\\\x1b[31mé\r\n'), wire.post("/nowhere"),
                        b"\x16\x03\x01\r\n\r\n", wire.get("/" + "a" * 20_000)]
            # No UTF-8.
            requests += [request.replace("é".encode(), b"\xe9") for request in requests if "é".encode() in request]
            for request in requests:
                wire.exchange(nginx.address, request)
            lines = nginx.logged(len(requests))
            self.assertEqual(len(lines), len(requests))
            self.assertEqual([line["path"] for line in lines[:2]], ["/livez", '/a"b\\c'])
            self.assertEqual((lines[5]["method"], lines[5]["status"]), ("POST", 404))
            self.assertNotIn("SECRET", json.dumps(lines))
            self.assertLess(max(len(json.dumps(line)) for line in lines), 2_000)

    def test_a_client_is_what_nginx_sees(self) -> None:
        """What it says of itself changes nothing (W16)."""
        def said(number: int) -> str:
            name = f"10.0.{number // 250}.{1 + number % 250}"
            return (f"X-Forwarded-For: {name}\r\nX-Real-IP: {name}\r\nForwarded: for={name}\r\nX-Client-IP: {name}\r\n"
                    f"True-Client-IP: {name}\r\n")

        options = ("--rate-limit", "2", "--trusted-proxies", "127.0.0.1/32")
        with Predictd(*options) as server, Nginx([server.address]) as nginx:
            requests = [wire.post("/predict", headers=said(number)) for number in range(60)]
            self.assertEqual({wire.ask(nginx.address, request).status for request in requests}, {200, 429})
            # The server would have believed them, had they come from nginx.
            self.assertEqual({wire.ask(server.address, request).status for request in requests}, {200})
            # Somebody else is not limited for that.
            until("it is limited", lambda: wire.ask(nginx.address, wire.post("/predict")).status == 429)
            other = wire.connect(nginx.address, source="127.0.0.2")
            with other:
                other.sendall(wire.post("/predict"))
                self.assertEqual(wire.parse(wire.read_to_end(other))[0].status, 200)


if __name__ == "__main__":
    unittest.main()
