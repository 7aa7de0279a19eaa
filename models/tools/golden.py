"""Writes golden.json: texts with the answers that a model gives now. The server asks them each time it loads the model.

    python -m tools golden DIR --texts FILE [--count 30] [--tolerance 0.001]

The texts are spread over the lengths that the file has, the shortest and the longest among them. Left out are texts whose
answer is a close call, which another CPU may round to the other side, and texts longer than the model takes, of which a
server may be told to answer otherwise. model.toml gets the digests of all files. Models that label tokens are refused.
"""

import argparse
import json
import os
from pathlib import Path

import numpy
import onnx

from .manifest import check_digests, settings_of, write_manifest
from .refused import Refused
from .sessions import session
from .text_model import Graph, TextModel
from .texts import Text, read_texts

COUNT = 30
TOLERANCE = 1e-3
# Rounding of integers may fall to either side on another CPU.
INT8_TOLERANCE = 0.05
# Between the two best labels of one, and between a probability and its threshold.
CLEAR_MARGIN, CLEAR_OF_THRESHOLD = 0.1, 0.05
THRESHOLD = 0.5


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `golden`."""
    parser.add_argument("folder", type=Path, metavar="DIR", help="model directory; its golden.json is replaced")
    parser.add_argument("--texts", type=Path, required=True,
                        help="one a line, a JSON list, or CSV with the column text, and text_pair for pairs")
    parser.add_argument("--count", type=int, default=COUNT, help=f"most examples ({COUNT})")
    parser.add_argument("--tolerance", type=float,
                        help=f"difference of a score that passes ({TOLERANCE}; {INT8_TOLERANCE} for an int8 graph)")


def run(options: argparse.Namespace) -> None:
    """Answers, chooses, and only then writes."""
    if options.count < 1:
        raise Refused("--count must be 1 or more")
    if options.tolerance is not None and not 0 <= options.tolerance <= 1:
        raise Refused("--tolerance must lie between 0 and 1")
    print(write(options.folder, read_texts(options.texts), options.count, options.tolerance))


def write(folder: Path, texts: list[Text], count: int = COUNT, tolerance: float | None = None) -> str:
    """Writes the file and its digest. Returns what to tell."""
    texts = list(dict.fromkeys(texts))
    path = graph_of(folder)
    check_digests(folder, "golden.json")
    answered = answers_of_text_graph(folder, path, texts) if takes_text(path) else answers_of_tokens(folder, texts)
    kept = spread([entry for entry in answered if entry is not None], count)
    if not kept:
        raise Refused(f"none of {len(texts)} texts has a clear answer")
    if tolerance is None:
        tolerance = INT8_TOLERANCE if quantised(path) else TOLERANCE
    # Renamed when complete: nobody reads half of it.
    partial = folder / "golden.json.partial"
    partial.write_text(json.dumps({"tolerance": tolerance, "examples": kept}, indent=2, ensure_ascii=False) + "\n",
                       encoding="utf-8")
    os.replace(partial, folder / "golden.json")
    write_manifest(folder, settings_of(folder / "model.toml"))
    left = sum(entry is None for entry in answered)
    return f"{len(kept)} examples of {len(texts)} texts, {left} of them too close to call or too long; written: {folder / 'golden.json'}"


def graph_of(folder: Path) -> Path:
    """The directory's graph."""
    for path in (folder / "model.onnx", folder / "onnx/model.onnx"):
        if path.is_file():
            return path
    raise Refused(f"{folder} has no model.onnx and no onnx/model.onnx")


def takes_text(path: Path) -> bool:
    """Whether the graph takes the text itself."""
    inputs = onnx.load(path, load_external_data=False).graph.input
    return len(inputs) == 1 and inputs[0].type.tensor_type.elem_type == onnx.TensorProto.STRING


def quantised(path: Path) -> bool:
    """Whether the graph computes with integers."""
    nodes = onnx.load(path, load_external_data=False).graph.node
    return any("QuantizeLinear" in node.op_type or "Integer" in node.op_type for node in nodes)


def answers_of_tokens(folder: Path, texts: list[Text]) -> list[dict | None]:
    """What a transformer answers to each text alone, by its task."""
    model = TextModel(folder)
    graph = Graph(model, model.graph)
    task = model.settings.get("task") or model.config.get("problem_type") or "classification"
    answered: list[dict | None] = []
    for text, row in zip(texts, model.encode(texts)):
        if model.is_cut(text):
            answered.append(None)
            continue
        logits = graph.run(graph.feed([row]))[0].astype(numpy.float64)
        labels = model.labels
        if not numpy.isfinite(logits).all():
            raise Refused("the graph gives a score that is not a finite number")
        # The order in which the server decides.
        if task in ("multi_label", "multi_label_classification"):
            answered.append(several(text, sigmoid(logits), labels, thresholds(model.settings, labels)))
        elif task == "regression" or (len(logits) == 1 and len(labels) < 2):
            score = logits[0] if task == "regression" else sigmoid(logits[0])
            answered.append({**named(text), "score": round(float(score), 6)})
        elif len(logits) == 1 and len(labels) == 2:
            answered.append(single(text, numpy.array([1 - sigmoid(logits[0]), sigmoid(logits[0])]), labels))
        elif len(logits) == len(labels):
            weights = numpy.exp(logits - logits.max())
            answered.append(single(text, weights / weights.sum(), labels))
        else:
            raise Refused(f"the graph gives {len(logits)} scores for {len(labels)} labels")
    return answered


