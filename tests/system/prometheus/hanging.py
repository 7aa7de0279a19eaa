"""A model that answers every text at once, but never the text `hang`: a fault that exists in tests only.

The graph is written by hand, as ONNX is: messages of protocol buffers. It takes texts, turns a loop as often as a table
says for a text (0 times, but for one of them), and gives two constant probabilities.
"""

import struct
import sys
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[1]))
from protobuf import block, number  # noqa: E402

FOR_EVER = 1 << 61
FLOAT, INT64, STRING, BOOL = 1, 7, 8, 9


def tensor(name: str, kind: int, dims: list[int], raw: bytes) -> bytes:
    """A constant."""
    return b"".join(number(1, dim) for dim in dims) + number(2, kind) + block(8, name) + block(9, raw)


def value(name: str, kind: int, dims: list[str | int]) -> bytes:
    """The type of an input or an output."""
    sizes = [block(1, block(2, dim) if isinstance(dim, str) else number(1, dim)) for dim in dims]
    return block(1, name) + block(2, block(1, number(1, kind) + block(2, b"".join(sizes))))


def node(kind: str, inputs: list[str], outputs: list[str], attributes: list[bytes] = (), domain: str = "") -> bytes:
    """One operation."""
    parts = [block(1, name) for name in inputs] + [block(2, name) for name in outputs]
    return b"".join(parts) + block(4, kind) + b"".join(block(5, part) for part in attributes) + block(7, domain)


def graph() -> bytes:
    """The whole model."""
    table = [
        block(1, "keys_strings") + number(20, 8) + block(9, "hang"),
        block(1, "values_int64s") + number(20, 7) + number(8, FOR_EVER),
        block(1, "default_int64") + number(20, 2) + number(3, 0),
    ]
    turn = b"".join([
        block(1, node("Identity", ["on"], ["still_on"])), block(1, node("Identity", ["state"], ["next_state"])), block(2, "turn"),
        block(11, value("turn_number", INT64, [])), block(11, value("on", BOOL, [])), block(11, value("state", FLOAT, [])),
        block(12, value("still_on", BOOL, [])), block(12, value("next_state", FLOAT, [])),
    ])
    nodes = [
        node("LabelEncoder", ["text"], ["turns"], table, "ai.onnx.ml"),
        node("ReduceMax", ["turns"], ["most"], [block(1, "keepdims") + number(20, 2) + number(3, 0)]),
        node("Loop", ["most", "yes", "zero"], ["nothing"], [block(1, "body") + number(20, 5) + block(6, turn)]),
        node("Shape", ["turns"], ["size"]),
        node("Concat", ["size", "two"], ["sizes"], [block(1, "axis") + number(20, 2) + number(3, 0)]),
        node("Expand", ["scores", "sizes"], ["same"]),
        node("Add", ["same", "nothing"], ["probabilities"]),
    ]
    constants = [
        tensor("yes", BOOL, [], b"\x01"), tensor("zero", FLOAT, [], struct.pack("<f", 0)), tensor("two", INT64, [1], struct.pack("<q", 2)),
        tensor("scores", FLOAT, [1, 2], struct.pack("<ff", 0.75, 0.25)),
    ]
    inner = b"".join(block(1, part) for part in nodes) + block(2, "hanging") + b"".join(block(5, part) for part in constants)
    inner += block(11, value("text", STRING, ["n"])) + block(12, value("probabilities", FLOAT, ["n", 2]))
    domains = block(8, block(1, "") + number(2, 17)) + block(8, block(1, "ai.onnx.ml") + number(2, 3))
    return number(1, 8) + block(7, inner) + domains


def write(directory: Path) -> None:
    """Makes the directory of the version."""
    directory.mkdir(parents=True)
    (directory / "model.onnx").write_bytes(graph())
    (directory / "labels.json").write_text('["a", "b"]', encoding="utf-8")
