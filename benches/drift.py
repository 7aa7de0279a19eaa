#!/usr/bin/env python3
"""How well drift is told from chance: BANKING77's held-out questions, and traffic that is not like them.

    python3 benches/drift.py [--model banking77-minilm] [--splits 5] [--windows 10] [--odd 5] [--share 0.3]

For each split: a profile of one half of the 3,080 test questions (`predictd profile`), windows of 1,000 drawn from the
other half, then windows of which a share is from five intents only, or in other languages (foreign_questions.txt), each
followed by calm ones until the alarm is over. Answers come through `POST /batch_predict`, the verdicts from `/admin/drift`.
Exit code 1 if a calm window raises an alarm or an odd one does not; 3 where there is no BANKING77.
"""

import argparse
import csv
import json
import random
import re
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "models"))
from training import data  # noqa: E402

SEED = 20_261_125
# Exit status where there is no data.
NO_DATA = 3
# Calm windows that clear an alarm, and as many again for one that came late.
CALM = 4
SIGNALS = ("labels", "confidence", "lengths", "unknown")
BATCH = 500


class Server:
    """A server of one model with its profile."""

    def __init__(self, predictd: Path, models: Path, place: Path, window: int) -> None:
        self.log, self.window = place / "log", window
        command = [predictd, "serve", "--models", models, "--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0",
                   "--data-dir", place / "data", "--log-format", "json", "--drift-window", window]
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(list(map(str, command)), stderr=log, cwd=ROOT)
        for _ in range(600):
            said = self.log.read_text(encoding="utf-8")
            found = re.search(r'"message":"listening","address":"([^"]*)","admin":"([^"]*)"', said)
            if found and '"model version loaded"' in said:
                self.address, self.admin = found[1], found[2]
                return
            if self.process.poll() is not None:
                break
            time.sleep(0.1)
        self.stop()
        sys.exit(said)

    def stop(self) -> None:
        """Ends it."""
        self.process.terminate()
        self.process.wait()

    def ask(self, texts: list[str]) -> None:
        """All texts, in batches."""
        for start in range(0, len(texts), BATCH):
            body = json.dumps({"texts": texts[start:start + BATCH]}).encode()
            request = urllib.request.Request(f"http://{self.address}/batch_predict", body, {"Content-Type": "application/json"})
            with urllib.request.urlopen(request, timeout=60) as answer:
                results = json.load(answer)["results"]
            if any("error" in result for result in results):
                sys.exit(f"not answered: {next(result for result in results if 'error' in result)}")

    def window_of(self, texts: list[str]) -> dict[str, dict]:
        """What the window of these texts, which is full with them, is judged to be."""
        self.ask(texts)
        with urllib.request.urlopen(f"http://{self.admin}/admin/drift", timeout=10) as answer:
            (version,) = json.load(answer)["versions"]
        last = version["drift"]["windows"][-1]
        if (last["texts"], version["drift"]["open_texts"]) != (self.window, 0):
            sys.exit(f"the window does not hold what was asked: {last}")
        return {signal["signal"]: signal for signal in last["signals"]}


def raised(judged: dict[str, dict]) -> set[str]:
    """Signals whose window is over its threshold."""
    return {name for name, signal in judged.items() if signal["value"] >= signal["threshold"]}


def drifting(judged: dict[str, dict]) -> bool:
    """True while any signal says so."""
    return any(signal["level"] == "drifting" for signal in judged.values())


class Figures:
    """What was seen of one kind of traffic."""

    def __init__(self) -> None:
        self.windows, self.alarms = 0, 0
        self.by_signal = dict.fromkeys(SIGNALS, 0)
        # The largest distance in parts of its threshold, of each window.
        self.largest: list[float] = []

    def add(self, judged: dict[str, dict]) -> None:
        """One window more."""
        over = raised(judged)
        self.windows += 1
        self.alarms += bool(over)
        for signal in over:
            self.by_signal[signal] += 1
        self.largest.append(max(signal["value"] / signal["threshold"] for signal in judged.values()))

    def line(self, title: str) -> str:
        """For the table."""
        by_signal = ", ".join(f"{signal} {count}" for signal, count in self.by_signal.items() if count)
        return (f"{title:34} {self.alarms:4} of {self.windows:4}   {min(self.largest):.2f} to {max(self.largest):.2f}"
                f"   {by_signal or '-'}")


