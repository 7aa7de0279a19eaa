"""Small models with random weights, as their authors have them."""

import dataclasses
import json
import sys
from pathlib import Path

ROOT = Path(__file__).parents[3]
sys.path[:0] = [str(ROOT / "models"), str(ROOT / "tests/system/parity")]

from architectures import KINDS, MORE_KINDS, build  # noqa: E402
from texts import corpus  # noqa: E402

COLOURS = {0: "red", 1: "green", 2: "blue"}
# One letter each up to far more than the model takes.
TEXTS = ["x", "Where is my new card?", "Ich hätte gern zwei Brötchen, bitte!", "この映画は本当に素晴らしかったです。",
         "👩‍👩‍👧‍👦 loved it", "e\u0301 combining", "word " * 90, *(f"word number {number}" for number in range(30))]


def trained(folder: Path, labels: dict[int, str] | None = None, kind: str = "Bert", width: int | None = None,
            **settings) -> Path:
    """Writes the model into the folder, which it returns. `width` is that of its wide layers."""
    made = next(one for one in KINDS + MORE_KINDS if kind in (one.name, one.called))
    if width is not None:
        made = dataclasses.replace(made, settings={**made.settings, "intermediate_size": width})
    build(made, corpus(), folder, labels or COLOURS, **settings)
    return folder


def altered(source: Path, folder: Path, config: dict | None = None, tokenizer_config: dict | None = None,
            tokenizer: dict | None = None, weights: bytes | None = None) -> Path:
    """Writes the model into another folder with these members changed. A member of None is removed. Returns the folder."""
    folder.mkdir(exist_ok=True)
    for path in source.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    for name, members in (("config.json", config), ("tokenizer_config.json", tokenizer_config), ("tokenizer.json", tokenizer)):
        if members is not None:
            content = json.loads((folder / name).read_text()) | members
            kept = {key: value for key, value in content.items() if value is not None or name == "tokenizer.json"}
            (folder / name).write_text(json.dumps(kept), encoding="utf-8")
    if weights is not None:
        (folder / "model.safetensors").write_bytes(weights)
    return folder
