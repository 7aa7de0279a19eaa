"""Several servers behind nginx, some of which are not well (W17, W18)."""

import random
import signal
import socket
import struct
import subprocess
import threading
import time
import unittest
from collections import Counter
from pathlib import Path

import wire
from instance import Nginx, free_port, until, version
from predictd import BINARY, Predictd
from upstream import Gone, Upstream

PREDICT = wire.post("/predict")


class Retries(unittest.TestCase):
    """Which requests are sent again, and when."""

    def test_a_server_goes_away_with_the_request(self) -> None:
        """A prediction is asked of another server, once, and nobody notices."""
        with Upstream("closes") as bad, Predictd() as server, Nginx([bad.address, server.address]) as nginx:
            before = server.reached("/predict")
            count = 0

            def asked() -> bool:
                nonlocal count
                count += 1
                for path, body in (("/predict", '{"text":"a"}'), ("/batch_predict", '["a"]')):
                    answer = wire.ask(nginx.address, wire.post(path, body))
                    self.assertEqual(answer.status, 200, answer)
                return len(bad.requests) >= 3

            # A server that failed is left alone for a second.
            until("the bad one is asked again", asked)
            self.assertEqual(server.reached("/predict") - before, count, "each is answered once")
            tried = Counter(line["upstream"].count(",") for line in nginx.logged(2 * count))
            self.assertEqual((set(tried), tried[1]), ({0, 1}, len(bad.requests)))

    def test_what_is_kept_is_not_told_twice(self) -> None:
        """Feedback reaches one server, and the client learns that it may not have been taken. So does all else."""
        with Upstream("closes") as bad, Upstream("closes") as worse, Nginx([bad.address, worse.address]) as nginx:
            told = 0
            for number in range(40):
                feedback = wire.post("/feedback", f'{{"number":{number}}}')
                request = feedback if number % 2 else wire.get(f"/models/{number}")
                answer = wire.ask(nginx.address, request)
                self.assertEqual((answer.status, answer.kind()), (502, "server-unreachable"))
                self.assertIn(answer.headers["retry-after"], "123")
                told += 1
                time.sleep(0.05)
            lines = nginx.logged(told)
            self.assertFalse([line for line in lines if "," in line["upstream"]])
            requests = bad.requests + worse.requests
            self.assertGreater(len(requests), 2)
            self.assertTrue(any(b"/feedback" in request for request in requests))
            bodies = Counter(request.partition(b"\r\n\r\n")[2] or request.split(b" ")[1] for request in requests)
            self.assertEqual(max(bodies.values()), 1, bodies)

    def test_a_prediction_is_tried_twice_at_most(self) -> None:
        """However many servers there are."""
        with Upstream("closes") as one, Upstream("closes") as two, Upstream("closes") as three:
            with Nginx([one.address, two.address, three.address]) as nginx:
                answer = wire.ask(nginx.address, PREDICT)
                self.assertEqual((answer.status, answer.kind()), (502, "server-unreachable"))
                self.assertEqual(sum(len(upstream.requests) for upstream in (one, two, three)), 2)

    def test_a_server_that_refuses_connections(self) -> None:
        """Nothing was sent: predictions and feedback are asked of the other."""
        for path in ("/predict", "/feedback"):
            with Upstream("answers") as good, Nginx([f"127.0.0.1:{free_port()}", good.address]) as nginx:
                def was_refused(path: str = path, nginx: Nginx = nginx) -> bool:
                    self.assertEqual(wire.ask(nginx.address, wire.post(path)).status, 200)
                    return any("," in line["upstream"] for line in nginx.log())

                until("the one that refuses is asked", was_refused)
                self.assertEqual(len(good.requests), len(nginx.logged(len(good.requests))))

    def test_a_machine_that_is_gone(self) -> None:
        """It does not even refuse. After a second the other is asked."""
        for path in ("/predict", "/feedback"):
            with Gone() as gone, Upstream("answers") as good, Nginx([gone.address, good.address]) as nginx:
                statuses = [wire.ask(nginx.address, wire.post(path)).status for _ in range(4)]
                self.assertEqual(statuses, [200] * 4)
                self.assertEqual([line["upstream_status"] for line in nginx.logged(4) if "," in line["upstream"]],
                                 ["504, 200"])
                self.assertEqual(len(good.requests), 4)

    def test_a_server_that_takes_too_long(self) -> None:
        """It has the request: nobody else gets it too. Both times are a thirtieth of what is shipped."""
        changes = {"proxy.conf": [("proxy_read_timeout 65s", "proxy_read_timeout 2167ms")],
                   "routes.conf": [("proxy_next_upstream_timeout 60s", "proxy_next_upstream_timeout 2s")]}
        with Upstream("hangs") as slow, Upstream("hangs") as slower:
            with Nginx([slow.address, slower.address], changes=changes) as nginx:
                answer = wire.ask(nginx.address, PREDICT)
                self.assertEqual((answer.status, answer.kind()), (504, "deadline-exceeded"))
                self.assertEqual(len(slow.requests + slower.requests), 1)

    def test_a_refusal_is_an_answer(self) -> None:
        """A server that is full is not asked twice, and no other for it."""
        options = ("--default-model", "m", "--max-inflight-items", "2", "--max-client-batch-size", "2", "--rate-limit", "1")
        with Predictd(*options) as one, Predictd(*options) as two, Nginx([one.address, two.address]) as nginx:
            before, count = one.reached() + two.reached(), 30
            statuses = Counter(wire.ask(nginx.address, PREDICT).status for _ in range(count))
            self.assertEqual(set(statuses), {200, 429})
            self.assertEqual(one.reached() + two.reached() - before, count)


