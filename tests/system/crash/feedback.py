#!/usr/bin/env python3
"""A server is killed at random moments while clients tell it true labels and change the weights of an experiment: what
was acknowledged is kept, once.

    python3 tests/system/crash/feedback.py --predictd target/debug/predictd [--kills 60] [--seed 1]
    tests/with-postgres python3 tests/system/crash/feedback.py --postgres

The client tells one label after another, of answers that it has, corrects some, and tells some twice. What got no answer
may have been kept or not. With --postgres the database stands still for a third of the time, at starts too: what is told
then waits on disk. In the end every answer has the label that was acknowledged last, or one that got no answer after it,
the experiment's results count each of them once, and its weights are those of the last change that was acknowledged, or
of one since that got no answer.
"""

import argparse
import base64
import random
import signal
import sys
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path

import tiny_model
from postgres import Postgres
from served import NAME, ROOT, Lost, Server, Wire

ANSWERS = 300
PATH = "/admin/experiments/ab"
# The longest that a server lives, in seconds.
LIFE = 0.2
PATIENCE = 30


class Teller:
    """Tells labels, and knows what must have been kept."""

    def __init__(self, chance: random.Random) -> None:
        self.chance, self.labels, self.ids = chance, [], []
        self.arms: Counter[str] = Counter()
        # For each answer the labels acknowledged last, and those told since that got no answer.
        self.known: dict[int, tuple[list[str] | None, list[list[str]]]] = {}
        self.counted: Counter[str] = Counter()
        self.wrong: list[str] = []

    def ask(self, server: Server) -> None:
        """Gets answers to tell something about."""
        wire = server.to_data()
        one, other = wire.ask("GET", f"/models/{NAME}").json()["versions"][0]["labels"]
        # Their order is kept: so there are five different things to tell.
        self.labels = [[one], [other], [one, other], [other, one], []]
        for number in range(ANSWERS):
            answer = wire.ask("POST", "/predict", {"text": str(2 + number), "user_id": str(number)}).json()
            self.arms[answer["experiment"]["arm"]] += 1
            self.ids.append(answer["prediction_id"])
        self.known = {number: (None, []) for number in range(ANSWERS)}

    def work(self, wire: Wire) -> None:
        """Tells one thing after another, until no answer comes."""
        try:
            while True:
                told = [(self.chance.randrange(ANSWERS), self.chance.choice(self.labels)) for _ in range(self.chance.randint(1, 20))]
                for number, label in told:
                    # Until there is an answer it may be so.
                    self.known[number][1].append(label)
                answer = wire.ask("POST", "/feedback", [{"prediction_id": self.ids[number], "actual": label} for number, label in told])
                self.answered(told, answer)
        except Lost:
            self.counted["without an answer"] += 1

    def answered(self, told: list[tuple[int, list[str]]], answer) -> None:
        if not answer.ok:
            # It refuses while it stops only: nothing of it, or all of it, may have been kept.
            self.counted[answer.problem()] += 1
            return
        for (number, label), result in zip(told, answer.json()["results"], strict=True):
            if "error" in result:
                self.wrong.append(f"{number} {label}: {result}")
                continue
            self.counted[result["outcome"]] += 1
            self.known[number] = (label, [])

    def compare(self, kept: list[dict], receipts: dict[int, str]) -> None:
        """Holds what is kept against what is known."""
        found: dict[str, list[list[str]]] = {}
        for one in kept:
            found.setdefault(one["id"], []).append(one["actual"])
        for number, (acknowledged, open_) in self.known.items():
            labels = found.pop(receipts[number], [])
            if len(labels) > 1:
                self.wrong.append(f"{number}: kept {len(labels)} times")
            if (labels or [None])[0] not in [acknowledged, *open_]:
                self.wrong.append(f"{number}: {labels} is kept, of {[acknowledged, *open_]}")
        if found:
            self.wrong.append(f"nobody told anything of {list(found)}")


class Designer:
    """Changes the weights of an experiment, and knows what they must be."""

    def __init__(self, chance: random.Random) -> None:
        # The weight acknowledged last, and those since of which nobody knows whether they were recorded.
        self.chance, self.weight, self.open = chance, 0.5, []
        self.counted: Counter[str] = Counter()
        self.wrong: list[str] = []

    @staticmethod
    def design(weight: float) -> dict:
        """Two arms of the same version."""
        arm = {"version": "1", "model": NAME}
        return {"on": NAME, "arms": [{"name": "old", "weight": 1 - weight} | arm, {"name": "new", "weight": weight} | arm]}

    def begin(self, server: Server) -> None:
        """Makes the experiment and starts it."""
        wire = server.to_admin()
        for method, path, body, head in (("PUT", PATH, self.design(self.weight), {}), ("POST", f"{PATH}/start", {}, {"If-Match": '"1"'})):
            if not (answer := wire.ask(method, path, body, head)).ok:
                sys.exit(f"the experiment could not be begun: {answer}")

    def work(self, wire: Wire) -> None:
        """Makes one change after another, until no answer comes."""
        try:
            while True:
                seen = wire.ask("GET", PATH)
                weight = self.chance.randrange(1, 100) / 100
                self.open.append(weight)
                answer = wire.ask("PUT", PATH, self.design(weight), {"If-Match": seen.headers["ETag"]})
                if answer.ok:
                    # A change whose answer is lost keeps others out until it is recorded or given up: it came before.
                    self.weight, self.open = weight, []
                    self.counted["changes of weights"] += 1
                elif answer.status == 409 and "were changed" in answer.json()["detail"]:
                    self.open.pop()
                    return
                elif answer.status != 503:
                    self.wrong.append(f"a change of weights: {answer}")
                    return
        except Lost:
            pass

    def look(self, wire: Wire) -> None:
        """Holds what is recorded against what is known."""
        found = wire.ask("GET", PATH).json()
        weight = found["arms"][1]["weight"]
        if weight not in [self.weight, *self.open]:
            self.wrong.append(f"the weight is {weight}, of {[self.weight, *self.open]}")
        self.weight = weight
        if found["phases"][-1]["weights"]["new"] != weight:
            self.wrong.append(f"the weight is {weight}, and the phase is {found['phases'][-1]}")


