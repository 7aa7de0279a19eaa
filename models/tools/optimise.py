"""Measures the forms of a model and keeps the fastest whose accuracy is within the stated loss.

    python -m tools optimise DIR TARGET --validation FILE.csv --calibration FILE.csv

Forms: as it is, fused operators, static int8, dynamic int8, and half precision with --device cuda. Each is measured:
time, size, accuracy, answers changed, and whether an answer depends on the texts batched with it. TARGET gets the graph
with its tokenizer, configuration, labels, model.toml and new golden.json, and the report, optimisation.json.
"""

import argparse
import json
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy

from . import candidates
from .golden import INT8_TOLERANCE, TOLERANCE, single
from .manifest import settings_of, write_manifest
from .new_directory import new_directory
from .refused import Refused
from .text_model import Graph, Row, TextModel, evenly, read_columns

BATCH = 32
# A score may move by this much beside other texts: rounding, not another answer.
BATCH_DIFFERENCE = 1e-4
# Less than this says nothing about speed.
NOISE = 0.02
TIMED_TEXTS, TIMED_BATCH, ROUNDS = 64, 8, 7
COMPANIONS = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "config.json", "labels.json")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command line of `optimise`."""
    parser.add_argument("source", type=Path, metavar="DIR", help="model directory with a float32 graph")
    parser.add_argument("target", type=Path, metavar="TARGET", help="directory to write; it must not be there")
    parser.add_argument("--validation", type=Path, required=True, help="CSV with the columns text and label")
    parser.add_argument("--calibration", type=Path,
                        help="CSV with a column text, for the ranges of static int8; without it, the validation texts")
    parser.add_argument("--loss", type=float, default=0.005, help="accuracy that may be lost (0.005)")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help="where to measure")
    parser.add_argument("--allow-batch-influence", action="store_true",
                        help="take a form whose answers depend on the texts batched with them")


def timed(graph: Graph, rows: list[Row], batch: int, clock: Callable[[], float]) -> float:
    """Milliseconds for a text. Texts are sorted by length, as the server batches them."""
    ordered = sorted(rows, key=lambda row: len(row[0]))
    feeds = [graph.feed(ordered[start:start + batch]) for start in range(0, len(ordered), batch)]
    started = clock()
    for feed in feeds:
        graph.run(feed)
    return (clock() - started) / len(rows) * 1e3


def measure_speed(graphs: dict[str, Graph], rows: list[Row],
                  clock: Callable[[], float]) -> dict[str, dict[str, float]]:
    """Medians over rounds in which all forms take turns, so that a slow moment of the machine meets all of them."""
    kinds = {"alone": 1, "batched": TIMED_BATCH}
    rounds: dict[str, dict[str, list[float]]] = {name: {kind: [] for kind in kinds} for name in graphs}
    for number in range(ROUNDS + 1):
        for name, graph in graphs.items():
            for kind, batch in kinds.items():
                taken = timed(graph, rows, batch, clock)
                # The first round warms up.
                if number:
                    rounds[name][kind].append(taken)
    speeds = {}
    for name, taken in rounds.items():
        ratios = {kind: statistics.median(mine / base for mine, base in zip(taken[kind], rounds["original"][kind]))
                  for kind in kinds}
        speeds[name] = {"ms_alone": statistics.median(taken["alone"]), "ms_batched": statistics.median(taken["batched"]),
                        "ratio_alone": ratios["alone"], "ratio_batched": ratios["batched"],
                        "ratio": (ratios["alone"] * ratios["batched"]) ** 0.5}
    return speeds


def measure_answers(graph: Graph, rows: list[Row], truth: numpy.ndarray) -> tuple[numpy.ndarray, dict[str, float | int]]:
    """The answers, with accuracy and the influence of other texts in a padded batch."""
    alone, together = graph.probabilities(rows, 1), graph.probabilities(rows, BATCH)
    answers = alone.argmax(axis=1)
    return answers, {
        "accuracy": float((answers == truth).mean()),
        "batch_labels_changed": int((answers != together.argmax(axis=1)).sum()),
        "batch_difference": float(abs(alone - together).max()),
    }


def choose(figures: dict[str, dict], loss: float, allow_batch_influence: bool) -> str:
    """The fastest form that may be taken. The original always may. Each other one is told why it was left."""
    for name, figure in figures.items():
        figure["batch_invariant"] = figure["batch_labels_changed"] == 0 and figure["batch_difference"] <= BATCH_DIFFERENCE
        lost = figures["original"]["accuracy"] - figure["accuracy"]
        if name == "original":
            figure["left"] = None
        elif lost > loss:
            figure["left"] = f"it loses {lost:.4f} of accuracy, more than {loss}"
        elif not figure["batch_invariant"] and not allow_batch_influence:
            figure["left"] = "its answers depend on the texts batched with them"
        else:
            figure["left"] = None
    allowed = [name for name, figure in figures.items() if figure["left"] is None]
    return min(allowed, key=lambda name: figures[name]["ratio"])


def table(figures: dict[str, dict]) -> str:
    """The report for people."""
    lines = [f"{'':<13}{'ms alone':>9}{'ratio':>7}{'ms of 8':>9}{'ratio':>7}{'MB':>8}{'accuracy':>10}{'changed':>9}"
             f"{'batch: labels':>15}{'score':>10}"]
    lines += [f"{name:<13}{f['ms_alone']:>9.2f}{f['ratio_alone']:>7.2f}{f['ms_batched']:>9.2f}{f['ratio_batched']:>7.2f}"
              f"{f['bytes'] / 1e6:>8.1f}{f['accuracy']:>10.2%}{f['answers_changed']:>9}{f['batch_labels_changed']:>15}"
              f"{f['batch_difference']:>10.1e}" for name, f in figures.items()]
    return "\n".join(lines)


def remarks(figures: dict[str, dict], absent: dict[str, str], chosen: str) -> list[str]:
    """What the figures mean, in words."""
    said = [f"{name}: not measured: {reason}" for name, reason in absent.items()]
    for name, figure in figures.items():
        if name == "fused" and figure["ratio"] > 1 - NOISE:
            what = "slower" if figure["ratio"] > 1 + NOISE else "not faster"
            said.append(f"fused: {what} here than the original, {figure['ratio']:.2f} times its time")
        if name == "dynamic int8" and not figure["batch_invariant"]:
            said.append("dynamic int8: not batch-invariant: ranges come from all texts of a run")
        if figure["left"]:
            said.append(f"{name}: not taken: {figure['left']}")
    if not figures[chosen]["batch_invariant"]:
        said.append(f"{chosen}: taken although its answers depend on the texts batched with them")
    return [*said, f"chosen: {chosen}, {figures[chosen]['ratio']:.2f} times the original's time"]


def golden(source: Path, graph: Graph, quantised: bool) -> dict | None:
    """The texts of the old golden.json with the new graph's answers. Close calls are left out: CPUs may differ there."""
    if not (source / "golden.json").is_file():
        return None
    old = json.loads((source / "golden.json").read_text(encoding="utf-8"))
    if any("text_pair" in example for example in old["examples"]):
        raise Refused("golden.json holds pairs of texts; this tool measures single texts only")
    texts = [example["text"] for example in old["examples"]]
    scores = graph.probabilities(graph.model.encode(texts), 1)
    kept = [single(text, line, graph.model.labels) for text, line in zip(texts, scores)]
    tolerance = old.get("tolerance", TOLERANCE)
    return {"tolerance": max(tolerance, INT8_TOLERANCE) if quantised else tolerance,
            "examples": [example for example in kept if example is not None]}


