"""The texts that are asked: BANKING77's test questions, and texts of other lengths made of them."""

import json
import math
import random
import sys
from pathlib import Path
from statistics import NormalDist

from tokenizers import Tokenizer

REPOSITORY = Path(__file__).resolve().parent.parent.parent
sys.path.insert(0, str(REPOSITORY / "models"))

from training import data  # noqa: E402

SEED = 20_261_123
# Lengths as mails, chats and tickets have them: half of them at most 22 tokens, one in a hundred more than 150.
MEDIAN, NINETIETH = 22, 64


def questions() -> list[str]:
    """BANKING77's test questions in an order that has nothing to do with their labels; a few texts without it."""
    try:
        folder = data.locate(None, REPOSITORY.parent / "shared/data/banking77", REPOSITORY / "target/models-work")
        texts = data.load(folder).test.texts
    except OSError as error:
        print(f"!! BANKING77 is not to be had ({error}): the models' golden examples are asked instead")
        golden = json.loads((REPOSITORY / "models/banking77-minilm/1/golden.json").read_text())
        texts = [example["text"] for example in golden["examples"]]
    random.Random(SEED).shuffle(texts)
    return texts


def of_lengths(tokenizer: Tokenizer, texts: list[str], lengths: list[int]) -> list[str]:
    """Texts of exactly so many tokens, special ones included, from the words of `texts`."""
    words = [(word, len(tokenizer.encode(word, add_special_tokens=False).ids))
             for text in texts for word in text.split()]
    made, at = [], 0
    for length in lengths:
        left, chosen = length - 2, []
        while left > 0:
            word, tokens = words[at % len(words)]
            at += 1
            if tokens <= left:
                chosen.append(word)
                left -= tokens
        made.append(" ".join(chosen))
    return made


def lognormal(count: int) -> list[int]:
    """Lengths between 3 and 512, in a random order."""
    spread = math.log(NINETIETH / MEDIAN) / NormalDist().inv_cdf(0.9)
    quantile = NormalDist(math.log(MEDIAN), spread).inv_cdf
    lengths = [min(512, max(3, round(math.exp(quantile((i + 0.5) / count))))) for i in range(count)]
    random.Random(SEED).shuffle(lengths)
    return lengths


def bimodal(count: int) -> list[int]:
    """Nine short ones to one long one, in a random order."""
    lengths = [256 if i % 10 == 0 else 12 for i in range(count)]
    random.Random(SEED).shuffle(lengths)
    return lengths


def texts_of(workload: str, tokenizer: Tokenizer) -> list[str]:
    """The texts of a workload."""
    base = questions()
    match workload:
        case "q" | "f" | "g" | "d1" | "d32" | "d256":
            return base
        case "a16" | "a128" | "a512":
            length = int(workload[1:])
            return of_lengths(tokenizer, base, [length] * (4_000 // length + 50))
        case "b":
            return of_lengths(tokenizer, base, lognormal(2_000))
        case "c":
            return of_lengths(tokenizer, base, bimodal(2_000))
        case "e":
            # Three texts of ten are one of fifty that everybody asks; the others come once.
            chance, often = random.Random(SEED), base[:50]
            return [chance.choice(often) if chance.random() < 0.3 else text for text in base[50:]]
    raise ValueError(f"no workload is called {workload}")


# Texts in a request, and requests of a hundred whose clients do not wait for the answer.
BATCHES = {"d1": 1, "d32": 32, "d256": 256}
LEAVING = {"g": 10}
MODELS = {"f": "banking77-tfidf"}
