"""What a model must fulfil before it replaces the one in the repository. The first miss ends the run."""

from collections.abc import Sequence
from pathlib import Path

import numpy
import onnx
from sklearn.pipeline import Pipeline as ScikitPipeline

from .bert import BertClassifier
from .data import Banking77
from .golden import FEWEST, TEXTS
from .minilm import encode, pad
from .runtime import Model, Pipeline, Transformer, in_batches, microseconds_alone

BATCH = 32


def require(holds: bool, what: str) -> None:
    """Ends the run with one line that says which figure is not good enough."""
    if not holds:
        raise SystemExit(f"NOT ACCEPTED: {what}")


def minilm(data: Banking77, model: BertClassifier, float_graph: Path, graph: Path) -> dict[str, float]:
    """Figures of the quantised graph beside the float one, on the official test questions."""
    texts = data.test.texts
    floating, quantised = (Transformer(path, data.intents) for path in (float_graph, graph))
    some = texts[:64]
    parity = float(abs(floating.logits(some) - model(**pad(encode(some))).detach().numpy()).max())
    require(parity < 1e-3, f"the exported graph's logits differ from torch's by {parity}")
    operators = {node.op_type for node in onnx.load(str(graph)).graph.node}
    require("DynamicQuantizeLinear" not in operators, "the graph quantises dynamically")

    expected = answers(in_batches(floating, texts, 1))
    figures = {
        "torch_difference": parity,
        "float_accuracy": accuracy(expected, data),
        **common(data, quantised, graph),
        "float_labels_changed": int((expected != answers(in_batches(quantised, texts, 1))).sum()),
    }
    require(figures["accuracy"] >= 0.93, f"test accuracy {figures['accuracy']:.4f} is below 0.93")
    changed = figures["float_labels_changed"]
    require(changed <= 0.03 * len(texts), f"{changed} labels differ from the float model's")
    require(figures["bytes"] <= 25_000_000, f"{figures['bytes']} bytes are more than 25 MB")
    return figures


def tfidf(data: Banking77, pipeline: ScikitPipeline, graph: Path) -> dict[str, float]:
    """Figures of the exported graph beside scikit-learn, on the official test questions and the golden texts."""
    exported = Pipeline(graph, data.intents)
    require(pipeline.classes_.tolist() == data.intents, "the columns are not in the order of labels.json")
    texts = data.test.texts + [text for _, text in TEXTS]
    labels, probabilities = exported.run(texts)
    changed = int((pipeline.predict(texts) != labels).sum())
    require(changed == 0, f"{changed} labels differ from scikit-learn's")
    difference = float(abs(pipeline.predict_proba(texts) - probabilities).max())
    require(difference < 1e-5, f"a probability differs from scikit-learn's by {difference}")
    figures = {"scikit_labels_changed": changed, "scikit_difference": difference,
               **common(data, exported, graph)}
    require(figures["accuracy"] >= 0.89, f"test accuracy {figures['accuracy']:.4f} is below 0.89")
    require(figures["bytes"] <= 2_000_000, f"{figures['bytes']} bytes are more than 2 MB")
    return figures


def common(data: Banking77, model: Model, graph: Path) -> dict[str, float]:
    """Accuracy, size and time, and the promise that an answer does not depend on the texts batched with it."""
    texts = data.test.texts
    alone, batched = (in_batches(model, texts, size) for size in (1, BATCH))
    changed = int((answers(alone) != answers(batched)).sum())
    require(changed == 0, f"{changed} answers change in batches of {BATCH}")
    difference = float(abs(alone - batched).max())
    require(difference < 1e-5, f"a probability changes by {difference} in batches of {BATCH}")
    return {
        "accuracy": accuracy(answers(alone), data),
        "batch_labels_changed": changed,
        "batch_difference": difference,
        "microseconds": microseconds_alone(model, texts[::10]),
        "bytes": graph.stat().st_size,
    }


def golden(examples: Sequence[dict]) -> None:
    """Enough texts, and the one that the documentation shows."""
    require(len(examples) >= FEWEST, f"only {len(examples)} golden texts are answered clearly")
    require(examples[0]["text"] == TEXTS[0][1], f"not answered as documented: {TEXTS[0][1]}")


def answers(probabilities: numpy.ndarray) -> numpy.ndarray:
    """The number of the best intent of each text."""
    return probabilities.argmax(axis=1)


def accuracy(numbers: numpy.ndarray, data: Banking77) -> float:
    """Share of the test questions that are answered as the data set does."""
    return float(numpy.mean([data.intents[number] == label for number, label in zip(numbers, data.test.labels)]))
