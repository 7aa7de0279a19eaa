"""Clients that ask without a pause, and count what does not come back as it should."""

import asyncio
import collections
import json
import random
import threading
import time

# Asked of the cheap model mostly: many requests are in work at a time, and few cores are enough.
CHEAP, DEAR = "banking77-tfidf", "banking77-minilm"
WORDS = "my new card has not come yet where is it why was I charged a fee for the transfer abroad".split()
LONGEST = 60
# A connection that was closed while it was idle ends at once; later than this, the request was under way.
AT_ONCE = 0.1


class Closed(Exception):
    """The connection ended before an answer began."""


class Load:
    """So many clients, each with a connection that it keeps, and at most `rate` requests a second together."""

    def __init__(self, port: int, clients: int, rate: float | None = None, host: str = "127.0.0.1") -> None:
        self.host, self.port, self.clients, self.rate = host, port, clients, rate
        self.answered: collections.Counter[str] = collections.Counter()
        self.failed: list[str] = []
        # Requests that met a connection while it was being closed, and were sent again.
        self.stale = 0
        self.slowest = 0.0
        self._over = False
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()), daemon=True)

    def __enter__(self) -> "Load":
        self.began = time.monotonic()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over = True
        self._thread.join()
        self.seconds = time.monotonic() - self.began

    @property
    def runs(self) -> bool:
        return self._thread.is_alive()

    @property
    def total(self) -> int:
        return sum(self.answered.values()) + len(self.failed)

    def told(self) -> str:
        return (f"{self.total} requests, {len(self.failed)} failed, {self.stale} met a connection that was being closed and were sent again, "
                f"the slowest took {self.slowest:.2f} s")

    async def _run(self) -> None:
        await asyncio.gather(*(self._client(number) for number in range(self.clients)))

    async def _client(self, number: int) -> None:
        chance, connection = random.Random(number), None
        pause = self.clients / self.rate if self.rate else 0
        # Not all at the same moment.
        due = time.monotonic() + pause * chance.random()
        while not self._over:
            if pause:
                await asyncio.sleep(max(0.0, due - time.monotonic()))
                due = max(due + pause, time.monotonic() - 1)
            request, wanted = self._request(chance)
            if connection and connection[0].at_eof():
                # As every client does that keeps connections: one that was closed meanwhile is not used.
                connection[1].close()
                connection = None
            start, reused = time.monotonic(), connection is not None
            try:
                connection = connection or await asyncio.open_connection(self.host, self.port)
                try:
                    status, body, stays = await asyncio.wait_for(self._ask(connection, request), LONGEST)
                except Closed:
                    if not reused or time.monotonic() - start > AT_ONCE:
                        raise
                    self.stale += 1
                    connection = await asyncio.open_connection(self.host, self.port)
                    status, body, stays = await asyncio.wait_for(self._ask(connection, request), LONGEST)
                self._look(status, body, wanted)
            # Whatever it is, the request had no good answer.
            except Exception as error:
                self.failed.append(f"after {time.monotonic() - self.began:.1f} s: {type(error).__name__} {error}")
                stays = False
            self.slowest = max(self.slowest, time.monotonic() - start)
            if not stays:
                if connection:
                    connection[1].close()
                connection = None
        if connection:
            connection[1].close()

    @staticmethod
    def _request(chance: random.Random) -> tuple[bytes, str]:
        def text() -> str:
            return " ".join(chance.choices(WORDS, k=chance.randint(4, 16)))

        kind = chance.random()
        if kind < 0.05:
            path, content, wanted = "/batch_predict", {"texts": [text() for _ in range(4)], "model": CHEAP}, "results"
        else:
            path, content, wanted = "/predict", {"text": text(), "model": DEAR if kind < 0.07 else CHEAP}, "prediction"
        body = json.dumps(content).encode()
        head = f"POST {path} HTTP/1.1\r\nHost: e2e\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        return head.encode() + body, wanted

    @staticmethod
    async def _ask(connection: tuple[asyncio.StreamReader, asyncio.StreamWriter], request: bytes) -> tuple[int, bytes, bool]:
        reader, writer = connection
        try:
            writer.write(request)
            head = await reader.readuntil(b"\r\n\r\n")
        except asyncio.IncompleteReadError as error:
            if error.partial:
                raise
            raise Closed("before the answer") from error
        except ConnectionError as error:
            raise Closed(str(error)) from error
        lines = head.decode("latin-1").lower().split("\r\n")
        headers = dict(line.split(": ", 1) for line in lines[1:] if ": " in line)
        body = await reader.readexactly(int(headers.get("content-length", 0)))
        return int(lines[0].split(" ")[1]), body, headers.get("connection") != "close"

    def _look(self, status: int, body: bytes, wanted: str) -> None:
        answer = json.loads(body) if status == 200 else {}
        results = answer.get("results", [answer])
        if status == 200 and wanted in answer and all("prediction" in result for result in results):
            self.answered[wanted] += 1
        else:
            self.failed.append(f"after {time.monotonic() - self.began:.1f} s: {status} {body[:200]!r}")