class Coming(unittest.TestCase):
    """Servers that come back."""

    def test_the_only_one_is_back(self) -> None:
        """It gets the first request that comes after."""
        port = free_port()
        with Nginx([f"127.0.0.1:{port}"]) as nginx:
            for _ in range(5):
                for request in (PREDICT, wire.get("/livez"), wire.post("/feedback")):
                    self.assertEqual(wire.ask(nginx.address, request).status, 502)
            with Upstream("answers", port=port):
                self.assertEqual(wire.ask(nginx.address, PREDICT).status, 200)

    def test_all_are_back(self) -> None:
        """They get requests again by themselves."""
        ports = [free_port(), free_port()]
        with Nginx([f"127.0.0.1:{port}" for port in ports]) as nginx:
            for _ in range(5):
                self.assertEqual(wire.ask(nginx.address, PREDICT).status, 502)
            with Upstream("answers", port=ports[0]) as one, Upstream("answers", port=ports[1]) as two:
                end = time.monotonic() + 20
                while not (one.requests and two.requests):
                    self.assertLess(time.monotonic(), end)
                    wire.ask(nginx.address, PREDICT)

    def test_killed_and_halted_servers(self) -> None:
        """502 where it is gone, 504 where it stands still."""
        changes = {"proxy.conf": [("proxy_read_timeout 65s", "proxy_read_timeout 1s")]}
        with Predictd() as server, Nginx([server.address], changes=changes) as nginx:
            self.assertEqual(wire.ask(nginx.address, PREDICT).status, 200)
            server.process.send_signal(signal.SIGSTOP)
            until("it stands still", lambda: states(server.process.pid) == {"T"})
            answer = wire.ask(nginx.address, PREDICT)
            self.assertEqual((answer.status, answer.kind()), (504, "deadline-exceeded"))
            server.process.send_signal(signal.SIGCONT)
            self.assertEqual(wire.ask(nginx.address, PREDICT).status, 200)
            server.kill()
            answer = wire.ask(nginx.address, PREDICT)
            self.assertEqual((answer.status, answer.kind()), (502, "server-unreachable"))

    @unittest.skipIf(version() < (1, 27, 3), "this nginx looks a name up when it starts, and not again")
    def test_servers_are_added_and_taken_away(self) -> None:
        """By the answers of a resolver, while nginx runs."""
        port = free_port()
        with Upstream("answers", "127.0.0.2", port) as one, Upstream("answers", "127.0.0.3", port) as two:
            with Resolver(["127.0.0.2"]) as resolver:
                changes = {"upstream-resolve.conf": [("resolver 127.0.0.11", f"resolver {resolver.address}")]}
                with Nginx([f"predictd:{port}"], changes=changes) as nginx:
                    def asked(what: str, holds) -> None:
                        end = time.monotonic() + 20
                        while not holds():
                            self.assertLess(time.monotonic(), end, what)
                            wire.ask(nginx.address, PREDICT)

                    asked("the first is asked", lambda: one.requests)
                    self.assertEqual(two.requests, [])
                    resolver.addresses = ["127.0.0.2", "127.0.0.3"]
                    asked("the second is asked too", lambda: two.requests)
                    resolver.addresses = ["127.0.0.3"]
                    asked("the first is not asked any more", lambda: len(two.requests) > len(one.requests) + 50)


