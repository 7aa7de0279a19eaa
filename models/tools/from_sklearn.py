"""A scikit-learn text pipeline as a directory that predictd serves: text in, labels and probabilities out.

    python -m tools from-sklearn PIPELINE.joblib TARGET --texts FILE
    python -m tools from-sklearn --vectorizer V.joblib --model M.joblib TARGET

Joblib files run code when they are loaded. Load only files that you wrote yourself; the server never loads any.
What cannot be converted faithfully is refused by name. The rest is compared with the pipeline before it is written.
"""

import argparse
import json
import tempfile
from pathlib import Path

import joblib
import numpy
from skl2onnx import to_onnx
from skl2onnx.common.data_types import StringTensorType
from sklearn.feature_extraction.text import CountVectorizer, TfidfTransformer, TfidfVectorizer
from sklearn.pipeline import FeatureUnion, Pipeline, make_pipeline

from . import golden as choices
from .manifest import write_manifest
from .odd_texts import ODD_TEXTS
from .refused import Refused
from .sessions import session
from .texts import read_texts

OPSET = 17
# skl2onnx would ask for en_US.UTF-8, which slim images lack; C.UTF-8 is part of the C library.
LOCALE = "C.UTF-8"
DIFFERENCE = 1e-5
# Two classes of a forest with the same number of votes: either may be first.
TIE = 1e-6
# scikit-learn's own, for several labels.
THRESHOLD = 0.5
GOLDEN_EXAMPLES = 50
# ONNX Runtime matches with RE2, whose `\w` knows ASCII only: the same words, spelled so that RE2 agrees.
WORD = r"[\p{L}\p{N}_]"
TOKEN_PATTERNS = {r"\b\w\w+\b": WORD + WORD + "+", r"\b\w+\b": WORD + "+", r"\w+": WORD + "+",
                  r"\w\w+": WORD + WORD + "+", r"\w{2,}": WORD + WORD + "+", r"\b\w{2,}\b": WORD + WORD + "+"}
