"""Runs a transformer from its directory as the server does: its tokenizer, its limits, its padding."""

import csv
import json
import math
import tomllib
from collections.abc import Iterable
from pathlib import Path

import numpy
from tokenizers import Tokenizer

from .refused import Refused
from .sessions import session
from .texts import Text

DEFAULT_MAX_TOKENS = 512
# Position tables of these models begin after the number of the padding token.
OFFSET_POSITIONS = {"roberta", "xlm-roberta", "xlm-roberta-xl", "camembert", "longformer", "roberta-prelayernorm",
                    "data2vec-text", "xmod", "mpnet", "ibert", "luke", "esm", "layoutlmv3", "markuplm", "lilt"}
Row = tuple[list[int], list[int]]


def read_json(path: Path) -> dict:
    """The file's object, or an empty one where there is no file."""
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}


class TextModel:
    """Everything of a directory but its graph, so that several graphs can be compared."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.graph = next((path for path in (folder / "model.onnx", folder / "onnx/model.onnx")
                           if path.is_file()), None)
        if self.graph is None:
            raise Refused(f"{folder} has no model.onnx and no onnx/model.onnx")
        if not (folder / "tokenizer.json").is_file():
            raise Refused(f"{folder} has no tokenizer.json; graphs that take the text itself have nothing to quantise")
        self.settings = self.read_settings(folder)
        self.config = read_json(folder / "config.json")
        self.tokenizer_config = read_json(folder / "tokenizer_config.json")
        self.tokenizer = self.read_tokenizer()
        self.labels = self.read_labels()
        self.set_limits()

    @staticmethod
    def read_settings(folder: Path) -> dict:
        """What model.toml says."""
        manifest = folder / "model.toml"
        return tomllib.loads(manifest.read_text(encoding="utf-8")) if manifest.is_file() else {}

    def read_tokenizer(self) -> Tokenizer:
        """As AutoTokenizer reads the directory; the file alone, where no class is named and none follows from the model."""
        # It takes seconds to load.
        from transformers import AutoTokenizer
        from transformers.models.auto.tokenization_auto import TOKENIZER_MAPPING_NAMES
        named = self.tokenizer_config.get("tokenizer_class") or self.config.get("tokenizer_class")
        if not named and self.config.get("model_type") not in TOKENIZER_MAPPING_NAMES:
            return Tokenizer.from_file(str(self.folder / "tokenizer.json"))
        try:
            return AutoTokenizer.from_pretrained(self.folder).backend_tokenizer
        # Files of unknown content make it raise anything.
        except Exception as error:
            raise Refused(f"AutoTokenizer cannot read {self.folder} ({type(error).__name__}: {error}); export the model again") from error

    def read_labels(self) -> list[str]:
        """Labels in score order."""
        if (self.folder / "labels.json").is_file():
            return json.loads((self.folder / "labels.json").read_text(encoding="utf-8"))
        named = self.config.get("id2label")
        if not named and "regression" in (self.settings.get("task"), self.config.get("problem_type")):
            return []
        if not named and not self.config.get("model_type"):
            raise Refused(f"{self.folder} names no labels: neither labels.json nor id2label in config.json is there")
        # What config.json leaves out is what AutoConfig takes for it.
        named = named or {str(number): f"LABEL_{number}" for number in range(self.config.get("num_labels", 2))}
        return [str(named[str(number)]) for number in range(len(named))]

    def set_limits(self) -> None:
        """Cutting and padding, each from the same files as in the server."""
        cutting, padding = self.tokenizer.truncation, self.tokenizer.padding
        positions = self.config.get("max_position_embeddings")
        pad = self.config.get("pad_token_id")
        if positions and self.config.get("model_type") in OFFSET_POSITIONS:
            positions -= (pad if pad is not None else 1) + 1
        named = self.tokenizer_config.get("model_max_length")
        # A truncation in tokenizer.json is no limit: AutoTokenizer passes over it.
        limits = [named if named and 1 <= named < 1e9 else None, positions,
                  self.settings.get("max_tokens")]
        self.max_tokens = int(min((limit for limit in limits if limit), default=DEFAULT_MAX_TOKENS))
        side = self.tokenizer_config.get("truncation_side") or (cutting or {}).get("direction", "right")
        self.tokenizer.enable_truncation(self.max_tokens, direction=side.lower())
        self.tokenizer.no_padding()
        if padding:
            pad = padding["pad_id"]
        elif pad is None:
            tokens = (self.tokenizer.token_to_id(token) for token in ("[PAD]", "<pad>", "<|endoftext|>"))
            pad = next((number for number in tokens if number is not None), 0)
        self.pad, self.pad_type = pad, (padding or {}).get("pad_type_id", 0)
        side = self.tokenizer_config.get("padding_side") or (padding or {}).get("direction", "right")
        self.pad_left = side.lower() == "left"

    def encode(self, texts: list[Text]) -> list[Row]:
        """Token and segment numbers of each text or pair, not padded."""
        return [(encoding.ids, encoding.type_ids) for encoding in self.tokenizer.encode_batch(texts)]

    def is_cut(self, text: Text) -> bool:
        """Whether the text is longer than the model takes."""
        first, second = (text, None) if isinstance(text, str) else text
        return bool(self.tokenizer.encode(first, second).overflowing)

    def padded(self, rows: list[Row]) -> dict[str, numpy.ndarray]:
        """The inputs that a graph may ask for, padded to the longest row."""
        longest = max(len(numbers) for numbers, _ in rows)
        shape = (len(rows), longest)
        inputs = {"input_ids": numpy.full(shape, self.pad, numpy.int64),
                  "attention_mask": numpy.zeros(shape, numpy.int64),
                  "token_type_ids": numpy.full(shape, self.pad_type, numpy.int64),
                  "position_ids": numpy.zeros(shape, numpy.int64)}
        for line, (numbers, types) in enumerate(rows):
            place = slice(longest - len(numbers), None) if self.pad_left else slice(0, len(numbers))
            places = range(len(numbers))
            for name, values in (("input_ids", numbers), ("attention_mask", 1), ("token_type_ids", types),
                                 ("position_ids", places)):
                inputs[name][line, place] = values
        return inputs


class Graph:
    """One graph with one session on one thread."""

    def __init__(self, model: TextModel, graph: Path, provider: str = "CPUExecutionProvider") -> None:
        self.model = model
        self.session = session(graph, provider)
        self.types = {value.name: numpy.int32 if value.type == "tensor(int32)" else numpy.int64
                      for value in self.session.get_inputs()}
        unknown = set(self.types) - {"input_ids", "attention_mask", "token_type_ids", "position_ids"}
        if unknown:
            raise Refused(f"the graph asks for {', '.join(sorted(unknown))}, which no text gives")
        outputs = [value.name for value in self.session.get_outputs()]
        self.output = "logits" if "logits" in outputs else outputs[0]

    def feed(self, rows: list[Row]) -> dict[str, numpy.ndarray]:
        """What the session takes for these rows."""
        inputs = self.model.padded(rows)
        return {name: inputs[name].astype(kind, copy=False) for name, kind in self.types.items()}

    def run(self, feed: dict[str, numpy.ndarray]) -> numpy.ndarray:
        """One line of logits for each row."""
        logits = self.session.run([self.output], feed)[0]
        if logits.ndim != 2 or len(logits) != len(feed["input_ids"]):
            raise Refused(f"the graph answers {list(logits.shape)}, where scores for each text are expected")
        return logits

    def probabilities(self, rows: list[Row], batch: int) -> numpy.ndarray:
        """Softmax of the logits in float64, of batches in the order of the list."""
        logits = numpy.concatenate([self.run(self.feed(rows[start:start + batch]))
                                    for start in range(0, len(rows), batch)])
        if logits.shape[1] != len(self.model.labels):
            raise Refused(f"the graph gives {logits.shape[1]} scores for {len(self.model.labels)} labels")
        weights = numpy.exp(logits.astype(numpy.float64) - logits.max(axis=1, keepdims=True))
        return weights / weights.sum(axis=1, keepdims=True)


def evenly(texts: list[str], most: int) -> list[str]:
    """Every n-th text, so that no more than `most` are left."""
    return texts[::max(1, math.ceil(len(texts) / most))]


def read_columns(path: Path, names: Iterable[str]) -> list[list[str]]:
    """Columns of a CSV file by their names."""
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    if not rows:
        raise Refused(f"{path} has no rows")
    missing = [name for name in names if any(row.get(name) is None for row in rows)]
    if missing:
        columns = ", ".join(map(str, rows[0]))
        raise Refused(f"{path}: not every row has the column {missing[0]}; its columns are {columns}")
    return [[row[name] for row in rows] for name in names]