def states(pid: int) -> set[str]:
    """What the threads of a process do."""
    return {(task / "stat").read_text().rpartition(")")[2].split()[0] for task in Path(f"/proc/{pid}/task").iterdir()}


class Resolver:
    """A name server that has one name."""

    def __init__(self, addresses: list[str]) -> None:
        self.addresses = addresses
        self.socket = socket.socket(type=socket.SOCK_DGRAM)
        self.socket.bind(("127.0.0.1", 0))
        self.address = "{}:{}".format(*self.socket.getsockname())

    def __enter__(self) -> "Resolver":
        threading.Thread(target=self.answer, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def answer(self) -> None:
        """Says these addresses hold for ten minutes, as Docker does."""
        while True:
            try:
                query, client = self.socket.recvfrom(512)
            except OSError:
                return
            head = query[:2] + struct.pack(">HHHHH", 0x8180, 1, len(self.addresses), 0, 0)
            records = b"".join(b"\xc0\x0c" + struct.pack(">HHIH", 1, 1, 600, 4) + socket.inet_aton(address)
                               for address in self.addresses)
            self.socket.sendto(head + query[12:] + records, client)


class KeepAlive(unittest.TestCase):
    """Connections that rest between nginx and the server."""

    def test_the_server_does_not_close_what_nginx_uses(self) -> None:
        """10,240 requests, with pauses as long as connections rest; times are a thirtieth of what is shipped."""
        help_ = subprocess.run([BINARY, "serve", "--help"], capture_output=True, text=True, check=True).stdout
        self.assertRegex(help_, r"--keep-alive <TIME>[^-]*\[default: 75s\]")
        changes = {name: [("keepalive_timeout 60s", "keepalive_timeout 2s")]
                   for name in ("upstream.conf", "upstream-resolve.conf")}
        changes["nginx.conf"] = [("rate=1000r/s", "rate=100000r/s")]
        failures: list[object] = []

        def client(number: int) -> None:
            chance = random.Random(number)
            with wire.connect(nginx.address) as stream:
                for request in range(160):
                    if request % 27 == 26:
                        time.sleep(chance.uniform(1.9, 2.6))
                    stream.sendall(b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n")
                    received = b""
                    while not wire.is_whole(received, False):
                        if not (piece := wire.receive(stream)):
                            failures.append(f"ended: {received!r}")
                            return
                        received += piece
                    if (answer := wire.parse(received)[0]).status != 200:
                        failures.append(answer)

        with Predictd("--keep-alive", "2500ms") as server, Nginx([server.address], changes=changes) as nginx:
            before = server.reached("/livez")
            threads = [threading.Thread(target=client, args=(number,)) for number in range(64)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            self.assertEqual(failures, [])
            self.assertEqual(server.reached("/livez") - before, 64 * 160)


if __name__ == "__main__":
    unittest.main()
