"""Which steps of a scikit-learn pipeline are converted, and what to do about the others."""

import copy
from collections.abc import Iterator

import numpy
from sklearn.base import is_classifier, is_regressor
from sklearn.calibration import CalibratedClassifierCV
from sklearn.feature_extraction.text import CountVectorizer, TfidfVectorizer
from sklearn.frozen import FrozenEstimator
from sklearn.model_selection._search import BaseSearchCV
from sklearn.pipeline import FeatureUnion, Pipeline
from sklearn.semi_supervised import SelfTrainingClassifier

from .refused import Refused
from .vectorizer_graph import TOKEN_PATTERNS, plain_pattern

# Between the vectorizer and the classifier. Each has a test that compares its graph with it.
TRANSFORMERS = {"TfidfTransformer", "TruncatedSVD", "PCA", "StandardScaler", "MaxAbsScaler", "MinMaxScaler", "RobustScaler",
                "Normalizer", "Binarizer", "SelectKBest", "SelectPercentile", "VarianceThreshold", "SelectFromModel"}
# Each is served and compared by `make parity`.
CLASSIFIERS = {
    "AdaBoostClassifier", "BaggingClassifier", "BernoulliNB", "CalibratedClassifierCV", "CategoricalNB", "ComplementNB",
    "DecisionTreeClassifier", "ExtraTreeClassifier", "ExtraTreesClassifier", "GaussianNB", "GradientBoostingClassifier",
    "KNeighborsClassifier", "LinearDiscriminantAnalysis", "LogisticRegression", "LogisticRegressionCV", "MLPClassifier",
    "MultiOutputClassifier", "MultinomialNB", "NuSVC", "OneVsRestClassifier", "QuadraticDiscriminantAnalysis",
    "RadiusNeighborsClassifier", "RandomForestClassifier", "SGDClassifier", "SVC", "StackingClassifier", "VotingClassifier",
}
# CalibratedClassifierCV gives these the probabilities that they lack.
CALIBRATED = {"LinearSVC", "NuSVC", "OneVsOneClassifier", "OneVsRestClassifier", "PassiveAggressiveClassifier", "Perceptron",
              "RidgeClassifier", "RidgeClassifierCV", "SGDClassifier", "SVC"}
# What is wrong with a classifier, and what to use instead.
OTHERS = {
    "ClassifierChain": ("skl2onnx has no converter for it", "use OneVsRestClassifier"),
    "DummyClassifier": ("it looks at no text", "use LogisticRegression"),
    "FixedThresholdClassifier": ("it chooses by a threshold, where the server takes the most probable label",
                                 "put its estimator_ in its place"),
    "TunedThresholdClassifierCV": ("it chooses by a threshold, where the server takes the most probable label",
                                   "put its estimator_ in its place"),
    "GaussianProcessClassifier": ("its graph needs an operator that ONNX Runtime lacks", "use LogisticRegression"),
    "HistGradientBoostingClassifier": ("skl2onnx writes a graph for it that is not valid", "use GradientBoostingClassifier"),
    "LabelPropagation": ("skl2onnx has no converter for it", "use SelfTrainingClassifier(LogisticRegression())"),
    "LabelSpreading": ("skl2onnx has no converter for it", "use SelfTrainingClassifier(LogisticRegression())"),
    "NearestCentroid": ("skl2onnx has no converter for it", "use LogisticRegression"),
    "OutputCodeClassifier": ("skl2onnx has no converter for it", "use OneVsRestClassifier(LogisticRegression())"),
}
HOW_TO_SAVE = "save the fitted pipeline with joblib.dump(make_pipeline(vectorizer, classifier), 'PIPELINE.joblib')"


def plain(estimator: object) -> object:
    """The same estimator without what changes no answer: searches, empty steps, pipelines inside of pipelines."""
    if isinstance(estimator, BaseSearchCV):
        if not hasattr(estimator, "best_estimator_"):
            raise Refused(f"{type(estimator).__name__} keeps no model: fit it with refit=True")
        return plain(estimator.best_estimator_)
    if isinstance(estimator, SelfTrainingClassifier) and hasattr(estimator, "estimator_"):
        return plain(estimator.estimator_)
    if isinstance(estimator, FrozenEstimator):
        return plain(estimator.estimator)
    if isinstance(estimator, CalibratedClassifierCV) and hasattr(estimator, "calibrated_classifiers_"):
        parts = [copy.copy(part) for part in estimator.calibrated_classifiers_]
        for part in parts:
            part.estimator = plain(part.estimator)
        estimator = copy.copy(estimator)
        estimator.estimator = parts[0].estimator
        estimator.calibrated_classifiers_ = parts
        return estimator
    if isinstance(estimator, Pipeline):
        return Pipeline(list(plain_steps(estimator)))
    if isinstance(estimator, FeatureUnion):
        parts = [(name, plain(step)) for name, step in estimator.transformer_list if step != "drop"]
        return FeatureUnion(parts, transformer_weights=estimator.transformer_weights)
    if getattr(estimator, "flatten_transform", False):
        # Of its method transform, which a classifier at the end does not use, and which skl2onnx insists on.
        estimator = copy.copy(estimator)
        estimator.flatten_transform = False
    return estimator


