"""A scikit-learn text pipeline as a directory that predictd serves: text in, labels and probabilities out.

    python -m tools from-sklearn PIPELINE.joblib TARGET --texts FILE
    python -m tools from-sklearn --vectorizer V.joblib --model M.joblib TARGET

Joblib files run code when they are loaded. Load only files that you wrote yourself; the server never loads any.
What cannot be converted faithfully is refused by name. The rest is compared with the pipeline before it is written, on
texts made of the pipeline's own vocabulary.
"""

import argparse
import json
import warnings
from pathlib import Path

import joblib
import numpy
import sklearn
from skl2onnx import convert_sklearn
from skl2onnx.common.data_types import StringTensorType
from sklearn.exceptions import InconsistentVersionWarning
from sklearn.pipeline import Pipeline, make_pipeline

from . import golden as choices
from .label_graph import name_labels, one_score_a_label
from .manifest import write_manifest
from .new_directory import new_directory
from .refused import Refused
from .sessions import session
from .sklearn_steps import HOW_TO_SAVE, check, plain
from .sklearn_texts import probe_texts
from .texts import read_texts
from .vectorizer_graph import OPSET, converters

# Of a probability. Texts of hundreds of words make large sums, which the graph rounds to 32 bits.
DIFFERENCE = 1e-4
# Two labels whose probabilities differ by no more than rounding may change places.
TIE = 2 * DIFFERENCE
# scikit-learn's own, for several labels.
THRESHOLD = 0.5
GOLDEN_EXAMPLES = 50
# Texts of a run, each with a column for each word of the vocabulary; and how many are also run one by one.
TOGETHER, ALONE = 128, 200


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command line of `from-sklearn`."""
    parser.add_argument("paths", type=Path, nargs="+", metavar="[PIPELINE.joblib] TARGET",
                        help="the fitted pipeline (loading it runs code) and the directory to write")
    parser.add_argument("--vectorizer", type=Path, help="fitted vectorizer, instead of a pipeline (loading runs code)")
    parser.add_argument("--model", type=Path, help="fitted classifier, instead of a pipeline (loading runs code)")
    parser.add_argument("--labels", type=Path, help="JSON list of label names, in the order of the classes")
    parser.add_argument("--texts", type=Path, help="more texts to compare, and those of golden.json: one a line, CSV with a column text, or JSON list")


def multi_label(pipeline: object) -> bool:
    """Whether a text may have several labels."""
    return len(pipeline.predict(["text"]).shape) == 2


def classes_of(pipeline: object, names: list[str] | None) -> list[str]:
    """The labels in the order of the scores."""
    classes = pipeline.classes_
    if isinstance(classes, list):
        other = next((values for values in classes if len(values) != 2), None)
        if other is not None:
            raise Refused(f"an output of {type(classifier_of(pipeline)).__name__} has {len(other)} classes, where yes or no is "
                          "expected; train a pipeline for each output")
        if names is None:
            raise Refused(f"{type(classifier_of(pipeline)).__name__} has no names for its {len(classes)} outputs: give --labels")
    labels = [str(number) for number in range(len(classes))] if isinstance(classes, list) else [str(name) for name in classes]
    if names is None:
        return labels
    if len(names) != len(labels):
        raise Refused(f"there are {len(names)} labels for {len(labels)} classes")
    if names != labels and not multi_label(pipeline):
        raise Refused("the labels differ from the classifier's own classes, which its graph answers; train it with names")
    return names


def classifier_of(pipeline: Pipeline) -> object:
    """The last step."""
    return pipeline.steps[-1][1]


def convert(pipeline: Pipeline) -> bytes:
    """The graph of a plain pipeline. Probabilities come as one tensor, not as a list of maps."""
    classifier = classifier_of(pipeline)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            graph = convert_sklearn(pipeline, initial_types=[("text", StringTensorType([None, 1]))], target_opset=OPSET,
                                    options={id(classifier): {"zipmap": False}}, **converters())
    # skl2onnx raises anything on an estimator that it does not know.
    except Exception as reason:
        first = (str(reason).splitlines() or [""])[0][:300]
        raise Refused(f"skl2onnx cannot convert {type(classifier).__name__} with these settings ({type(reason).__name__}: {first}); "
                      "train it with its defaults and no other classifier inside of it, or use LogisticRegression") from reason
    if multi_label(pipeline):
        one_score_a_label(graph)
    else:
        name_labels(graph, pipeline.classes_)
    return graph.SerializeToString()


def scores_of(pipeline: object, texts: list[str]) -> numpy.ndarray:
    """The pipeline's probability of each label: [n, labels]."""
    given = pipeline.predict_proba(texts)
    return numpy.stack([output[:, 1] for output in given], axis=1) if isinstance(given, list) else numpy.asarray(given)


