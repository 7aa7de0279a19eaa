"""The server's answers to pairs, its entities and its labels of the request, against the pipelines of transformers.

    python tests/system/parity/tasks_parity.py --predictd target/debug/predictd

Ends with status 1 if any label, place, score or cut differs. Every difference is printed.
"""

import argparse
import random
import shutil
import sys
import tempfile
import time
import warnings
from pathlib import Path

ROOT = Path(__file__).parents[3]
sys.path[:0] = [str(ROOT / "models"), str(Path(__file__).parent)]

import transformers
from transformers import pipeline

from architectures import KINDS, LONGEST, Kind, build
from served import Served
from texts import SENTENCES, WORDS, corpus, questions
from tools.export import TEXTS, export

# Largest difference of a score.
TOLERANCE = 1e-4
# Two labels that are closer than this may change places.
TIE = 1e-5
PAIRS, ENTITY_TEXTS, ZERO_SHOT_TEXTS = 200, 120, 50
NLI = {0: "contradiction", 1: "neutral", 2: "entailment"}
# transformers takes the first or the last label for contradiction, whatever it is called: there it stands in these orders.
TURNED = {0: "entailment", 1: "neutral", 2: "contradiction"}
ONE = {0: "LABEL_0"}
NAMES = dict(enumerate(["O", "B-PER", "I-PER", "B-LOC", "I-LOC", "MISC"]))
STRATEGIES = ["none", "simple", "first", "average", "max"]
CANDIDATES = [["travel", "cooking", "politics"], ["good", "bad"], ["食べ物", "carte bancaire 💳", "money", "a" * 8]]
TEMPLATES = ["This example is {}.", "The text is about {}, isn't it?"]


def of_kind(name: str) -> Kind:
    """The architecture of this name."""
    return next(kind for kind in KINDS if kind.name == name)


def pairs() -> list[tuple[str, str]]:
    """Pairs of every mix of lengths: both short, one beyond the limit, both beyond it."""
    chance = random.Random(5)
    lengths = [1, 3, 8, 20, 40, 80, 200]
    texts = [*SENTENCES, *(" ".join(chance.choices(WORDS, k=length)) for length in lengths * 6)]
    return [(chance.choice(texts), chance.choice(texts)) for _ in range(PAIRS)]


def wrong_scores(expected: dict[str, float], found: dict, labels: list[str]) -> list[str]:
    """What is wrong with the scores and the label of an answer."""
    wanted = [expected[label] for label in labels]
    scores = [found["score"]] if "score" in found else found["probabilities"]
    wrong = []
    if max(abs(a - b) for a, b in zip(scores, wanted, strict=True)) > TOLERANCE:
        wrong.append(f"scores are {scores}, not {wanted}")
    best = sorted(wanted, reverse=True)
    if "prediction" in found and best[0] - best[1] > TIE and found["prediction"] != labels[wanted.index(best[0])]:
        wrong.append(f"the label is {found['prediction']}, not {labels[wanted.index(best[0])]}")
    return wrong


def compare_pairs(served: Served, source: Path, name: str) -> int:
    """Asks a model about all pairs, alone and together."""
    judge = pipeline("text-classification", model=str(source), device="cpu")
    labels, asked = list(judge.model.config.id2label.values()), pairs()
    options = {"model": name, "return_probabilities": True}
    together = served.ask("/batch_predict", {"texts": [first for first, _ in asked],
                                             "text_pairs": [second for _, second in asked], **options})["results"]
    count, cut = 0, 0
    for number, (first, second) in enumerate(asked):
        scores = judge({"text": first, "text_pair": second}, top_k=None, truncation=True, max_length=LONGEST)
        whole = len(judge.tokenizer(first, second)["input_ids"])
        cut += whole > LONGEST
        alone = served.ask("/predict", {"text": first, "text_pair": second, **options})
        for way, found in (("alone", alone), ("together", together[number])):
            wrong = wrong_scores({entry["label"]: entry["score"] for entry in scores}, found, labels)
            if (found["tokens"], found["truncated"]) != (min(whole, LONGEST), whole > LONGEST):
                wrong.append(f"{found['tokens']} tokens, truncated {found['truncated']}, where all are {whole}")
            count += len(wrong)
            for sentence in wrong:
                print(f"{name}: pair {number} {way}: {sentence}: {first[:40]!r}, {second[:40]!r}")
    print(f"{name:24} {len(asked)} pairs alone and together, {cut} cut, {count} differences")
    return count


