"""A model whose graph folds case by the rules of a locale, as scikit-learn's exports do: it loads where the locale is."""

import struct
import sys
from pathlib import Path

TESTS = Path(__file__).resolve().parents[1]
sys.path += [str(TESTS), str(TESTS / "prometheus")]
from hanging import FLOAT, INT64, STRING, node, tensor, value  # noqa: E402
from protobuf import block, number  # noqa: E402


def graph(locale: str) -> bytes:
    """Two constant probabilities for each text, once it is folded."""
    fold = [
        block(1, "case_change_action") + number(20, 3) + block(4, "LOWER"),
        block(1, "is_case_sensitive") + number(20, 2) + number(3, 1),
        block(1, "locale") + number(20, 3) + block(4, locale),
    ]
    table = [
        block(1, "keys_strings") + number(20, 8) + block(9, "nothing"),
        block(1, "values_floats") + number(20, 6) + bytes([7 << 3 | 5]) + struct.pack("<f", 0),
        block(1, "default_float") + number(20, 1) + bytes([2 << 3 | 5]) + struct.pack("<f", 0),
    ]
    nodes = [
        node("StringNormalizer", ["text"], ["folded"], fold),
        node("LabelEncoder", ["folded"], ["zeros"], table, "ai.onnx.ml"),
        node("Reshape", ["zeros", "column"], ["rows"]),
        node("Add", ["rows", "scores"], ["probabilities"]),
    ]
    constants = [tensor("column", INT64, [2], struct.pack("<qq", -1, 1)), tensor("scores", FLOAT, [1, 2], struct.pack("<ff", 0.75, 0.25))]
    inner = b"".join(block(1, part) for part in nodes) + block(2, "folding") + b"".join(block(5, part) for part in constants)
    inner += block(11, value("text", STRING, ["n"])) + block(12, value("probabilities", FLOAT, ["n", 2]))
    domains = block(8, block(1, "") + number(2, 17)) + block(8, block(1, "ai.onnx.ml") + number(2, 3))
    return number(1, 8) + block(7, inner) + domains


def write(directory: Path, locale: str) -> None:
    """Makes the directory of the version, for every user to read."""
    directory.mkdir(parents=True)
    (directory / "model.onnx").write_bytes(graph(locale))
    (directory / "labels.json").write_text('["a", "b"]', encoding="utf-8")
