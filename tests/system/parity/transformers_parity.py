"""The server's answers against the pipelines of transformers: small models of many architectures, exported and served.

    python tests/system/parity/transformers_parity.py --predictd target/debug/predictd

Ends with status 1 if any label, score, length or cut differs. Every difference is printed.
"""

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parents[3]
sys.path[:0] = [str(ROOT / "models"), str(Path(__file__).parent)]

import torch
import transformers
from transformers import pipeline

from architectures import KINDS, LONGEST, MORE_KINDS, Kind, build
from served import Served
from texts import corpus, questions
from tools.export import TEXTS, export

# Largest difference of a score.
TOLERANCE = 1e-4
# Two labels that are closer than this may change places.
TIE = 1e-5
LABELS = {0: "red", 1: "green", 2: "blue"}
# Rules of tokenizer.json that its class does not know, so that AutoTokenizer loses them: the server keeps the file's.
OWN_RULES = {
    "deberta-v3": ("normalizer", {"type": "Sequence", "normalizers": [{"type": "NFKC"}, {"type": "Strip", "strip_left": False, "strip_right": True}]}),
    "deberta": ("pre_tokenizer", {"type": "Sequence", "pretokenizers": [
        {"type": "Split", "pattern": {"Regex": r"\p{N}{1,3}|[^\s\p{N}]+|\s+"}, "behavior": "Isolated", "invert": False},
        {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}]}),
}
# Heads other than one label of several: their labels and what config.json says of them.
HEADS = {
    "multi-label": (LABELS, {"problem_type": "multi_label_classification"}),
    "regression": ({0: "LABEL_0"}, {"problem_type": "regression"}),
    "one-logit": ({0: "LABEL_0"}, {}),
}


def expected_of(judge, model: str, texts: list[str]) -> list[dict]:
    """What transformers says to each text alone: scores by label, tokens seen, and whether it was cut."""
    expected = []
    for text in texts:
        [scores] = judge([text], top_k=None, truncation=True, max_length=LONGEST)
        whole = len(judge.tokenizer(text)["input_ids"])
        expected.append({"scores": {entry["label"]: entry["score"] for entry in scores},
                         "tokens": min(whole, LONGEST), "truncated": whole > LONGEST})
    return expected


def differences(expected: dict, found: dict, labels: list[str], head: str) -> list[str]:
    """What is wrong with one answer."""
    wrong = [f"{name} is {found[name]}, not {expected[name]}" for name in ("tokens", "truncated") if found[name] != expected[name]]
    scores = [found["score"]] if "score" in found else found["probabilities"]
    wanted = [expected["scores"][label] for label in labels]
    if max(abs(a - b) for a, b in zip(scores, wanted, strict=True)) > TOLERANCE:
        wrong.append(f"scores are {scores}, not {wanted}")
    best = sorted(wanted, reverse=True)
    if head == "multi-label":
        chosen = [label for label, score in zip(labels, wanted) if score >= 0.5]
        if found["prediction"] != chosen and all(abs(score - 0.5) > TIE for score in wanted):
            wrong.append(f"labels are {found['prediction']}, not {chosen}")
    elif "prediction" in found and best[0] - best[1] > TIE and found["prediction"] != labels[wanted.index(best[0])]:
        wrong.append(f"the label is {found['prediction']}, not {labels[wanted.index(best[0])]}")
    return wrong


def give_own_rules(folder: Path, kind: Kind) -> None:
    """Changes tokenizer.json to what an author other than transformers may have written."""
    rule, value = OWN_RULES[kind.title]
    file = folder / "tokenizer.json"
    file.write_text(json.dumps(json.loads(file.read_text(encoding="utf-8")) | {rule: value}), encoding="utf-8")


def compare(served: Served, folder: Path, name: str, head: str, texts: list[str]) -> int:
    """Asks one model about all texts, alone and together, and prints what differs."""
    # The class that reads the file as it is, for a file with rules of its own.
    of_file = {"tokenizer": transformers.PreTrainedTokenizerFast.from_pretrained(folder)} if head == "own-rules" else {}
    judge = pipeline("text-classification", model=str(folder), device="cpu", model_kwargs={"attn_implementation": "eager"}, **of_file)
    labels = list(judge.model.config.id2label.values())
    expected = expected_of(judge, name, texts)
    options = {"model": name, "return_probabilities": True}
    alone = [served.ask("/predict", {"text": text, **options}) for text in texts]
    together = served.ask("/batch_predict", {"texts": texts, **options})["results"]
    count = 0
    for number, answers in enumerate(zip(expected, alone, together)):
        for way, found in zip(("alone", "together"), answers[1:]):
            for wrong in differences(answers[0], found, labels, head):
                count += 1
                print(f"{name}: text {number} {way}: {wrong}: {texts[number][:60]!r}")
    spread = {answer.get("prediction") if isinstance(answer.get("prediction"), str) else None for answer in alone}
    print(f"{name:24} {len(texts)} texts alone and together, {count} differences, {len(spread)} labels given")
    return count


def main() -> None:
    """Builds, exports, serves, asks, compares."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--predictd", type=Path, default=ROOT / "target/debug/predictd")
    binary = parser.parse_args().predictd
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    learned, asked = corpus(), questions()
    cases = [(kind, "one-label", LABELS, {}) for kind in KINDS + MORE_KINDS]
    cases += [(kind, "own-rules", LABELS, {}) for kind in MORE_KINDS if kind.title in OWN_RULES]
    cases += [(KINDS[0], head, labels, settings) for head, (labels, settings) in HEADS.items()]
    started = time.time()
    with tempfile.TemporaryDirectory() as folder:
        made = []
        for kind, head, labels, settings in cases:
            name = kind.title if head == "one-label" else f"{kind.title}-{head}"
            source = Path(folder) / "trained" / name
            build(kind, learned, source, labels, **settings)
            if head == "own-rules":
                give_own_rules(source, kind)
            export(str(source), Path(folder) / "models" / name / "1", texts=TEXTS)
            made.append((source, name, head, asked[::kind.every]))
        served = Served(binary, Path(folder) / "models")
        try:
            wrong = sum(compare(served, *one) for one in made)
        finally:
            served.stop()
    print(f"{len(made)} models, {wrong} differences, {time.time() - started:.0f} s")
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
