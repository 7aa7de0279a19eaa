#!/usr/bin/env python3
"""Asks a running predictd BANKING77's 3,080 test questions and compares the answers with the data set.

    python models/evaluate.py                                        both models, at http://127.0.0.1:8000
    python models/evaluate.py http://host:8000 --model banking77-tfidf

All questions are asked three times: one after another through /predict, through /predict by 64 clients at once, and
through /batch_predict. The exit status is 1 if a model answers fewer questions correctly than promised, if an answer
depends on what else was asked at the time, or if one of the 13,083 questions of the whole data set is refused; it is 3
if the data is not to be had. The server should run with --cache-bytes 0: a cached answer was not given anew.
Needs nothing but Python.
"""

import argparse
import json
import sys
import time
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from training import data

REPOSITORY = Path(__file__).resolve().parent.parent
SHIPPED = ["banking77-minilm", "banking77-tfidf"]
# The float twin comes from benches/float_twin.py.
PROMISED = {"banking77-minilm": 0.93, "banking77-tfidf": 0.89, "banking77-minilm-float": 0.93}
# Probabilities may differ in the last digits, because padding changes the order of sums.
SAME_PROBABILITY = 1e-5
CLIENTS = 64
# Exit status where there is no data to ask.
NO_DATA = 3


def post(url: str, body: dict) -> dict:
    """The JSON answer to a JSON request. Any other answer ends the program with what the server said."""
    request = urllib.request.Request(url, json.dumps(body).encode(), {"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=60) as response:
            return json.load(response)
    except urllib.error.HTTPError as error:
        sys.exit(f"{url} answered {error.code}: {error.read().decode(errors='replace')}")
    except OSError as error:
        sys.exit(f"{url} cannot be reached: {error}")


def ask_together(url: str, model: str, texts: list[str], size: int) -> list[dict]:
    """Every text through /batch_predict, at most `size` in one call."""
    results = []
    for start in range(0, len(texts), size):
        part = texts[start:start + size]
        answer = post(f"{url}/batch_predict", {"texts": part, "model": model, "return_probabilities": True})
        if [result["text_index"] for result in answer["results"]] != list(range(len(part))):
            sys.exit(f"{url}/batch_predict did not answer each of {len(part)} texts once and in order")
        results += answer["results"]
    return results


def ask_alone(url: str, model: str, texts: list[str], clients: int) -> list[dict]:
    """Every text through /predict, by so many clients at once."""
    def ask(text: str) -> dict:
        return post(f"{url}/predict", {"text": text, "model": model, "return_probabilities": True})

    with ThreadPoolExecutor(clients) as pool:
        return list(pool.map(ask, texts))


def same(alone: dict, together: dict) -> bool:
    """Whether two answers to one text agree in the label and in every probability."""
    pairs = zip(alone["probabilities"], together["probabilities"], strict=True)
    return (alone["prediction"] == together["prediction"]
            and all(abs(one - other) <= SAME_PROBABILITY for one, other in pairs))


def evaluate(url: str, model: str, questions: data.Split, batch: int) -> bool:
    """Prints the figures of one model and says whether they are good enough."""
    alone = ask_alone(url, model, questions.texts, 1)
    started = time.monotonic()
    together = ask_together(url, model, questions.texts, batch)
    seconds = time.monotonic() - started
    right = sum(result["prediction"] == label for result, label in zip(together, questions.labels, strict=True))
    accuracy = right / len(questions.texts)

    ways = {f"in batches of {batch}": together, f"by {CLIENTS} clients": ask_alone(url, model, questions.texts, CLIENTS)}
    differing = {way: sum(not same(*pair) for pair in zip(alone, answers, strict=True)) for way, answers in ways.items()}
    promised = PROMISED.get(model, 0.0)
    good = accuracy >= promised and not any(differing.values())
    print(f"{model}: {100 * accuracy:.2f} % of {len(questions.texts)} right (promised: {100 * promised:.0f} %), "
          f"{seconds:.1f} s in batches of {batch}; answers that differ from those alone: "
          f"{', '.join(f'{count} {way}' for way, count in differing.items())}: {'good' if good else 'NOT GOOD'}")
    return good


def main() -> None:
    """Reads the command line and evaluates each model."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("url", nargs="?", default="http://127.0.0.1:8000", help="where predictd listens")
    parser.add_argument("--model", action="append", help="repeatable; default: the two of this repository")
    parser.add_argument("--data", type=Path, help="folder with BANKING77's test.csv; without it, "
                                                  "../shared/data/banking77 or a download")
    parser.add_argument("--batch", type=int, default=1000, help="texts in one call of /batch_predict")
    options = parser.parse_args()
    beside = REPOSITORY.parent / "shared" / "data" / "banking77"
    work = REPOSITORY / "target" / "models-work"
    try:
        folder = data.locate(options.data, beside, work)
    except OSError as error:
        print(f"SKIPPED: BANKING77 is not here and cannot be downloaded: {error}", file=sys.stderr)
        sys.exit(NO_DATA)
    questions = data.load(folder)
    url, models = options.url.rstrip("/"), options.model or SHIPPED
    good = [evaluate(url, model, questions.test, options.batch) for model in models]
    # The test questions have passed; a refused batch has ended the program.
    ask_together(url, models[-1], questions.train.texts, options.batch)
    asked = len(questions.train.texts) + len(questions.test.texts)
    print(f"none of {asked} questions was refused for what stands in it")
    sys.exit(0 if all(good) else 1)


if __name__ == "__main__":
    main()
