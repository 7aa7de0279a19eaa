"""Logs a model directory to MLflow: one run, and one ONNX-flavor model that holds all that is needed to serve it.

    python -m tools log-mlflow DIR --experiment NAME [--register NAME [--alias ALIAS]] [--metric k=v ...]

The graph and its external data arrive byte for byte, and every other file of the directory lies in `extra_files/`, so
that digests and golden answers hold. The signature is what the graph takes and gives, the input example a few short
texts, which the graph has answered before anything is logged. MLflow is where --tracking-uri or MLFLOW_TRACKING_URI
says; who asks, say MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_TOKEN.
"""

import argparse
import json
import math
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy
import onnx
import requests

# Read when MLflow is loaded. Its own patience with a server that is not there is four minutes.
for name, value in {"MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
                    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false", "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "3"}.items():
    os.environ.setdefault(name, value)

import mlflow.onnx  # noqa: E402
from mlflow.exceptions import MlflowException  # noqa: E402
from mlflow.models import Model, ModelSignature  # noqa: E402
from mlflow.types import Schema, TensorSpec  # noqa: E402

from .golden import labels_of, takes_text  # noqa: E402
from .manifest import check_digests  # noqa: E402
from .refused import Refused  # noqa: E402
from .sessions import session  # noqa: E402
from .text_model import Graph, TextModel  # noqa: E402
from .texts import Text, read_texts  # noqa: E402

# The model's name beneath its run, as in runs:/RUN/model.
NAME = "model"
EXAMPLES = 3
TEXTS: list[Text] = ["Where is my new card?", "Thank you, all is well now."]
# MLflow cuts names there, or its server refuses them.
CUT_AT = "#?%"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `log-mlflow`."""
    parser.add_argument("folder", type=Path, metavar="DIR", help="model directory, as export and from-sklearn write it")
    parser.add_argument("--experiment", required=True, metavar="NAME", help="made if there is none of that name")
    parser.add_argument("--tracking-uri", metavar="URL", help="where MLflow is (default: MLFLOW_TRACKING_URI)")
    parser.add_argument("--run-name", metavar="NAME", help="default: MLflow makes one up")
    parser.add_argument("--register", metavar="NAME", help="also a new version of this registered model")
    parser.add_argument("--alias", help="alias of the registered model that shall name the new version")
    for option, what in (("--param", "parameter"), ("--metric", "metric: a number")):
        parser.add_argument(option, nargs="+", action="extend", default=[], metavar="k=v", help=f"a {what}")
    parser.add_argument("--texts", type=Path, metavar="FILE", help=f"its {EXAMPLES} shortest texts are the input "
                        "example (default: those of golden.json, else two of the tool's own)")
    parser.add_argument("--quiet", action="store_true", help="print nothing but the run's id")


def run(options: argparse.Namespace) -> None:
    """Looks at everything, and only then logs."""
    uri = options.tracking_uri or os.environ.get("MLFLOW_TRACKING_URI")
    if not uri:
        raise Refused("nobody says where MLflow is: give --tracking-uri, or set MLFLOW_TRACKING_URI")
    if options.alias and not options.register:
        raise Refused("--alias names a version of a registered model: give --register too")
    directory = Directory(options.folder, read_texts(options.texts) if options.texts else None)
    parameters = {**directory.facts, **pairs("--param", options.param)}
    metrics = {name: number(name, value) for name, value in pairs("--metric", options.metric).items()}
    report = log(directory, uri, options.experiment, parameters, metrics, options.run_name, options.register,
                 options.alias)
    print(report["run"] if options.quiet else "\n".join(f"{name:18} {value}" for name, value in report.items()))


def pairs(option: str, given: list[str]) -> dict[str, str]:
    """Names and values."""
    found = {}
    for entry in given:
        name, sign, value = entry.partition("=")
        if not (name and sign):
            raise Refused(f"{option} {entry}: name=value is expected")
        found[name] = value
    return found


def number(name: str, value: str) -> float:
    """A metric's value."""
    try:
        found = float(value)
    except ValueError:
        found = math.nan
    if not math.isfinite(found):
        raise Refused(f"--metric {name}={value}: a metric is a finite number")
    return found