def split(options: argparse.Namespace, number: int, test: data.Split, foreign: list[str],
          found: dict[str, Figures]) -> float:
    """One split of the questions in halves; the share of the profile's texts that the model answers right."""
    chance = random.Random(SEED + number)
    rows = list(zip(test.texts, test.labels))
    chance.shuffle(rows)
    profiled, live = rows[:len(rows) // 2], rows[len(rows) // 2:]
    with tempfile.TemporaryDirectory() as directory:
        place = Path(directory)
        version = place / "models" / options.model / "1"
        shutil.copytree(ROOT / "models" / options.model / "1", version)
        texts = place / "profiled.csv"
        with texts.open("w", encoding="utf-8", newline="") as file:
            csv.writer(file).writerows([("text", "label"), *profiled])
        made = subprocess.run([options.predictd, "profile", version, "--texts", texts, "--json"], check=True,
                              capture_output=True, text=True)
        accuracy = json.loads(made.stdout)["accuracy"]
        server = Server(options.predictd, place / "models", place, options.texts)
        try:
            draw = lambda count: [text for text, _ in chance.choices(live, k=count)]  # noqa: E731
            for _ in range(options.windows):
                found["calm"].add(server.window_of(draw(options.texts)))
            odd = round(options.share * options.texts)

            def mixed(draw_odd: Callable[[int], list[str]]) -> list[str]:
                window = draw(options.texts - odd) + draw_odd(odd)
                chance.shuffle(window)
                return window

            for _ in range(options.odd):
                five = set(chance.sample(sorted(set(test.labels)), 5))
                of_five = [text for text, label in live if label in five]
                for name, source in (("five", of_five), ("foreign", foreign)):
                    found[name].add(server.window_of(mixed(lambda count, source=source: chance.choices(source, k=count))))
                    if not any(not drifting(server.window_of(draw(options.texts))) for _ in range(CALM)):
                        sys.exit(f"the alarm was not over after {CALM} calm windows")
        finally:
            server.stop()
    return accuracy["correct"] / accuracy["texts"]


def main() -> None:
    """Prints a table for each model."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    release = ROOT / "target/release/predictd"
    parser.add_argument("--predictd", type=Path, default=release if release.exists() else ROOT / "target/debug/predictd")
    parser.add_argument("--model", action="append", help="repeatable; default: the two of this repository")
    parser.add_argument("--splits", type=int, default=5)
    parser.add_argument("--windows", type=int, default=10, help="calm windows of each split")
    parser.add_argument("--odd", type=int, default=5, help="odd windows of each kind of each split")
    parser.add_argument("--share", type=float, default=0.3, help="share of odd texts in an odd window")
    parser.add_argument("--texts", type=int, default=1_000, help="texts of a window")
    options = parser.parse_args()
    try:
        folder = data.locate(None, ROOT.parent / "shared/data/banking77", ROOT / "target/models-work")
    except OSError as error:
        print(f"SKIPPED: BANKING77 is not here and cannot be downloaded: {error}", file=sys.stderr)
        sys.exit(NO_DATA)
    test = data.load(folder).test
    foreign = (ROOT / "benches/foreign_questions.txt").read_text(encoding="utf-8").splitlines()
    good = True
    for model in options.model or ["banking77-minilm", "banking77-tfidf"]:
        options.model = model
        found = {name: Figures() for name in ("calm", "five", "foreign")}
        accuracies = [split(options, number, test, foreign, found) for number in range(options.splits)]
        print(f"\n{options.model}, {options.splits} splits, windows of {options.texts}; the profiles' accuracy is "
              f"{min(accuracies):.4f} to {max(accuracies):.4f}")
        print(f"{'':34} {'alarms':>12}   {'of threshold':12}   signals")
        print(found["calm"].line("held-out questions"))
        print(found["five"].line(f"{options.share:.0%} from five intents"))
        print(found["foreign"].line(f"{options.share:.0%} in other languages"))
        good &= not found["calm"].alarms and all(found[odd].alarms == found[odd].windows for odd in ("five", "foreign"))
    sys.exit(0 if good else 1)


if __name__ == "__main__":
    main()
