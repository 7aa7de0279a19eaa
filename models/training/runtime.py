"""Runs the exported graphs as a server does: ONNX Runtime, one thread, text in, probabilities out."""

import time
from pathlib import Path

import numpy
from tools.sessions import session

from .minilm import encode, pad
from .tfidf import column


class Transformer:
    """A graph that takes tokens and gives logits."""

    def __init__(self, graph: Path, intents: list[str]) -> None:
        self.session = session(graph)
        self.intents = intents

    def logits(self, texts: list[str]) -> numpy.ndarray:
        """One run over all texts, padded to the longest."""
        inputs = {name: tensor.numpy() for name, tensor in pad(encode(texts)).items()}
        return self.session.run(["logits"], inputs)[0]

    def probabilities(self, texts: list[str]) -> numpy.ndarray:
        """Softmax of the logits, in float64 so that rounding adds nothing to comparisons."""
        logits = self.logits(texts).astype(numpy.float64)
        weights = numpy.exp(logits - logits.max(axis=1, keepdims=True))
        return weights / weights.sum(axis=1, keepdims=True)


class Pipeline:
    """A graph that takes the text itself and gives the label and the probabilities."""

    def __init__(self, graph: Path, intents: list[str]) -> None:
        self.session = session(graph)
        self.intents = intents

    def run(self, texts: list[str]) -> tuple[list[str], numpy.ndarray]:
        """Labels and probabilities as the graph gives them."""
        labels, probabilities = self.session.run(["label", "probabilities"], {"text": column(texts)})
        return labels.tolist(), probabilities

    def probabilities(self, texts: list[str]) -> numpy.ndarray:
        """One row for each text."""
        return self.run(texts)[1]


Model = Transformer | Pipeline


def in_batches(model: Model, texts: list[str], size: int) -> numpy.ndarray:
    """Probabilities of all texts, run in the order of the list in batches of `size`."""
    return numpy.concatenate([model.probabilities(texts[start:start + size])
                              for start in range(0, len(texts), size)])


def microseconds_alone(model: Model, texts: list[str]) -> float:
    """CPU time of a text that is run alone, tokenising included; the best of three rounds."""
    rounds = []
    for _ in range(3):
        started = time.process_time()
        in_batches(model, texts, 1)
        rounds.append(time.process_time() - started)
    return min(rounds) / len(texts) * 1e6