class Directory:
    """A model directory whose graph has answered."""

    def __init__(self, folder: Path, texts: list[Text] | None = None) -> None:
        self.folder, self.graph = folder, folder / "model.onnx"
        if not self.graph.is_file():
            nested = "; move what is in onnx/ up beside the tokenizer" if (folder / "onnx/model.onnx").is_file() else ""
            raise Refused(f"{folder} has no model.onnx{nested}")
        self.facts: dict[str, object] = {}
        try:
            self.data = self.external_data()
            check_digests(folder, "")
            texts = shortest(texts or self.golden_texts() or TEXTS)
            self.signature, self.example = self.text_graph(texts) if takes_text(self.graph) else self.tokens(texts)
        except Refused:
            raise
        # Each library has errors of its own, and some derive from nothing else.
        except Exception as error:
            raise Refused(f"{folder} does not work as a model: {error}") from error
        self.facts["graph_bytes"] = sum(path.stat().st_size for path in [self.graph, *self.data])
        others = [path for path in folder.iterdir() if path.is_file() and not path.name.startswith(".")]
        self.extra = sorted(path for path in others if path not in [self.graph, *self.data])
        for path in [*self.data, *self.extra]:
            if any(sign in path.name for sign in CUT_AT):
                raise Refused(f"{path}: MLflow keeps no file with one of {CUT_AT} in its name; rename it")

    def external_data(self) -> list[Path]:
        """Files that hold weights of the graph."""
        names = {entry.value for tensor in tensors(onnx.load(self.graph, load_external_data=False).graph)
                 for entry in tensor.external_data if entry.key == "location"}
        for name in names:
            if Path(name).name != name or not (self.folder / name).is_file():
                raise Refused(f"the graph's weights are in {name}, which is no file beside {self.graph}")
        return [self.folder / name for name in sorted(names)]

    def golden_texts(self) -> list[Text]:
        """The texts of golden.json."""
        path = self.folder / "golden.json"
        examples = json.loads(path.read_text(encoding="utf-8"))["examples"] if path.is_file() else []
        return [(entry["text"], entry["text_pair"]) if "text_pair" in entry else entry["text"] for entry in examples]

    def tokens(self, texts: list[Text]) -> tuple[ModelSignature, dict[str, numpy.ndarray]]:
        """A transformer: its tensors are those of the tokenizer."""
        model = TextModel(self.folder)
        graph = Graph(model, self.graph)
        self.facts |= {"labels": len(model.labels), "longest_text": model.max_tokens}
        return signed(graph.session, graph.feed(model.encode(texts)))

    def text_graph(self, texts: list[Text]) -> tuple[ModelSignature, dict[str, numpy.ndarray]]:
        """A scikit-learn graph takes the texts."""
        if any(isinstance(text, tuple) for text in texts):
            raise Refused("the model takes one text, and the file has pairs")
        self.facts["labels"] = len(labels_of(self.folder, self.graph))
        runner = session(self.graph)
        taken = runner.get_inputs()[0]
        return signed(runner, {taken.name: numpy.array(texts).reshape([-1] + [1] * (len(taken.shape) - 1))})


def tensors(graph: onnx.GraphProto) -> Iterator[onnx.TensorProto]:
    """Everything that may hold weights, those of inner graphs too."""
    yield from graph.initializer
    for item in (item for node in graph.node for item in node.attribute):
        yield from [item.t, *item.tensors]
        for inner in [item.g, *item.graphs]:
            yield from tensors(inner)


def shortest(texts: list[Text]) -> list[Text]:
    """A few texts for the example."""
    def length(text: Text) -> int:
        return len(text) if isinstance(text, str) else sum(map(len, text))
    return sorted(dict.fromkeys(texts), key=length)[:EXAMPLES]