def compare(pipeline: object, graph: bytes, texts: dict[str, str]) -> tuple[numpy.ndarray, int]:
    """The pipeline's probabilities and the number of ties, once the graph is known to answer the same to these texts."""
    asked = list(texts)
    kinds = list(texts.values())
    runner = session(graph)
    column = numpy.array(asked, dtype=object).reshape(-1, 1)
    expected = scores_of(pipeline, asked)
    several = multi_label(pipeline)
    names = ["probabilities"] if several else ["probabilities", "label"]
    parts = [runner.run(names, {"text": column[start:start + TOGETHER]}) for start in range(0, len(asked), TOGETHER)]
    found, *labels = (numpy.concatenate(part) for part in zip(*parts))
    if found.shape != expected.shape:
        raise Refused(f"the graph answers {found.shape}, the pipeline {expected.shape}")
    ties = 0
    if several:
        predicted = pipeline.predict(asked)
        predicted = predicted.toarray() if hasattr(predicted, "toarray") else predicted
        wrong = (((found > THRESHOLD) != numpy.asarray(predicted, dtype=bool)) & (abs(expected - THRESHOLD) > TIE)).any(axis=1)
    else:
        wrong = pipeline.predict(asked).astype(str) != labels[0].ravel().astype(str)
        ordered = numpy.sort(expected, axis=1)
        tied = wrong & (ordered[:, -1] - ordered[:, -2] < TIE)
        wrong = wrong & ~tied
        ties = int(tied.sum())
    for number in numpy.flatnonzero(wrong)[:1]:
        raise Refused(f"{wrong.sum()} of {len(asked)} texts get another label than from the pipeline, the first for its "
                      f"{kinds[number]}: {asked[number][:80]!r}")
    refuse_difference(expected, found, texts, "")
    places = numpy.linspace(0, len(asked) - 1, min(ALONE, len(asked))).astype(int)
    alone = numpy.concatenate([runner.run(["probabilities"], {"text": column[[place]]})[0] for place in places])
    refuse_difference(expected[places], alone, {asked[place]: kinds[place] for place in places}, " where the text is run alone")
    return expected, ties


def refuse_difference(expected: numpy.ndarray, found: numpy.ndarray, texts: dict[str, str], where: str) -> None:
    """Refuses a probability that rounding does not explain."""
    difference = abs(found - expected).max(axis=1)
    worst = int(numpy.nan_to_num(difference, nan=numpy.inf).argmax())
    if not difference[worst] <= DIFFERENCE:
        text, kind = list(texts.items())[worst]
        raise Refused(f"a probability differs by {difference[worst]:.2g} from the pipeline's{where}, for its {kind}: {text[:80]!r}")


def golden(texts: list[str], scores: numpy.ndarray, labels: list[str], several: bool) -> dict:
    """Clear answers of the pipeline itself, spread over the lengths of the texts."""
    needed = numpy.full(len(labels), THRESHOLD)
    answered = [choices.several(text, line, labels, needed) if several else choices.single(text, line, labels)
                for text, line in zip(texts, scores)]
    kept = choices.spread([example for example in answered if example is not None], GOLDEN_EXAMPLES)
    return {"tolerance": 1e-4, "examples": kept}


def write(given: object, target: Path, texts: list[str] | None, names: list[str] | None) -> str:
    """Converts, compares and writes. Returns what to tell."""
    if target.exists():
        raise Refused(f"{target} is there already: name a directory that is not")
    pipeline = plain(given)
    vectorizers = check(pipeline)
    several = multi_label(pipeline)
    labels = classes_of(pipeline, names)
    graph = convert(pipeline)
    asked = dict.fromkeys(texts or [], "words, as --texts has them")
    asked |= {text: kind for text, kind in probe_texts(vectorizers).items() if text not in asked}
    scores, ties = compare(given, graph, asked)
    files: dict[str, object] = {"labels.json": labels}
    if texts:
        own = list(dict.fromkeys(texts))
        files["golden.json"] = golden(own, scores[:len(own)], labels, several)
    write_files(target, graph, files, "multi_label" if several else "classification")
    return f"{len(asked)} texts answered as by the pipeline, {ties} ties excepted; written: {target}"


def write_files(target: Path, graph: bytes, files: dict[str, object], task: str) -> None:
    """Writes the directory, all of it or nothing."""
    with new_directory(target) as made:
        (made / "model.onnx").write_bytes(graph)
        for name, value in files.items():
            (made / name).write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        write_manifest(made, [f'task = "{task}"'])


def load(path: Path) -> object:
    """The object in the file."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", InconsistentVersionWarning)
            return joblib.load(path)
    except InconsistentVersionWarning as difference:
        raise Refused(f"{path} was written by scikit-learn {difference.original_sklearn_version}, and this is {sklearn.__version__}: "
                      f"train it again with {sklearn.__version__}") from difference
    except OSError as error:
        raise Refused(f"{path} cannot be read: {error.strerror or error}; give the file that joblib.dump wrote") from error
    except (ImportError, AttributeError) as error:
        raise Refused(f"{path} needs Python code that is not here ({error}); a pipeline of scikit-learn's own classes needs none") from error
    # Anything can be raised by what is no pickle.
    except Exception as error:
        raise Refused(f"{path} is no file of joblib or pickle ({type(error).__name__}: {error}); {HOW_TO_SAVE}") from error


def read_labels(path: Path) -> list[str]:
    """The names in a file."""
    try:
        names = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise Refused(f"{path} cannot be read: {error}; a JSON list of label names is expected") from error
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise Refused(f"{path} is no JSON list of label names")
    return names


def run(options: argparse.Namespace) -> None:
    """Loads the author's files, converts, and prints."""
    separate = options.vectorizer is not None and options.model is not None
    if (options.vectorizer is None) != (options.model is None) or len(options.paths) != (1 if separate else 2):
        raise Refused("give PIPELINE.joblib and TARGET, or --vectorizer, --model and TARGET")
    pipeline = make_pipeline(load(options.vectorizer), load(options.model)) if separate else load(options.paths[0])
    names = read_labels(options.labels) if options.labels else None
    texts = read_texts(options.texts) if options.texts else None
    if texts and any(isinstance(text, tuple) for text in texts):
        raise Refused(f"{options.texts} has pairs, and a pipeline takes one text: remove the column text_pair")
    print(write(pipeline, options.paths[-1], texts, names))
