"""Model directories of a few kilobytes that load in a few milliseconds, written without the onnx package.

Each version answers with a label of its own: an answer tells from which files it was computed.
"""

import json
import sys
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[1]))
from protobuf import block, number  # noqa: E402

FLOAT, INT64 = 1, 7


def node(operator: str, inputs: list[str], output: str, **attributes: int) -> bytes:
    """A node, whose attributes are integers."""
    body = b"".join(block(1, name) for name in inputs) + block(2, output) + block(4, operator)
    for name, value in attributes.items():
        body += block(5, block(1, name) + number(3, value) + number(20, 2))
    return block(1, body)


def constant(name: str, element: int, dims: list[int], raw: bytes) -> bytes:
    """A tensor whose elements stand in the graph."""
    body = b"".join(number(1, dim) for dim in dims) + number(2, element)
    return block(5, body + block(8, name) + block(9, raw))


def port(field: int, name: str, element: int, dims: list[str | int]) -> bytes:
    """An input (11) or an output (12)."""
    sizes = (block(1, block(2, dim) if isinstance(dim, str) else number(1, dim)) for dim in dims)
    return block(field, block(1, name) + block(2, block(1, number(1, element) + block(2, b"".join(sizes)))))


def graph(weights: bytes) -> bytes:
    """The sum of the ids of the real tokens, times two weights."""
    body = node("Cast", ["input_ids"], "ids", to=FLOAT) + node("Cast", ["attention_mask"], "mask", to=FLOAT)
    body += node("Mul", ["ids", "mask"], "real") + node("ReduceSum", ["real", "one"], "sum")
    body += node("MatMul", ["sum", "weights"], "logits") + block(2, "tiny")
    body += constant("one", INT64, [1], (1).to_bytes(8, "little")) + constant("weights", FLOAT, [1, 2], weights)
    body += port(11, "input_ids", INT64, ["batch", "sequence"])
    body += port(11, "attention_mask", INT64, ["batch", "sequence"])
    body += port(12, "logits", FLOAT, ["batch", 2])
    return number(1, 8) + block(7, body) + block(8, block(1, "") + number(2, 17))


def tokenizer() -> dict:
    """Every text is words, most of which it does not know."""
    special = {"[PAD]": 0, "[UNK]": 1}
    added = [{"id": number_, "content": token, "single_word": False, "lstrip": False, "rstrip": False,
              "normalized": False, "special": True} for token, number_ in special.items()]
    vocabulary = special | {str(word): word for word in range(2, 100)}
    return {"version": "1.0", "truncation": None, "padding": None, "added_tokens": added, "normalizer": None,
            "pre_tokenizer": {"type": "Whitespace"}, "post_processor": None, "decoder": None,
            "model": {"type": "WordLevel", "vocab": vocabulary, "unk_token": "[UNK]"}}


def label(version: str) -> str:
    """What this version answers, whatever it is asked."""
    return f"v{version}"


def write(directory: Path, version: str, padding: int = 0) -> Path:
    """Writes a version, which differs from others in all but its tokenizer; `padding` more bytes of notes."""
    directory.mkdir(parents=True)
    # 2.0 and 1.0: the first label wins for every sum of ids.
    (directory / "model.onnx").write_bytes(graph(bytes.fromhex("000000400000803f")) + block(6, f"of version {version}"))
    config = {"id2label": {"0": label(version), "1": "none"}}
    (directory / "config.json").write_text(json.dumps(config), encoding="utf-8")
    (directory / "tokenizer.json").write_text(json.dumps(tokenizer()), encoding="utf-8")
    (directory / "notes.txt").write_text(f"version {version}\n" + "x" * padding, encoding="utf-8")
    return directory