def compare_entities(served: Served, source: Path, name: str, strategy: str) -> int:
    """Asks a model for the entities of all texts, alone and together."""
    judge = pipeline("token-classification", model=str(source), device="cpu", aggregation_strategy=strategy)
    asked = [text for text in questions() if len(text) < 1_000][:ENTITY_TEXTS]
    together = served.ask("/batch_predict", {"texts": asked, "model": name})["results"]
    count, given = 0, 0
    for number, text in enumerate(asked):
        expected = [(entity["entity"] if strategy == "none" else entity["entity_group"], entity["start"], entity["end"],
                     float(entity["score"])) for entity in judge(text)]
        given += len(expected)
        for way, answer in (("alone", served.ask("/predict", {"text": text, "model": name})), ("together", together[number])):
            found = [(e["label"], e["start"], e["end"], e["score"]) for e in answer["entities"]]
            differ = [entity[:3] for entity in found] != [entity[:3] for entity in expected]
            differ = differ or any(abs(a[3] - b[3]) > TOLERANCE for a, b in zip(found, expected))
            differ = differ or any(e["text"] != text[e["start"]:e["end"]] for e in answer["entities"])
            if differ:
                count += 1
                first = next((pair for pair in zip(found, expected) if pair[0] != pair[1]), (len(found), len(expected)))
                print(f"{name}: text {number} {way}: found and expected begin to differ with {first}: {text[:60]!r}")
    print(f"{name:24} {len(asked)} texts alone and together, {given} entities, {count} differences")
    return count


def compare_labels(served: Served, source: Path, name: str) -> int:
    """Asks an NLI model which labels of the request fit the texts."""
    judge = pipeline("zero-shot-classification", model=str(source), device="cpu")
    count = 0
    for number, text in enumerate(questions()[:ZERO_SHOT_TEXTS]):
        labels, template = CANDIDATES[number % len(CANDIDATES)], TEMPLATES[number % len(TEMPLATES)]
        many = number % 3 == 0
        expected = judge(text, labels, hypothesis_template=template, multi_label=many)
        scores = dict(zip(expected["labels"], expected["scores"]))
        found = served.ask("/predict", {"text": text, "model": name, "labels": labels, "hypothesis_template": template,
                                        "multi_label": many, "return_probabilities": True})
        wanted = [label for label in labels if scores[label] >= 0.5]
        if many:
            clear = all(abs(score - 0.5) > TIE for score in scores.values())
            wrong = [f"labels are {found['prediction']}, not {wanted}"] if clear and found["prediction"] != wanted else []
            wrong += wrong_scores(scores, {"probabilities": found["probabilities"]}, labels)
        else:
            wrong = wrong_scores(scores, found, labels)
        count += len(wrong)
        for sentence in wrong:
            print(f"{name}: text {number}: {sentence}: {text[:60]!r}")
    print(f"{name:24} {ZERO_SHOT_TEXTS} texts with labels of the request, {count} differences")
    return count


def make(folder: Path, learned: list[str]) -> list:
    """Builds and exports the models; for each, what compares it, and with what."""
    work = []

    def exported(kind: str, name: str, labels: dict[int, str], **settings) -> Path:
        source = folder / "trained" / name
        build(of_kind(kind), learned, source, labels, **settings)
        export(str(source), folder / "models" / name / "1", texts=TEXTS)
        return source

    for kind in ("Bert", "Roberta", "Albert", "DebertaV2"):
        name = f"{kind.lower()}-nli"
        source = exported(kind, name, NLI)
        work.append((compare_pairs, source, name))
        work.append((compare_labels, source, name))
    source = exported("XLMRoberta", "xlmroberta-turned", TURNED)
    work.append((compare_labels, source, "xlmroberta-turned"))
    for kind in ("Bert", "Roberta"):
        work.append((compare_pairs, exported(kind, f"{kind.lower()}-cross", ONE), f"{kind.lower()}-cross"))
    for kind in ("Bert", "Roberta", "XLMRoberta"):
        source = exported(kind, f"{kind.lower()}-ner-none", NAMES, head="TokenClassification")
        for strategy in STRATEGIES:
            name = f"{kind.lower()}-ner-{strategy}"
            version = folder / "models" / name / "1"
            if strategy != "none":
                shutil.copytree(folder / "models" / f"{kind.lower()}-ner-none" / "1", version)
            (version / "model.toml").write_text(f'aggregation = "{strategy}"\n', encoding="utf-8")
            work.append((lambda served, source, name, strategy=strategy: compare_entities(served, source, name, strategy),
                         source, name))
    return work


def main() -> None:
    """Builds, exports, serves, asks, compares."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--predictd", type=Path, default=ROOT / "target/debug/predictd")
    binary = parser.parse_args().predictd
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    # That words of a tokenizer that knows none are guessed, which the server does in the same way.
    warnings.filterwarnings("ignore", message="Tokenizer does not support real words")
    started = time.time()
    with tempfile.TemporaryDirectory() as folder:
        work = make(Path(folder), corpus())
        served = Served(binary, Path(folder) / "models")
        try:
            wrong = sum(compare(served, source, name) for compare, source, name in work)
        finally:
            served.stop()
    print(f"{len(work)} comparisons, {wrong} differences, {time.time() - started:.0f} s")
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
