"""No text gives a 5xx: random texts, made of what each model's own tokenizer knows and of what it cannot know.

    python tests/system/parity/hostile_texts.py --predictd target/debug/predictd models [OTHER_MODELS ...]

Each directory is served as `--models`. A version that is refused at load is named and passed over. Ends with status 1 if
an answer is a 5xx, an entry of a batch is, or the server ends. The same texts every time, unless --seed says otherwise.
"""

import argparse
import json
import random
import sys
import urllib.error
import urllib.request
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from served import ROOT, Served

# Characters that normalisers change, lengthen or drop, and such as no vocabulary has.
ODD = "ﷺﬃİıΣςßẞǅ𝒜Å\u0300\u0301\u0345\u200b\u200d\u2060\ufeff\u00a0\u3000\u0085\u2028\u202e\u00ad😀👨‍👩‍👧🇩🇪\U0010ffff\ufffe\ufdd0\x07\x1b\t\r\n ㍿㌀ｱﾞ가각"
LENGTHS = [1, 2, 5, 20, 100, 600, 4_000, 32_768]


def words_of(directory: Path) -> list[str]:
    """Tokens of every tokenizer in a directory, special and added ones first."""
    special, ordinary = [], []
    for path in sorted(directory.rglob("tokenizer.json")):
        try:
            described = json.loads(path.read_text(encoding="utf-8-sig"))
        except ValueError:
            continue
        special += [token["content"] for token in described.get("added_tokens", [])]
        vocabulary = described.get("model", {}).get("vocab", {})
        pieces = vocabulary if isinstance(vocabulary, dict) else [piece[0] for piece in vocabulary]
        ordinary += list(pieces)[:2_000]
    return special + ordinary or ["card"]


class Texts:
    """Random texts."""

    def __init__(self, words: list[str], seed: int) -> None:
        self.words, self.random = words, random.Random(seed)

    def piece(self) -> str:
        """A token, odd characters, or a character of any plane."""
        kind = self.random.randrange(8)
        if kind < 4:
            return self.random.choice(self.words[:40] if kind == 0 else self.words)
        if kind < 6:
            return "".join(self.random.choices(ODD, k=self.random.randrange(1, 6)))
        if kind == 6:
            return self.random.choice(ODD) * self.random.randrange(1, 200)
        return chr(self.random.choice([self.random.randrange(0x20, 0xd800), self.random.randrange(0xe000, 0x110000)]))

    def text(self) -> str:
        """A text of at most so many characters as the server takes."""
        length = self.random.choice(LENGTHS)
        if self.random.randrange(10) == 0:
            return (self.piece() * length)[:length]
        pieces, count = [], 0
        while count < length:
            pieces.append(self.piece() + self.random.choice(["", " ", " ", "\n"]))
            count += len(pieces[-1])
        return "".join(pieces)[:length]


def ask(address: str, path: str, body: dict) -> tuple[int, dict]:
    """Status and answer."""
    request = urllib.request.Request(f"http://{address}{path}", json.dumps(body).encode(), {"content-type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as refused:
        return refused.code, json.load(refused)


def try_model(address: str, name: str, texts: Texts, count: int) -> tuple[int, dict[int, int]]:
    """How many answers were 5xx, and how often each status came."""
    wrong, statuses = 0, {}
    for number in range(count):
        if number % 5 == 4:
            status, answer = ask(address, "/batch_predict", {"texts": [texts.text()[:2_000] for _ in range(8)], "model": name})
        else:
            pair = {"text_pair": texts.text()} if number % 5 == 3 else {}
            status, answer = ask(address, "/predict", {"text": texts.text(), "model": name, **pair})
        inner = [entry["error"]["status"] for entry in answer.get("results", []) if "error" in entry]
        for found in [status, *inner]:
            statuses[found] = statuses.get(found, 0) + 1
            if found >= 500:
                wrong += 1
                print(f"{name}: request {number}: {found}: {json.dumps(answer)[:300]}")
    return wrong, statuses


def try_directory(binary: Path, directory: Path, count: int, seed: int) -> int:
    """Serves a directory of models, and asks each that is ready."""
    served = Served(binary, directory, may_fail=True)
    wrong = 0
    try:
        with urllib.request.urlopen(f"http://{served.address}/models") as models:
            listed = json.load(models)["models"]
        for model in listed:
            if all(version["state"] != "ready" for version in model["versions"]):
                print(f"{model['name']:32} refused at load")
                continue
            failed, statuses = try_model(served.address, model["name"], Texts(words_of(directory / model["name"]), seed), count)
            print(f"{model['name']:32} {count} requests, statuses {dict(sorted(statuses.items()))}")
            wrong += failed
        if served.process.poll() is not None:
            print(f"{directory}: the server ended with {served.process.returncode}")
            wrong += 1
    finally:
        served.stop()
    return wrong


def main() -> None:
    """Tries all directories."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--predictd", type=Path, default=ROOT / "target/debug/predictd")
    parser.add_argument("--requests", type=int, default=150, help="for each model")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("models", type=Path, nargs="+")
    options = parser.parse_args()
    wrong = sum(try_directory(options.predictd, path, options.requests, options.seed) for path in options.models)
    print(f"{wrong} server errors")
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
