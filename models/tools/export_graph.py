"""The ONNX graph of a PyTorch model, and whether it answers as the model does."""

import contextlib
import copy
import os
import random
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy
import onnx
import onnxruntime
import torch

from .checkpoint_tokenizer import first_line
from .refused import Refused

OPSET = 17
# Largest difference of a logit, for each unit of its size.
TOLERANCE = 1e-4
# A larger difference is rounding, too, where 32 bits differ from 64 in PyTorch itself by this share of it, on some texts.
ROUNDING, ROUNDED_TEXTS = 1 / 16, 8
BATCH = 8
# Protocol buffers end at 2 GiB.
MOST_BYTES_IN_GRAPH = 1_900_000_000
# Architectures whose export is tested, for whoever needs another one.
ADVICE = "use a checkpoint of another architecture, such as BERT, RoBERTa, DeBERTa or ModernBERT"


class Logits(torch.nn.Module):
    """A model that takes its tensors by position and gives its logits alone."""

    def __init__(self, model: torch.nn.Module, names: list[str]) -> None:
        super().__init__()
        self.model, self.names = model, names

    def forward(self, *tensors: torch.Tensor) -> torch.Tensor:
        """Logits of each text, or of each token."""
        return self.model(**dict(zip(self.names, tensors)), return_dict=True).logits


class Compared(NamedTuple):
    """What a comparison found: the largest difference, and why texts have to run alone, if they have."""

    difference: float
    alone: str | None


def batch_of(tokenizer, rows: list, names: list[str]) -> dict[str, torch.Tensor]:
    """One padded batch."""
    padded = tokenizer.pad([{name: row[name] for name in names if name in row} for row in rows], return_tensors="pt")
    if "position_ids" in names:
        padded["position_ids"] = (padded["attention_mask"].cumsum(1) - 1).clamp(min=0)
    return {name: padded[name] for name in names}


@contextlib.contextmanager
def silence() -> Iterator[None]:
    """Without what PyTorch's C++ code prints at length before it raises an error."""
    sys.stdout.flush()
    kept = os.dup(1)
    with open(os.devnull, "w", encoding="utf-8") as nothing:
        os.dup2(nothing.fileno(), 1)
        try:
            yield
        finally:
            os.dup2(kept, 1)
            os.close(kept)


def write_graph(model: torch.nn.Module, names: list[str], sample: dict[str, torch.Tensor], path: Path) -> None:
    """The graph, with its weights in a file beside it where it is too large for one."""
    axes = {name: {0: "batch_size", 1: "sequence_length"} for name in names}
    with torch.no_grad(), silence():
        try:
            logits = model(**sample, return_dict=True).logits
            of_tokens = {1: "sequence_length"} if logits.dim() == 3 else {}
            torch.onnx.export(
                Logits(model, names).eval(), tuple(sample[name] for name in names), str(path), dynamo=False, opset_version=OPSET,
                input_names=names, output_names=["logits"], dynamic_axes={**axes, "logits": {0: "batch_size", **of_tokens}})
        # PyTorch raises anything on code that it cannot trace.
        except Exception as error:
            raise Refused(f"PyTorch cannot export {type(model).__name__} with its settings to ONNX ({type(error).__name__}: "
                          f"{first_line(error)}); {ADVICE}") from error
    if sum(weight.numel() * weight.element_size() for weight in model.parameters()) > MOST_BYTES_IN_GRAPH:
        graph = onnx.load(path)
        for part in path.parent.iterdir():
            part.unlink()
        onnx.save_model(graph, path, save_as_external_data=True, location="model.onnx.data")


