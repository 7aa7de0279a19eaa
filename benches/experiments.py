#!/usr/bin/env python3
"""What experiments, drift and shadows cost: the same requests with and without them, in turns.

    python3 benches/experiments.py [--rounds 12] [--seconds 2] [--clients 8]

Version 1 of the model has no drift profile, version 2 is the same with one. Each round asks for a version, which no
experiment changes, and asks as users of an experiment between versions of the same kind. CPU time is the server's own,
from /proc; a difference is one of a round, and the median of all is shown. The shadow is measured with MiniLM, whose runs
take their time: answers of TF-IDF, at a fixed rate that leaves moments without work, with and without it.
"""

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

from nginx import BINARY, ROOT, Predictd, cpu, wire

NAME = "banking77-tfidf"
ADMIN = "/admin/experiments"


def models(place: Path, profile: Path | None) -> Path:
    """Both versions of TF-IDF, and MiniLM."""
    for version in ("1", "2"):
        shutil.copytree(ROOT / "models" / NAME / "1", place / NAME / version)
    if profile:
        shutil.copy(profile, place / NAME / "2/profile.json")
    shutil.copytree(ROOT / "models/banking77-minilm/1", place / "banking77-minilm/1")
    return place


def begin(server: Predictd, name: str, design: dict) -> None:
    """Makes an experiment and starts it."""
    admin = server.to_admin()
    for method, path, body, head in (("PUT", f"{ADMIN}/{name}", design, {}), ("POST", f"{ADMIN}/{name}/start", {}, {"If-Match": '"1"'})):
        if not (answer := admin.ask(method, path, body, head)).ok:
            sys.exit(f"{path}: {answer}")


def end(server: Predictd, name: str) -> None:
    """Ends it."""
    admin = server.to_admin()
    tag = admin.ask("GET", f"{ADMIN}/{name}").headers["ETag"]
    if not (answer := admin.ask("POST", f"{ADMIN}/{name}/end", {}, {"If-Match": tag})).ok:
        sys.exit(f"{name}: {answer}")


def client(address: str, number: int, extra: str, until: float, took: list[float], pause: float = 0) -> None:
    """One connection, one request after another, of a user and a text of its own; the texts come again."""
    asked, due = 0, time.perf_counter()
    with wire.connect(address) as stream:
        while time.monotonic() < until:
            asked += 1
            body = f'{{"text":"Where is my card number {asked % 500}?","user_id":"{number}-{asked}",{extra}}}'
            request = wire.post("/predict", body).replace(b"Connection: close\r\n", b"")
            begun, received = time.perf_counter(), b""
            stream.sendall(request)
            while not wire.is_whole(received, False):
                received += wire.receive(stream) or sys.exit("a connection ended")
            took.append(time.perf_counter() - begun)
            if not received.startswith(b"HTTP/1.1 200 "):
                sys.exit(f"not answered: {received[:300]!r}")
            due += pause
            time.sleep(max(0, due - time.perf_counter()) if pause else 0)


def measure(server: Predictd, extra: str, options: argparse.Namespace, pause: float = 0) -> tuple[float, list[float]]:
    """CPU microseconds of the server a request, and the latencies."""
    took: list[float] = []
    before, until = cpu([server.process.pid]), time.monotonic() + options.seconds
    clients = 1 if pause else options.clients
    threads = [threading.Thread(target=client, args=(server.address, number, extra, until, took, pause)) for number in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return (cpu([server.process.pid]) - before) / len(took) * 1e6, took


def turns(server: Predictd, kinds: dict[str, str], options: argparse.Namespace) -> None:
    """CPU of each kind against the first, round by round."""
    for extra in kinds.values():
        measure(server, extra, options)
    rounds = []
    for number in range(options.rounds):
        order = list(kinds)[::1 if number % 2 else -1]
        taken = {kind: measure(server, kinds[kind], options) for kind in order}
        rounds.append({kind: figures[0] for kind, figures in taken.items()})
    first = next(iter(kinds))
    print(f"\n{options.clients} clients, {options.rounds} rounds of {options.seconds:g} s, CPU of the server, microseconds a request")
    for kind in kinds:
        differences = sorted(taken[kind] - taken[first] for taken in rounds)
        line = f"{kind:48} {statistics.median(taken[kind] for taken in rounds):8.1f}"
        if kind != first:
            line += f"   more: {statistics.median(differences):5.1f} ({differences[0]:.1f} to {differences[-1]:.1f})"
        print(line)


def shadows(server: Predictd, options: argparse.Namespace) -> None:
    """Latencies at a fixed rate, with a shadow that sees every text and without one."""
    design = {"on": NAME, "arms": [{"name": "own", "version": "1", "weight": 1},
                                   {"name": "shade", "model": "banking77-minilm", "version": "1", "shadow": True}]}
    rounds, extra = [], f'"model":"{NAME}"'
    for number in range(options.rounds):
        taken = {}
        for shadowed in (False, True)[::1 if number % 2 else -1]:
            name = f"shadow-{number}-{shadowed}".lower()
            if shadowed:
                begin(server, name, design)
            _, taken[shadowed] = measure(server, extra, options, pause=0.01)
            if shadowed:
                end(server, name)
        rounds.append(taken)
    shown = server.counted("predictd_shadow_items_total")
    seen = {outcome: sum(count for labels, count in shown.items() if f'outcome="{outcome}"' in labels) for outcome in ("agreed", "differed", "skipped", "failed")}
    print(f"\n1 client, 100 requests a second, a MiniLM shadow that sees each: {seen}")
    for label, part in (("p50", 0.5), ("p99", 0.99)):
        quantile = lambda took: sorted(took)[int(len(took) * part)] * 1e3  # noqa: E731
        without, with_it = ([quantile(taken[which]) for taken in rounds] for which in (False, True))
        ratios = sorted(b / a for a, b in zip(without, with_it))
        print(f"{label}, ms: {statistics.median(without):.3f} without, {statistics.median(with_it):.3f} with it: "
              f"{statistics.median(ratios):.2f} times ({ratios[0]:.2f} to {ratios[-1]:.2f})")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--seconds", type=float, default=2)
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--texts", type=Path, default=ROOT.parent / "shared/data/banking77/test.csv",
                        help="texts for the drift profile: a table with the columns text and category")
    options = parser.parse_args()
    print(f"{BINARY.relative_to(ROOT)}, load average {os.getloadavg()[0]:.1f}")
    with tempfile.TemporaryDirectory() as place:
        profile = Path(place) / "profile.json" if options.texts.exists() else None
        if profile:
            subprocess.run([BINARY, "profile", ROOT / "models" / NAME / "1", "--texts", options.texts, "--out", profile,
                            "--onnxruntime", ROOT / "target/onnxruntime"], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        log = ("--log", "off,predictd=info,predictd::http=off")
        with Predictd(*log, models=models(Path(place) / "models", profile)) as server:
            arms = [{"name": name, "model": NAME, "version": "2", "weight": 50} for name in ("a", "b")]
            begin(server, "both", {"on": NAME, "arms": arms})
            kinds = {"a version": f'"model":"{NAME}","version":"1"'}
            if profile:
                kinds["a version with a drift profile"] = f'"model":"{NAME}","version":"2"'
            kinds["an experiment" + (" and a drift profile" if profile else "")] = f'"model":"{NAME}"'
            turns(server, kinds, options)
            end(server, "both")
            shadows(server, options)


if __name__ == "__main__":
    main()