def compare_results(server: Server, kept: list[dict], arms: Counter) -> list[str]:
    """The results of the first phase, in which all answers were given, are those of what is kept."""
    found = server.to_admin().ask("GET", f"{PATH}/results?phase=1").json()
    wrong = []
    for arm in found["arms"]:
        own = [one for one in kept if one["arm"] == f"ab/1/{arm['name']}"]
        expected = (len(own), sum(one["correct"] for one in own))
        if (arm["feedback"]["labelled"], arm["feedback"]["correct"]) != expected:
            wrong.append(f"arm {arm['name']} has {arm['feedback']}, where {expected} are kept")
        if arm["requests"] > arms[arm["name"]]:
            wrong.append(f"arm {arm['name']} counts {arm['requests']} requests of {arms[arm['name']]}")
    return wrong


def identity(prediction: str) -> str:
    """The id in a receipt: 16 bytes behind the format and the id of the key."""
    return base64.urlsafe_b64decode(prediction + "=" * (-len(prediction) % 4))[5:21].hex()


def exported(server: Server) -> list[dict]:
    """Everything that is kept."""
    wire, kept, after = server.to_admin(), [], ""
    while True:
        part = wire.ask("GET", f"/admin/feedback{after}").json()
        kept += part["feedback"]
        if part["next"] is None:
            return kept
        after = f"?after={part['next']}"


def waiting(server: Server) -> float:
    """Bytes that wait on disk."""
    text = server.to_admin().ask("GET", "/metrics").body.decode()
    return next(float(line.split(" ")[1]) for line in text.splitlines() if line.startswith("predictd_feedback_spool_bytes "))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--predictd", type=Path, default=ROOT / "target/debug/predictd")
    parser.add_argument("--kills", type=int, default=60)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--postgres", action="store_true")
    args = parser.parse_args()
    chance = random.Random(args.seed)
    postgres = Postgres() if args.postgres else None
    with tempfile.TemporaryDirectory() as place:
        place = Path(place)
        tiny_model.write(place / "models" / NAME / "1", "1")
        options = ("--database", postgres.url) if postgres else ()
        server = Server(args.predictd, place / "models", place / "data", options).start()
        teller, designer, frozen = Teller(chance), Designer(random.Random(args.seed + 1)), 0
        designer.begin(server)
        teller.ask(server)
        server.kill()
        for kill in range(args.kills):
            away = postgres is not None and chance.random() < 1 / 3
            if away:
                postgres.freeze()
                frozen += 1
            server.start()
            clients = [threading.Thread(target=teller.work, args=(server.to_data(),)),
                       threading.Thread(target=designer.work, args=(server.to_admin(),))]
            if not away:
                designer.look(server.to_admin())
            for client in clients:
                client.start()
            time.sleep(chance.random() * LIFE)
            if postgres and not away and chance.random() < 1 / 3:
                postgres.freeze()
                away, frozen = True, frozen + 1
                time.sleep(chance.random() * LIFE)
            if kill % 5 == 4:
                server.process.send_signal(signal.SIGTERM)
                server.process.wait(60)
            else:
                server.kill()
            for client in clients:
                client.join()
            if away:
                postgres.thaw()
        server.start()
        end = time.monotonic() + PATIENCE
        while waiting(server) > 0 and time.monotonic() < end:
            time.sleep(0.05)
        if waiting(server) > 0:
            teller.wrong.append(f"{waiting(server)} bytes still wait")
        kept = exported(server)
        teller.compare(kept, {number: identity(prediction) for number, prediction in enumerate(teller.ids)})
        designer.look(server.to_admin())
        teller.wrong += designer.wrong + compare_results(server, kept, teller.arms)
        server.stop()
    told = ", ".join(f"{count} {what}" for what, count in sorted((teller.counted + designer.counted).items()))
    print(f"feedback: {args.kills} ends, the database stood still {frozen} times; {told}")
    for wrong in teller.wrong[:20]:
        print(f"  WRONG: {wrong}")
    if postgres and not teller.counted["waiting"]:
        sys.exit("nothing had to wait on disk: this has shown nothing")
    sys.exit(1 if teller.wrong else 0)


if __name__ == "__main__":
    main()