def write(source: Path, made: Path, graph: Graph, path: Path, chosen: str, report: dict) -> None:
    """The directory of the chosen form."""
    shutil.copyfile(path, made / "model.onnx")
    for name in COMPANIONS:
        if (source / name).is_file():
            shutil.copyfile(source / name, made / name)
    examples = golden(source, graph, "int8" in chosen)
    for name, value in (("golden.json", examples), ("optimisation.json", report)):
        if value is not None:
            (made / name).write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    write_manifest(made, settings_of(source / "model.toml"))


def run(options: argparse.Namespace) -> None:
    """Makes, measures, chooses, writes, and prints."""
    model = TextModel(options.source)
    task = model.settings.get("task", "classification")
    if task != "classification" or model.config.get("problem_type") in ("multi_label_classification", "regression"):
        raise Refused("only models that choose one label can be optimised: the validation file names one label a text")
    if (options.source / f"{model.graph.name}.data").exists() or (model.graph.parent / "model.onnx_data").exists():
        raise Refused("the weights lie outside of the graph; export it as one file")
    texts, labels = read_columns(options.validation, ("text", "label"))
    unknown = sorted(set(labels) - set(model.labels))
    if unknown:
        raise Refused(f"{options.validation}: the model has no label {unknown[0]!r}")
    calibration = read_columns(options.calibration, ("text",))[0] if options.calibration else texts
    rows, truth = model.encode(texts), numpy.array([model.labels.index(label) for label in labels])
    provider = candidates.CUDA if options.device == "cuda" else "CPUExecutionProvider"
    # One thread's own time is not disturbed by other programs; a GPU's work is not in it.
    clock = time.perf_counter if options.device == "cuda" else time.process_time

    with new_directory(options.target) as made, tempfile.TemporaryDirectory() as work:
        paths, absent = candidates.make(model, Path(work), calibration, options.device)
        graphs = {name: Graph(model, path, provider) for name, path in paths.items()}
        figures: dict[str, dict] = {}
        answers = {}
        for name, graph in graphs.items():
            answers[name], figures[name] = measure_answers(graph, rows, truth)
            figures[name] |= {"bytes": paths[name].stat().st_size,
                              "answers_changed": int((answers[name] != answers["original"]).sum())}
        timed_rows = model.encode(evenly(texts, TIMED_TEXTS))
        for name, speed in measure_speed(graphs, timed_rows, clock).items():
            figures[name] |= speed
        chosen = choose(figures, options.loss, options.allow_batch_influence)
        said = remarks(figures, absent, chosen)
        if not options.calibration:
            said.insert(0, "static int8: calibrated with validation texts, so its accuracy may look better than it is")
        report = {"chosen": chosen, "loss": options.loss, "device": options.device, "texts": len(texts),
                  "forms": figures, "absent": absent, "remarks": said}
        write(options.source, made, graphs[chosen], paths[chosen], chosen, report)
    print(table(figures), *said, f"written: {options.target}", sep="\n")