def plain_steps(pipeline: Pipeline) -> Iterator[tuple[str, object]]:
    """The steps that do something, those of inner pipelines in their place."""
    for name, step in pipeline.steps:
        if step is None or (isinstance(step, str) and step == "passthrough"):
            continue
        inner = plain(step)
        if isinstance(inner, Pipeline):
            yield from ((f"{name}-{other}", one) for other, one in inner.steps)
        else:
            yield name, inner


def check(pipeline: object) -> list[CountVectorizer]:
    """The vectorizers of a plain pipeline, once every step is known to be converted faithfully."""
    if not isinstance(pipeline, Pipeline):
        what = f"{type(pipeline).__name__}, which is no Pipeline"
        if hasattr(pipeline, "predict"):
            raise Refused(f"the file holds a {what}: {HOW_TO_SAVE}, or give --vectorizer and --model")
        raise Refused(f"the file holds a {what}: {HOW_TO_SAVE}")
    if not pipeline.steps:
        raise Refused("the pipeline has no step that does something: give it a vectorizer and a classifier")
    vectorizers = []
    for step in steps_before(pipeline.steps[:-1]):
        if hasattr(step, "build_analyzer"):
            check_vectorizer(step)
            vectorizers.append(step)
        elif type(step).__name__ not in TRANSFORMERS:
            raise Refused(f"{type(step).__name__} is not among the steps that are known to convert faithfully: "
                          f"{', '.join(sorted(TRANSFORMERS))}; train without it")
    check_classifier(pipeline.steps[-1][1])
    if not vectorizers:
        raise Refused("the pipeline has no vectorizer, so it does not take text: put a TfidfVectorizer first")
    return vectorizers


def steps_before(steps: list[tuple[str, object]]) -> Iterator[object]:
    """Every step before the classifier, those inside of unions too."""
    for _, step in steps:
        if isinstance(step, FeatureUnion):
            yield from steps_before(step.transformer_list)
        elif isinstance(step, Pipeline):
            yield from steps_before(step.steps)
        else:
            yield step


def check_vectorizer(vectorizer: object) -> None:
    """Refuses what no graph computes."""
    name = type(vectorizer).__name__
    if type(vectorizer) not in (CountVectorizer, TfidfVectorizer):
        raise Refused(f"{name} cannot be converted; use CountVectorizer or TfidfVectorizer")
    if getattr(vectorizer, "vocabulary_", None) is None:
        raise Refused(f"{name} is not fitted: it has no vocabulary_; call fit before you save it")
    for setting in ("tokenizer", "preprocessor"):
        if getattr(vectorizer, setting) is not None:
            raise Refused(f"{name}: {setting} is a Python function, which a graph cannot run; train with {setting}=None")
    if not isinstance(vectorizer.analyzer, str):
        raise Refused(f"{name}: analyzer is a Python function, which a graph cannot run; train with analyzer='word'")
    if vectorizer.input != "content":
        raise Refused(f"{name}: input={vectorizer.input!r} reads files; train with input='content'")
    if vectorizer.strip_accents is not None:
        raise Refused(f"{name}: strip_accents={vectorizer.strip_accents!r} cannot be converted; train with strip_accents=None")
    if vectorizer.analyzer == "word" and plain_pattern(vectorizer) not in TOKEN_PATTERNS:
        raise Refused(f"{name}: token_pattern={vectorizer.token_pattern!r} has no known spelling that means the same; "
                      f"train with one of {', '.join(TOKEN_PATTERNS)}")


def check_classifier(classifier: object) -> None:
    """Refuses what gives no probabilities, and what the graph would answer otherwise."""
    name = type(classifier).__name__
    if is_regressor(classifier):
        raise Refused(f"{name} is a regressor: it predicts a number, not a label; train a classifier, such as LogisticRegression")
    if not is_classifier(classifier):
        raise Refused(f"{name} is no classifier: put one at the end of the pipeline, such as LogisticRegression")
    if name in OTHERS:
        reason, remedy = OTHERS[name]
        raise Refused(f"{name}: {reason}; {remedy}")
    if not hasattr(classifier, "predict_proba"):
        raise Refused(f"{name} gives no probabilities: {probabilities_for(classifier)}")
    if name not in CLASSIFIERS:
        raise Refused(f"{name} is not among the classifiers that are known to convert: {', '.join(sorted(CLASSIFIERS))}")
    if isinstance(classifier, CalibratedClassifierCV) and classifier.method != "sigmoid":
        raise Refused(f"CalibratedClassifierCV: method={classifier.method!r} cannot be converted faithfully; train with method='sigmoid'")
    if not isinstance(getattr(classifier, "_fit_X", numpy.empty(0)), numpy.ndarray):
        raise Refused(f"{name} cannot be converted where it learned from the vectorizer's sparse rows; "
                      "put TruncatedSVD between the vectorizer and it")


def probabilities_for(classifier: object) -> str:
    """How this classifier comes to give probabilities."""
    name = type(classifier).__name__
    if name == "VotingClassifier":
        return "train it with voting='soft'"
    if name == "SGDClassifier":
        return "train it with loss='log_loss', or inside of CalibratedClassifierCV"
    if getattr(classifier, "multilabel_", False):
        return f"train OneVsRestClassifier(CalibratedClassifierCV({type(classifier.estimator).__name__}()))"
    if name in CALIBRATED:
        return f"train CalibratedClassifierCV({name}(...))"
    return "train a classifier that does, such as LogisticRegression"