def answers_of_text_graph(folder: Path, path: Path, texts: list[Text]) -> list[dict | None]:
    """What a scikit-learn graph answers."""
    if any(isinstance(text, tuple) for text in texts):
        raise Refused("the model takes one text, and the file has pairs")
    labels = labels_of(folder, path)
    settings = TextModel.read_settings(folder)
    runner = session(path)
    given = {runner.get_inputs()[0].name: numpy.array(texts, dtype=object).reshape(-1, 1)}
    outputs = [value.name for value in runner.get_outputs()]
    if "probabilities" not in outputs:
        raise Refused(f"the graph has no output probabilities, but {', '.join(outputs)}")
    scores = runner.run(["probabilities"], given)[0]
    if scores.shape[1] != len(labels) or not numpy.isfinite(scores).all():
        raise Refused(f"the graph gives {scores.shape[1]} scores for {len(labels)} labels, or no numbers")
    if settings.get("task") == "multi_label":
        return [several(text, line, labels, thresholds(settings, labels)) for text, line in zip(texts, scores)]
    answered = [single(text, line, labels) for text, line in zip(texts, scores)]
    if "label" in outputs:
        # The graph's own choice counts: some classifiers choose by something else than the largest probability.
        chosen = [str(label) for label in runner.run(["label"], given)[0]]
        places = [labels[int(label)] if label.isdigit() and label not in labels else label for label in chosen]
        answered = [entry if entry and entry["label"] == place else None for entry, place in zip(answered, places)]
    return answered


def labels_of(folder: Path, path: Path) -> list[str]:
    """The labels of a graph that takes text: those of labels.json, else the names of its own classes."""
    if (folder / "labels.json").is_file():
        return json.loads((folder / "labels.json").read_text(encoding="utf-8"))
    graph = onnx.load(path, load_external_data=False).graph
    for node in graph.node:
        for item in node.attribute:
            if item.name in ("classlabels_strings", "classlabels_string") and item.strings:
                return [name.decode("utf-8") for name in item.strings]
    # Where no node names them, the label is picked out of a constant.
    picked = {node.input[0] for node in graph.node if node.op_type == "ArrayFeatureExtractor"}
    named = [tensor for tensor in graph.initializer if tensor.name in picked and tensor.data_type == onnx.TensorProto.STRING]
    if len(named) == 1:
        return [str(name) for name in onnx.numpy_helper.to_array(named[0]).ravel().astype(str)]
    raise Refused(f"{folder} has no labels.json, and the graph names no classes: write labels.json, a JSON list in score order")


def sigmoid(logits):
    """The probability of each label for itself."""
    return 1 / (1 + numpy.exp(-logits))


def thresholds(settings: dict, labels: list[str]) -> numpy.ndarray:
    """From which probability on each label is an answer, as model.toml says."""
    given = settings.get("thresholds", THRESHOLD)
    each = given if isinstance(given, dict) else dict.fromkeys(labels, given)
    return numpy.array([each.get(label, THRESHOLD) for label in labels])


def named(text: Text) -> dict:
    """The text, or the two, as golden.json has them."""
    return {"text": text} if isinstance(text, str) else {"text": text[0], "text_pair": text[1]}


def single(text: Text, scores: numpy.ndarray, labels: list[str]) -> dict | None:
    """The answer of one label, if it is clear."""
    ordered, first = numpy.sort(scores), int(scores.argmax())
    if len(labels) > 1 and not ordered[-1] - ordered[-2] > CLEAR_MARGIN:
        return None
    return {**named(text), "label": labels[first], "scores": {labels[first]: round(float(scores[first]), 6)}}


def several(text: Text, scores: numpy.ndarray, labels: list[str], needed: numpy.ndarray) -> dict | None:
    """The answer of any number of labels, if no score is close to its threshold."""
    if not abs(scores - needed).min() > CLEAR_OF_THRESHOLD:
        return None
    first = int(scores.argmax())
    return {**named(text), "label": [label for label, score, least in zip(labels, scores, needed) if score >= least],
            "scores": {labels[first]: round(float(scores[first]), 6)}}


def spread(examples: list[dict], count: int) -> list[dict]:
    """So many of the examples, evenly over their lengths, the shortest and the longest among them."""
    ordered = sorted(examples, key=lambda example: len(example["text"]) + len(example.get("text_pair", "")))
    if len(ordered) <= count:
        return ordered
    places = numpy.linspace(0, len(ordered) - 1, count).round().astype(int) if count > 1 else [0]
    return [ordered[place] for place in places]