CLASSIFIERS = {"LogisticRegression", "MultinomialNB", "ComplementNB", "BernoulliNB", "RandomForestClassifier",
               "CalibratedClassifierCV", "OneVsRestClassifier", "SGDClassifier"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command line of `from-sklearn`."""
    parser.add_argument("paths", type=Path, nargs="+", metavar="[PIPELINE.joblib] TARGET",
                        help="the fitted pipeline (loading it runs code) and the directory to write")
    parser.add_argument("--vectorizer", type=Path, help="fitted vectorizer, instead of a pipeline (loading runs code)")
    parser.add_argument("--model", type=Path, help="fitted classifier, instead of a pipeline (loading runs code)")
    parser.add_argument("--labels", type=Path, help="JSON list of label names, in the order of the classes")
    parser.add_argument("--texts", type=Path, help="texts to compare: one a line, CSV with a column text, or JSON list")


def check_vectorizer(vectorizer: CountVectorizer) -> None:
    """Refuses what the exported graph would compute otherwise."""
    name = type(vectorizer).__name__
    if type(vectorizer) not in (CountVectorizer, TfidfVectorizer):
        raise Refused(f"{name} cannot be converted; CountVectorizer and TfidfVectorizer can")
    if getattr(vectorizer, "vocabulary_", None) is None:
        raise Refused(f"{name} is not fitted: it has no vocabulary_")
    for setting in ("tokenizer", "preprocessor"):
        if getattr(vectorizer, setting) is not None:
            raise Refused(f"{name}: {setting} is a Python function, which a graph cannot run")
    if vectorizer.analyzer == "char_wb":
        raise Refused(f"{name}: analyzer='char_wb' cannot be converted; analyzer='char' can")
    if vectorizer.analyzer not in ("word", "char"):
        raise Refused(f"{name}: analyzer is a Python function, which a graph cannot run")
    if vectorizer.strip_accents is not None:
        raise Refused(f"{name}: strip_accents={vectorizer.strip_accents!r} cannot be converted; strip before training")
    if vectorizer.analyzer == "word" and plain_pattern(vectorizer) not in TOKEN_PATTERNS:
        raise Refused(f"{name}: token_pattern={vectorizer.token_pattern!r} has no known spelling that means the same")
    if getattr(vectorizer, "sublinear_tf", False):
        raise Refused(f"{name}: sublinear_tf=True is exported with another formula; train with sublinear_tf=False")


def plain_pattern(vectorizer: CountVectorizer) -> str:
    """The token pattern without the flag that Python no longer needs."""
    return (vectorizer.token_pattern or "").removeprefix("(?u)")


def steps_of(estimator: object) -> list[object]:
    """Every step before the classifier, those inside of unions too."""
    if isinstance(estimator, Pipeline):
        return [inner for _, step in estimator.steps for inner in steps_of(step)]
    if isinstance(estimator, FeatureUnion):
        return [inner for _, step in estimator.transformer_list for inner in steps_of(step)]
    return [estimator]


def check(pipeline: Pipeline) -> list[CountVectorizer]:
    """The vectorizers, once every step is known to be convertible."""
    if not isinstance(pipeline, Pipeline):
        raise Refused(f"{type(pipeline).__name__} is no Pipeline; give --vectorizer and --model for separate files")
    *steps, classifier = steps_of(pipeline)
    vectorizers = []
    for step in steps:
        if isinstance(step, TfidfTransformer) and not isinstance(step, CountVectorizer):
            if step.sublinear_tf:
                raise Refused("TfidfTransformer: sublinear_tf=True is exported with another formula; train without it")
        elif hasattr(step, "build_analyzer"):
            check_vectorizer(step)
            vectorizers.append(step)
        else:
            raise Refused(f"{type(step).__name__} is not among the steps that are known to convert faithfully")
    name = type(classifier).__name__
    if not hasattr(classifier, "predict_proba"):
        raise Refused(f"{name} gives no probabilities; wrap it in CalibratedClassifierCV and train again")
    if name not in CLASSIFIERS:
        known = ", ".join(sorted(CLASSIFIERS))
        raise Refused(f"{name} is not among the classifiers that are known to convert: {known}")
    if not vectorizers:
        raise Refused("the pipeline has no vectorizer, so it does not take text")
    return vectorizers


def multi_label(pipeline: Pipeline) -> bool:
    """Whether a text may have several labels."""
    return bool(getattr(pipeline.steps[-1][1], "multilabel_", False))


def convert(pipeline: Pipeline, vectorizers: list[CountVectorizer]) -> bytes:
    """The graph. Probabilities come as one tensor, not as a list of maps."""
    options: dict[int, dict] = {id(pipeline.steps[-1][1]): {"zipmap": False}}
    for vectorizer in vectorizers:
        options[id(vectorizer)] = {"locale": LOCALE}
        if vectorizer.analyzer == "word":
            options[id(vectorizer)]["tokenexp"] = TOKEN_PATTERNS[plain_pattern(vectorizer)]
    try:
        graph = to_onnx(pipeline, initial_types=[("text", StringTensorType([None, 1]))], target_opset=OPSET,
                        options=options)
    except (RuntimeError, NotImplementedError, NameError, ValueError) as reason:
        raise Refused(f"skl2onnx cannot convert the pipeline: {reason}") from reason
    if multi_label(pipeline):
        # The thresholds are the server's.
        kept = [output for output in graph.graph.output if output.name == "probabilities"]
        del graph.graph.output[:]
        graph.graph.output.extend(kept)
    return graph.SerializeToString()


def compare(pipeline: Pipeline, graph: bytes, texts: list[str]) -> tuple[numpy.ndarray, int]:
    """The pipeline's probabilities and the number of ties, once the graph is known to answer the same."""
    runner = session(graph)
    column = numpy.array(texts, dtype=object).reshape(-1, 1)
    expected = numpy.asarray(pipeline.predict_proba(texts))
    found = runner.run(["probabilities"], {"text": column})[0]
    if found.shape != expected.shape:
        raise Refused(f"the graph answers {found.shape}, the pipeline {expected.shape}")
    difference = abs(found - expected).max(axis=1)
    if multi_label(pipeline):
        wrong, ties = ((found > 0.5) != numpy.asarray(pipeline.predict(texts), dtype=bool)).any(axis=1), 0
    else:
        labels = runner.run(["label"], {"text": column})[0]
        wrong = numpy.asarray(pipeline.predict(texts)).astype(str) != numpy.asarray(labels).astype(str)
        forest = type(pipeline.steps[-1][1]).__name__ == "RandomForestClassifier"
        ordered = numpy.sort(expected, axis=1)
        tied = wrong & forest & (ordered[:, -1] - ordered[:, -2] < TIE)
        wrong, ties = wrong & ~tied, int(tied.sum())
    for number in numpy.flatnonzero(wrong)[:1]:
        raise Refused(f"{wrong.sum()} of {len(texts)} texts get another label than from the pipeline: {texts[number]!r}")
    worst = int(difference.argmax())
    if not difference[worst] <= DIFFERENCE:
        raise Refused(f"a probability differs by {difference[worst]:.2g} from the pipeline's: {texts[worst]!r}")
    return expected, ties


def golden(texts: list[str], scores: numpy.ndarray, labels: list[str], several: bool) -> dict:
    """Clear answers of the pipeline itself, spread over the lengths of the texts."""
    needed = numpy.full(len(labels), THRESHOLD)
    answered = [choices.several(text, line, labels, needed) if several else choices.single(text, line, labels)
                for text, line in zip(texts, scores)]
    kept = choices.spread([example for example in answered if example is not None], GOLDEN_EXAMPLES)
    return {"tolerance": 1e-4, "examples": kept}


def write(pipeline: Pipeline, target: Path, given: list[str] | None, names: list[str] | None) -> str:
    """Converts, compares and writes. Returns what to tell."""
    if target.exists():
        raise Refused(f"{target} is there already")
    vectorizers = check(pipeline)
    several = multi_label(pipeline)
    classes = [str(name) for name in pipeline.classes_]
    labels = names if names is not None else classes
    if len(labels) != len(classes):
        raise Refused(f"there are {len(labels)} labels for {len(classes)} classes")
    if names is not None and names != classes and not several:
        raise Refused("the labels differ from the classifier's own classes, which its graph answers; train it with names")
    graph = convert(pipeline, vectorizers)
    chars = any(vectorizer.analyzer == "char" for vectorizer in vectorizers)
    # scikit-learn folds white space before it counts characters; the graph cannot.
    odd = [" ".join(text.split()) if chars else text for text in ODD_TEXTS]
    texts = [*(given or []), *odd]
    scores, ties = compare(pipeline, graph, texts)
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=f".{target.name}-") as work:
        made = Path(work) / "made"
        made.mkdir()
        (made / "model.onnx").write_bytes(graph)
        files = {"labels.json": labels}
        if given:
            files["golden.json"] = golden(given, scores[:len(given)], labels, several)
        for name, value in files.items():
            (made / name).write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        write_manifest(made, [f'task = "{"multi_label" if several else "classification"}"'])
        made.rename(target)
    said = f"{len(texts)} texts answered as by the pipeline, {ties} ties excepted; written: {target}"
    return said + ("\ncharacters: a text with several spaces in a row is answered otherwise than by the pipeline" * chars)


def run(options: argparse.Namespace) -> None:
    """Loads the author's files, converts, and prints."""
    separate = options.vectorizer is not None and options.model is not None
    if (options.vectorizer is None) != (options.model is None) or len(options.paths) != (1 if separate else 2):
        raise Refused("give PIPELINE.joblib and TARGET, or --vectorizer, --model and TARGET")
    pipeline = (make_pipeline(joblib.load(options.vectorizer), joblib.load(options.model)) if separate
                else joblib.load(options.paths[0]))
    names = json.loads(options.labels.read_text(encoding="utf-8")) if options.labels else None
    texts = read_texts(options.texts) if options.texts else None
    if texts and any(isinstance(text, tuple) for text in texts):
        raise Refused(f"{options.texts} has pairs, and a pipeline takes one text")
    print(write(pipeline, options.paths[-1], texts, names))
