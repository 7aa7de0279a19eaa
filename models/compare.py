#!/usr/bin/env python3
"""Has a running predictd compare both models as an experiment, on BANKING77's 3,080 test questions with their true labels.

    python3 models/compare.py [http://127.0.0.1:8000] [--admin http://127.0.0.1:8001]

Each question is asked by two users, one of each arm, and its true label is told. The exit status is 1 if a user is not in
the arm that the documented recipe says, if an arm's accuracy is not exactly that of its model, if the verdict does not
name the better model, or if the counts are not those that were asked; it is 3 if the data is not to be had.
Needs nothing but Python.
"""

import argparse
import hashlib
import json
import sys
import time
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from evaluate import CLIENTS, NO_DATA, REPOSITORY, ask_together
from training import data

MODELS = {"neural": "banking77-minilm", "counting": "banking77-tfidf"}
BETTER = "neural"


def send(url: str, method: str, body=None, headers: dict | None = None):
    """The JSON answer, and its headers."""
    sent = json.dumps(body).encode() if body is not None else None
    request = urllib.request.Request(url, sent, {"Content-Type": "application/json"} | (headers or {}), method=method)
    try:
        with urllib.request.urlopen(request, timeout=60) as response:
            return json.load(response), response.headers
    except urllib.error.HTTPError as error:
        sys.exit(f"{method} {url} answered {error.code}: {error.read().decode(errors='replace')}")
    except OSError as error:
        sys.exit(f"{url} cannot be reached: {error}")


def arm_of(salt: str, user: str) -> str:
    """The recipe of the documentation, for two arms of half of the users."""
    digest = hashlib.sha256(f"{salt}\0{user}".encode()).digest()
    position = (int.from_bytes(digest[:8], "big") >> 11) / 2**53
    return list(MODELS)[0] if position < 0.5 else list(MODELS)[1]


def users(salt: str, question: int) -> dict[str, str]:
    """A user of each arm for a question."""
    found: dict[str, str] = {}
    number = 0
    while len(found) < len(MODELS):
        user = f"{question}-{number}"
        found.setdefault(arm_of(salt, user), user)
        number += 1
    return found


def main() -> None:
    """Asks, tells, and compares."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("url", nargs="?", default="http://127.0.0.1:8000")
    parser.add_argument("--admin", default="http://127.0.0.1:8001")
    parser.add_argument("--data", type=Path, help="folder with BANKING77's train.csv and test.csv")
    options = parser.parse_args()
    try:
        beside = REPOSITORY.parent / "shared/data/banking77"
        test = data.load(data.locate(options.data, beside, REPOSITORY / "target/training")).test
    except OSError as error:
        print(f"the data is not to be had: {error}", file=sys.stderr)
        sys.exit(NO_DATA)
    # What each model says by itself, before anything is compared.
    alone = {model: ask_together(options.url, model, test.texts, 256) for model in MODELS.values()}
    name = f"compare-{int(time.time())}"
    at = f"{options.admin}/admin/experiments/{name}"
    arms = [{"name": arm, "model": model, "weight": 50} for arm, model in MODELS.items()]
    _, headers = send(at, "PUT", {"on": MODELS[BETTER], "arms": arms, "control": "counting"})
    send(f"{at}/start", "POST", {}, {"If-Match": headers["ETag"]})
    wrong = []

    def ask(job: tuple[int, str, str]) -> dict:
        place, arm, user = job
        body = {"text": test.texts[place], "model": MODELS[BETTER], "user_id": user}
        answer, _ = send(f"{options.url}/predict", "POST", body)
        if (answer["experiment"]["arm"], answer["model"]["name"]) != (arm, MODELS[arm]):
            wrong.append(f"user {user} is in {answer['experiment']}, and was answered by {answer['model']}, not {arm}")
        return {"prediction_id": answer["prediction_id"], "actual": test.labels[place]}

    jobs = [(place, arm, user) for place in range(len(test.texts)) for arm, user in users(name, place).items()]
    with ThreadPoolExecutor(CLIENTS) as pool:
        truths = list(pool.map(ask, jobs))
    # Late, and in another order than the answers.
    truths.reverse()
    for start in range(0, len(truths), 1_000):
        told, _ = send(f"{options.url}/feedback", "POST", truths[start:start + 1_000])
        refused = [one for one in told["results"] if one.get("outcome") not in ("stored", "waiting")]
        wrong += [f"feedback was refused: {one}" for one in refused[:5]]
    found, _ = send(f"{at}/results?details=true", "GET")
    print(found["verdict"])
    for arm in found["arms"]:
        model, feedback = MODELS[arm["name"]], arm["feedback"]
        right = sum(answer["prediction"] == label for answer, label in zip(alone[model], test.labels, strict=True))
        if (feedback["labelled"], feedback["correct"]) != (len(test.texts), right):
            wrong.append(f"{arm['name']}: {feedback['correct']} of {feedback['labelled']} right, where {model} has {right}")
        if arm["requests"] != len(test.texts) or arm["failed"]:
            wrong.append(f"{arm['name']} was given {arm['requests']} requests, and failed {arm['failed']}")
        if len(feedback["classes"]) != 77 or sum(cell["count"] for cell in feedback["confusion"]) != len(test.texts):
            wrong.append(f"{arm['name']}: {len(feedback['classes'])} classes, {len(feedback['confusion'])} cells")
        print(f"{arm['name']:9} {feedback['accuracy']:.4f} of {feedback['labelled']} "
              f"({feedback['interval'][0]:.4f} to {feedback['interval'][1]:.4f}), calibration error "
              f"{feedback['calibration_error']:.4f}, macro F1 {feedback['macro_f1']:.4f}, p50 {arm['milliseconds']['p50']} ms")
    if not found["verdict"].startswith(f"{BETTER} is better"):
        wrong.append(f"the verdict does not name {BETTER}: {found['verdict']}")
    if found["mismatch"] is not None or found["users_in_several_arms"]:
        wrong.append(f"users: mismatch {found['mismatch']}, {found['users_in_several_arms']} in several arms")
    _, headers = send(at, "GET")
    send(f"{at}/end", "POST", {"reason": "compared"}, {"If-Match": headers["ETag"]})
    for sentence in wrong[:20]:
        print(f"WRONG: {sentence}")
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