def signed(runner, feed: dict[str, numpy.ndarray]) -> tuple[ModelSignature, dict[str, numpy.ndarray]]:
    """The signature of a graph that answers these tensors, and the tensors."""
    given, names = [feed[taken.name] for taken in runner.get_inputs()], [value.name for value in runner.get_outputs()]
    answers = runner.run(names, feed)
    for answer in answers:
        if isinstance(answer, numpy.ndarray) and answer.dtype.kind == "f" and not numpy.isfinite(answer).all():
            raise Refused("the graph gives a score that is not a finite number")
    return ModelSignature(schema(runner.get_inputs(), given), schema(runner.get_outputs(), answers)), feed


def schema(named: list, values: list) -> Schema | None:
    """Names, types and shapes of tensors. A sequence of maps (ZipMap) is none, and MLflow has no word for it."""
    specs = []
    for entry, value in zip(named, values):
        if isinstance(value, numpy.ndarray):
            known = entry.shape if len(entry.shape) == value.ndim else [None] * value.ndim
            shape = [size if isinstance(size, int) and size > 0 else -1 for size in known]
            specs.append(TensorSpec(numpy.dtype(str) if value.dtype.kind in "OU" else value.dtype, shape, entry.name))
    return Schema(specs) if specs else None


class Flavor:
    """MLflow's ONNX flavor, but for the graph, which it would write anew with its weights in another file."""

    @staticmethod
    def save_model(path: str, mlflow_model: Model, directory: Directory) -> None:
        """Writes the MLflow model. Called by `Model.log`."""
        place = Path(path)
        # Copied first: MLflow takes no symbolic links, such as the hub's cache has.
        with tempfile.TemporaryDirectory() as copies:
            extra = [str(shutil.copyfile(file, Path(copies, file.name))) for file in directory.extra]
            mlflow.onnx.save_model(
                onnx.ModelProto(), path, mlflow_model=mlflow_model, signature=directory.signature,
                input_example=directory.example, pip_requirements=mlflow.onnx.get_default_pip_requirements(),
                extra_files=extra, save_as_external_data=False)
        for file in [directory.graph, *directory.data]:
            shutil.copyfile(file, place / file.name)
        mlflow_model.model_size_bytes = sum(file.stat().st_size for file in place.rglob("*") if file.is_file())
        mlflow_model.save(place / "MLmodel")


def log(directory: Directory, uri: str, experiment: str, parameters: dict, metrics: dict[str, float],
        run_name: str | None = None, register: str | None = None, alias: str | None = None) -> dict[str, str]:
    """One run with its model. Returns what to tell, the run last."""
    begun = None
    try:
        mlflow.set_tracking_uri(uri)
        place = mlflow.set_experiment(experiment)
        with mlflow.start_run(experiment_id=place.experiment_id, run_name=run_name) as begun:
            mlflow.log_params(parameters)
            mlflow.log_metrics(metrics)
            made = Model.log(None, Flavor, name=NAME, registered_model_name=register, directory=directory)
            if alias:
                mlflow.MlflowClient().set_registered_model_alias(register, alias, str(made.registered_model_version))
    except (MlflowException, requests.RequestException) as error:
        left = f" (run {begun.info.run_id} is there, as failed)" if begun else ""
        raise Refused(f"MLflow at {uri}: {error}{left}") from error
    sizes = [path.stat().st_size for path in [directory.graph, *directory.data, *directory.extra]]
    report = {"model": made.model_uri, "files": f"{len(sizes)}, {sum(sizes) / 1e6:.1f} MB"}
    if register:
        named = f", alias {alias}" if alias else ""
        report["registered"] = f"{register} version {made.registered_model_version}{named}"
    return {**report, "experiment": f"{experiment} ({place.experiment_id})", "run": begun.info.run_id}