class Comparison:
    """Runs a graph and PyTorch on the same texts."""

    def __init__(self, model: torch.nn.Module, tokenizer, names: list[str], path: Path) -> None:
        self.model, self.tokenizer = model, tokenizer
        options = onnxruntime.SessionOptions()
        # Its errors are told below.
        options.log_severity_level = 4
        self.graph = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        given = {entry.name for entry in self.graph.get_inputs()}
        # A model without types of tokens has no use for theirs.
        unused = set(names) - given - {"token_type_ids"}
        if unused:
            raise Refused(f"the graph does not take {sorted(unused)}: the exporter found no use for it; {ADVICE}")
        self.names = [name for name in names if name in given]
        self.rounded: float | None = None
        self.doubled: torch.nn.Module | None = None

    def run(self, rows: list) -> numpy.ndarray:
        """The graph's logits of a batch."""
        tensors = {name: tensor.numpy() for name, tensor in batch_of(self.tokenizer, rows, self.names).items()}
        try:
            return self.graph.run(["logits"], tensors)[0]
        # The runtime's errors derive from nothing else.
        except Exception as error:
            longest = max(len(row["input_ids"]) for row in rows)
            raise Refused(f"the graph of {type(self.model).__name__} fails on {len(rows)} texts of up to {longest} tokens, so its shapes are "
                          f"those of the texts it was traced with ({first_line(error)}); {ADVICE}") from error

    def expected(self, row: dict, model: torch.nn.Module | None = None) -> numpy.ndarray:
        """PyTorch's logits of a text alone."""
        with torch.no_grad():
            return (model or self.model)(**batch_of(self.tokenizer, [row], self.names), return_dict=True).logits[0].numpy()

    def rounding_of(self, row: dict) -> float:
        """How far PyTorch's own logits of a text are from those in 64 bits, as `difference` measures it."""
        if self.doubled is None:
            self.doubled = copy.deepcopy(self.model).double()
        return difference(self.expected(row, self.doubled), self.expected(row))

    def rounding(self, rows: list, place: int) -> float:
        """The same of the text in question, and of some others."""
        if self.rounded is None:
            self.rounded = max(self.rounding_of(row) for row in rows[:ROUNDED_TEXTS])
        return max(self.rounded, self.rounding_of(rows[place]))

    def judge(self, rows: list, place: int, expected: numpy.ndarray, logits: numpy.ndarray) -> tuple[float, str | None]:
        """The difference of a text's logits, and what is wrong if rounding does not explain it."""
        if expected.ndim == 2:
            side = slice(len(logits) - len(expected), None) if self.tokenizer.padding_side == "left" else slice(len(expected))
            logits = logits[side]
        if expected.shape != logits.shape or not numpy.isfinite(logits).all():
            raise Refused(f"the graph gives {logits.shape} scores where PyTorch gives {expected.shape}, or no numbers; {ADVICE}")
        found = difference(expected, logits)
        if found <= TOLERANCE and same_labels(expected, logits, TOLERANCE):
            return found, None
        allowed = max(TOLERANCE, self.rounding(rows, place) / ROUNDING)
        if found <= allowed and same_labels(expected, logits, allowed):
            return found, None
        return found, f"by {found:.2e} on a text of {len(rows[place]['input_ids'])} tokens, where {allowed:.0e} is rounding"

    def compare(self, rows: list) -> Compared:
        """The graph must answer each text alone as PyTorch does. Beside others, it may answer otherwise: that is told."""
        expected = [self.expected(row) for row in rows]
        worst = 0.0
        for place, row in enumerate(rows):
            found, wrong = self.judge(rows, place, expected[place], self.run([row])[0])
            worst = max(worst, found)
            if wrong:
                raise Refused(f"the graph differs from PyTorch {wrong}, alone in its run; {ADVICE}")
        for places in batches([len(row["input_ids"]) for row in rows]):
            for place, logits in zip(places, self.run([rows[place] for place in places])):
                found, wrong = self.judge(rows, place, expected[place], logits)
                if wrong:
                    return Compared(worst, f"{wrong}, beside {len(places) - 1} others")
                worst = max(worst, found)
        return Compared(worst, None)


def difference(expected: numpy.ndarray, found: numpy.ndarray) -> float:
    """The largest difference of a logit, for each unit of its size."""
    return float((numpy.abs(expected - found) / numpy.maximum(1, numpy.abs(expected))).max())


def same_labels(expected: numpy.ndarray, found: numpy.ndarray, allowed: float) -> bool:
    """Whether the largest logits are the same, or as close to each other as rounding moves them."""
    best, chosen = expected.argmax(-1)[..., None], found.argmax(-1)[..., None]
    gap = numpy.take_along_axis(expected, best, -1) - numpy.take_along_axis(expected, chosen, -1)
    return bool((gap <= 2 * allowed * numpy.maximum(1, numpy.abs(expected).max())).all())


def batches(lengths: list[int]) -> Iterator[list[int]]:
    """Places of texts that are run together: in order, beside others by chance, the shortest beside the longest, all."""
    places = list(range(len(lengths)))
    chance = random.Random(5)
    for order in (places, chance.sample(places, len(places)), chance.sample(places, len(places))):
        yield from (order[start:start + BATCH] for start in range(0, len(order), BATCH))
    ordered = sorted(places, key=lengths.__getitem__)
    for short, long in zip(ordered[:BATCH], reversed(ordered)):
        if short != long:
            yield [short, long]
    yield ordered[:64]
