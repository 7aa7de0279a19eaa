"""Requests of which every byte is chosen, and the answers to them."""

import json
import re
import socket
import ssl

# Nothing that is asked here takes that long.
PATIENCE = 30
TEXT = '{"text":"hello"}'


def place(address: str) -> tuple[str, int]:
    """Host and port."""
    host, port = address.rsplit(":", 1)
    return host, int(port)


def post(path: str, body: str = TEXT, headers: str = "", kind: str = "application/json") -> bytes:
    """A whole request with a body; the connection ends with it."""
    data = body.encode()
    head = f"POST {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{headers}"
    if kind:
        head += f"Content-Type: {kind}\r\n"
    return f"{head}Content-Length: {len(data)}\r\n\r\n".encode() + data


def get(path: str, headers: str = "", method: str = "GET") -> bytes:
    """A whole request without a body; the connection ends with it."""
    return f"{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{headers}\r\n".encode()


class Answer:
    """One answer."""

    def __init__(self, head: bytes, body: bytes) -> None:
        lines = head.decode("latin-1").split("\r\n")
        self.status = int(lines[0].split(" ")[1])
        self.headers: dict[str, str] = {}
        for line in lines[1:]:
            name, value = line.split(":", 1)
            name = name.lower()
            assert name not in self.headers or name == "set-cookie", f"{name} comes twice: {head!r}"
            self.headers[name] = value.strip()
        self.body = body

    def json(self):
        """The body."""
        return json.loads(self.body)

    def kind(self) -> str:
        """The kind of a problem; nothing if it is none."""
        if self.headers.get("content-type") != "application/problem+json" or not self.body:
            return ""
        return self.json()["type"].removeprefix("/docs#")

    def __repr__(self) -> str:
        return f"{self.status} {self.headers} {self.body[:300]!r}"


def parse(received: bytes, head_only: bool = False) -> list[Answer]:
    """All answers in what came; nothing may be left."""
    answers = []
    while received:
        head, end, rest = received.partition(b"\r\n\r\n")
        assert end, f"half an answer: {received[:300]!r}"
        answer = Answer(head, b"")
        if answer.status == 100:
            received = rest
            continue
        length = 0 if head_only else int(answer.headers.get("content-length", "0"))
        assert "transfer-encoding" not in answer.headers, f"chunked: {answer}"
        assert len(rest) >= length, f"half a body: {received[:300]!r}"
        answer.body, received = rest[:length], rest[length:]
        answers.append(answer)
    return answers


def connect(address: str, tls: ssl.SSLContext | None = None, source: str = "") -> socket.socket:
    """A connection, from another of this machine's addresses where one is named."""
    stream = socket.create_connection(place(address), PATIENCE, (source, 0) if source else None)
    stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return tls.wrap_socket(stream) if tls else stream


def read_to_end(stream: socket.socket) -> bytes:
    """All that comes until the other side ends the connection, orderly or not."""
    received = b""
    while piece := receive(stream):
        received += piece
    return received


def receive(stream: socket.socket) -> bytes:
    """What comes next; nothing at the end."""
    try:
        return stream.recv(1 << 16)
    except ConnectionError:
        return b""


def exchange(address: str, message: bytes, piece: int = 0, tls: ssl.SSLContext | None = None) -> bytes:
    """Sends bytes on a connection of their own, at once or in pieces; all that comes."""
    with connect(address, tls) as stream:
        try:
            for start in range(0, len(message), piece or len(message)):
                stream.sendall(message[start:start + (piece or len(message))])
        except ConnectionError:
            # It may have been refused before everything was sent.
            pass
        return read_to_end(stream)


def ask(address: str, message: bytes, tls: ssl.SSLContext | None = None) -> Answer:
    """The only answer to a request."""
    head_only = message.startswith(b"HEAD ")
    with connect(address, tls) as stream:
        try:
            stream.sendall(message)
        except ConnectionError:
            pass
        received = b""
        while not is_whole(received, head_only) and (piece := receive(stream)):
            received += piece
        # It has its answer: nobody need wait for the rest of what was announced.
        if not tls:
            try:
                stream.shutdown(socket.SHUT_WR)
            except OSError:
                pass
            received += read_to_end(stream)
    answers = parse(received, head_only)
    assert len(answers) == 1, f"{len(answers)} answers to {message[:200]!r}: {answers}"
    return answers[0]


def is_whole(received: bytes, head_only: bool) -> bool:
    """True once there is an answer."""
    head, end, rest = received.partition(b"\r\n\r\n")
    if head.startswith(b"HTTP/1.1 100 "):
        return is_whole(rest, head_only)
    length = re.search(rb"(?i)content-length: *(\d+)", head)
    return bool(end) and (head_only or len(rest) >= int(length[1] if length else 0))
