"""Servers that do what a real one does on its worst day."""

import re
import socket
import threading

ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Type: application/json\r\n\r\n{}"


class Upstream:
    """Reads whole requests, and answers them, ends the connection without an answer, or does nothing."""

    def __init__(self, does: str, host: str = "127.0.0.1", port: int = 0) -> None:
        self.does, self.requests = does, []
        self.listener = socket.create_server((host, port), backlog=1_024)
        self.host, self.port = self.listener.getsockname()
        self.address = f"{self.host}:{self.port}"
        self.open: list[socket.socket] = []

    def __enter__(self) -> "Upstream":
        threading.Thread(target=self.accept, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        # A thread in `accept` would keep the listener.
        self.listener.shutdown(socket.SHUT_RDWR)
        for stream in [self.listener, *self.open]:
            stream.close()

    def accept(self) -> None:
        """One connection after another."""
        while True:
            try:
                stream, _ = self.listener.accept()
            except OSError:
                return
            self.open.append(stream)
            threading.Thread(target=self.serve, args=(stream,), daemon=True).start()

    def serve(self, stream: socket.socket) -> None:
        """One request after another."""
        received = b""
        try:
            while piece := stream.recv(1 << 16):
                received += piece
                head, end, body = received.partition(b"\r\n\r\n")
                length = re.search(rb"(?i)content-length: *(\d+)", head)
                if not end or len(body) < int(length[1] if length else 0):
                    continue
                self.requests.append(received)
                received = b""
                if self.does == "closes":
                    break
                if self.does == "answers":
                    stream.sendall(ANSWER)
            stream.close()
        except OSError:
            return


class Gone:
    """A machine that is gone: nobody answers, not even with a refusal. Its queue of new connections is full."""

    def __init__(self) -> None:
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=0)
        self.address = "{}:{}".format(*self.listener.getsockname())
        self.waiting: list[socket.socket] = []

    def __enter__(self) -> "Gone":
        for _ in range(8):
            stream = socket.socket()
            stream.settimeout(0.3)
            self.waiting.append(stream)
            try:
                stream.connect(self.listener.getsockname())
            except TimeoutError:
                return self
        raise AssertionError("the queue does not fill up")

    def __exit__(self, *_: object) -> None:
        for stream in [self.listener, *self.waiting]:
            stream.close()
