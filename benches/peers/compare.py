#!/usr/bin/env python3
"""Compares predictd with other servers of the same model, on the same machine, in turns.

    make bench-peers                                      everything that the README's tables say, about 40 minutes
    compare.py --workloads q --rounds 3 --seconds 4       a look
    compare.py --models DIR --model NAME                  another model: the float twin, for one

All servers are started once and paused but for the one that is measured. In each round all of them have their turn, in
a random order: a few seconds to warm up, then the measurement. What counts is the ratio to predictd inside a round; the
tables give medians over the rounds and, for ratios, 95 % intervals from a bootstrap. Before that every server answers
the same 200 texts, and labels and scores must be those of ONNX Runtime alone in Python: who answers otherwise is
reported and not measured. `limit` is the engine without a server: texts sorted by length, in runs of the best size.

Results are written to benches/results/DATE: every measurement, the tables, the machine.
"""

import argparse
import datetime
import json
import os
import platform
import random
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from model import Model
from servers import REPOSITORY, Predictd, Server, peers, variants
from tokenizers import Tokenizer
from workloads import BATCHES, LEAVING, MODELS, SEED, texts_of

SAME_SCORE = 1e-5
GATE_TEXTS = 200
WARM_UP = 2.0
# Without the Python servers: what they are asked in q, b and c tells enough.
OWN = {"a16", "a128", "a512", "d1", "d32", "d256", "e", "f", "g"}


def benchmark(*arguments: str) -> dict:
    """The last line, which is JSON, of a benchmark of benches/serving."""
    command = [str(benchmark_program()), "--bench", *arguments]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False,
                          env=os.environ | {"ORT_DISABLE_TELEMETRY": "1"})
    if done.returncode != 0:
        sys.exit(f"{' '.join(command)} failed:\n{done.stdout}\n{done.stderr}")
    return json.loads(done.stdout.strip().splitlines()[-1])


def benchmark_program() -> Path:
    """The program that `cargo bench --no-run` built last."""
    built = [path for path in (REPOSITORY / "target/release/deps").glob("serving-*") if path.suffix == ""]
    if not built:
        sys.exit("cargo bench --bench serving --no-run has not been run")
    return max(built, key=lambda path: path.stat().st_mtime)


def machine() -> dict:
    """What the figures depend on."""
    facts = {line.split(":", 1)[0].strip(): line.split(":", 1)[1].strip()
             for line in Path("/proc/cpuinfo").read_text().splitlines() if ":" in line}
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=REPOSITORY, capture_output=True, text=True,
                            check=False).stdout.strip()
    return {"processor": facts.get("model name", platform.machine()), "cores": os.cpu_count(),
            "python": platform.python_version(), "commit": commit, "load_before": os.getloadavg()[0]}


def stolen_and_foreign() -> tuple[float, float]:
    """Seconds that the host took away, and that all processes together used, so far."""
    values = [int(value) for value in Path("/proc/stat").read_text().splitlines()[0].split()[1:]]
    ticks = os.sysconf("SC_CLK_TCK")
    return values[7] / ticks, (values[0] + values[1] + values[2] + values[5] + values[6]) / ticks


def gate(server: Server, texts: list[str], reference: list[dict]) -> str | None:
    """Why a server's answers are not those of the model, if so."""
    for text, expected in zip(texts, reference):
        label, score = server.ask(text)
        if label != expected["label"] or abs(score - expected["score"]) > SAME_SCORE:
            return f"answers {label} ({score:.6f}) where the model says {expected['label']} ({expected['score']:.6f})"
    return None


def requests_file(server: Server, workload: str, texts: list[str], folder: Path) -> Path:
    """The requests of a workload, as this server wants them."""
    size, path = BATCHES.get(workload, 0), folder / f"{server.name}-{workload}.jsonl"
    with path.open("w") as file:
        if size == 0:
            for text in texts:
                body = server.body(text) | ({"model": MODELS[workload]} if workload in MODELS else {})
                file.write(json.dumps({"path": server.path, "body": json.dumps(body), "texts": 1}) + "\n")
        else:
            for start in range(0, len(texts) - size + 1, size):
                body = {"texts": texts[start:start + size]}
                file.write(json.dumps({"path": "/batch_predict", "body": json.dumps(body), "texts": size}) + "\n")
    return path


def measure(server: Server, requests: Path, arguments: argparse.Namespace, leaving: int) -> dict:
    """One turn of one server."""
    server.resume()
    load = ["closed_loop", server.address, str(requests), str(arguments.clients)]
    benchmark(*load, str(WARM_UP), str(leaving))
    cpu, (stolen, used) = server.cpu(), stolen_and_foreign()
    measured = benchmark(*load, str(arguments.seconds), str(leaving))
    cpu, (stolen_after, used_after) = server.cpu() - cpu, stolen_and_foreign()
    others = used_after - used - cpu - measured["generator_cpu_s"]
    measured |= {"cpu_s": cpu, "cpu_s_per_1000": cpu / max(measured["texts"], 1) * 1000,
                 "resident_mb": server.resident(), "stolen_s": stolen_after - stolen, "others_cpu_s": others}
    time.sleep(0.2)
    server.pause()
    return measured


def interval(ratios: list[float]) -> tuple[float, float, float]:
    """The median and its 95 % interval, by drawing rounds with replacement."""
    chance = random.Random(SEED)
    medians = sorted(statistics.median(chance.choices(ratios, k=len(ratios))) for _ in range(2_000))
    return statistics.median(ratios), medians[50], medians[1949]


def table(workload: str, rounds: list[dict[str, dict]], failed: dict[str, str]) -> str:
    """The medians of a workload, in Markdown."""
    lines = [f"### Workload {workload}", "",
             "| server | texts/s | p50 ms | p99 ms | CPU-s per 1,000 texts | resident MB | its CPU over predictd's "
             "(95 %) | predictd's texts/s over its (95 %) |", "|---|---|---|---|---|---|---|---|"]

    def middle(name: str, key: str) -> float:
        return statistics.median(each[name][key] for each in rounds)

    for name in sorted(rounds[0], key=lambda name: middle(name, "cpu_s_per_1000")):
        cells = [name, f"{middle(name, 'texts_per_s'):,.0f}"]
        if name == "limit":
            cells += ["", "", f"{middle(name, 'cpu_s_per_1000'):.3f}", ""]
        else:
            cells += [f"{middle(name, key):.1f}" for key in ("p50_ms", "p99_ms")]
            cells += [f"{middle(name, 'cpu_s_per_1000'):.3f}", f"{middle(name, 'resident_mb'):.0f}"]
        for ratio in (lambda each: each[name]["cpu_s_per_1000"] / each["predictd"]["cpu_s_per_1000"],
                      lambda each: each["predictd"]["texts_per_s"] / each[name]["texts_per_s"]):
            median, low, high = interval([ratio(each) for each in rounds])
            cells.append(f"{median:.2f} ({low:.2f} to {high:.2f})" if name != "predictd" else "")
        lines.append("| " + " | ".join(cells) + " |")
    lines += ["", *(f"{name} was not measured: it {why}." for name, why in failed.items())]
    failures = {name: sum(each[name].get("failures", 0) for each in rounds) for name in rounds[0]}
    lines += [f"{name}: {count} requests failed." for name, count in failures.items() if count]
    paddings = [each["predictd"]["padding"] for each in rounds if "padding" in each["predictd"]]
    if paddings:
        lines.append(f"predictd's padding: {statistics.median(paddings):.1%} of the tokens run.")
    return "\n".join(lines).rstrip() + "\n"


def header(arguments: argparse.Namespace, facts: dict, results: Path) -> None:
    """Says above the tables what they come from."""
    command = " ".join(["benches/peers/compare.py", *sys.argv[1:]])
    lines = [f"## {arguments.model}, {arguments.clients} clients, {arguments.rounds} rounds of {arguments.seconds:g} s",
             "", f"`{command}` at {facts['commit']}; {facts['processor']}, {facts['cores']} cores, the load from the "
             "same cores.", "", ""]
    with (results / f"{arguments.model}.md").open("a") as file:
        file.write("\n".join(lines))


def main() -> None:
    """Starts, checks, measures, writes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workloads", default="q,b,c", help="of q, a16, a128, a512, b, c, d1, d32, d256, e, f, g")
    parser.add_argument("--servers", default="", help="only these, with commas between [all]")
    parser.add_argument("--models", type=Path, default=REPOSITORY / "models", help="directory of models")
    parser.add_argument("--model", default="banking77-minilm", help="the model that is asked")
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--seconds", type=float, default=8.0, help="of each measurement")
    parser.add_argument("--clients", type=int, default=32)
    parser.add_argument("--results", type=Path, help="folder for the results [benches/results/DATE]")
    arguments = parser.parse_args()
    workloads = arguments.workloads.split(",")
    results = arguments.results or REPOSITORY / "benches/results" / datetime.date.today().isoformat()
    results.mkdir(parents=True, exist_ok=True)
    version = arguments.models.resolve() / arguments.model / "1"
    own = variants(arguments.models.resolve(), arguments.model, 18_400)
    servers: list[Server] = [*own, *(peers(version, 18_500) if set(workloads) - OWN else [])]
    chosen = set(arguments.servers.split(",")) - {""}
    servers = [server for server in servers if not chosen or server.name in chosen | {"predictd"}]
    tokenizer, log = Tokenizer.from_file(str(version / "tokenizer.json")), Path(tempfile.mkdtemp())
    facts, failed, tables = machine(), {}, []
    try:
        texts = texts_of("q", tokenizer)[:GATE_TEXTS]
        model = Model(str(version), 1)
        reference = [model.predict([text])[0] for text in texts]
        for server in servers:
            try:
                server.start(log / f"{server.name}.log")
                why = gate(server, texts, reference)
            except (RuntimeError, OSError) as error:
                why = str(error)
            if why is not None:
                failed[server.name] = why
                print(f"!! {server.name} is left out: it {why}")
                server.stop() if server.process else None
            else:
                server.pause()
        servers = [server for server in servers if server.name not in failed]
        header(arguments, facts, results)
        for workload in workloads:
            tables.append(run(workload, servers, tokenizer, version, arguments, log, results, failed))
            # Kept as soon as it is there: the next one takes minutes.
            with (results / f"{arguments.model}.md").open("a") as file:
                file.write(tables[-1] + "\n")
    finally:
        for server in servers:
            if server.process is not None:
                server.stop()
    facts["load_after"] = os.getloadavg()[0]
    (results / f"{arguments.model}-machine.json").write_text(json.dumps(facts, indent=1) + "\n")
    print("\n" + "\n".join(tables))


def run(workload: str, servers: list[Server], tokenizer: Tokenizer, version: Path, arguments: argparse.Namespace,
        folder: Path, results: Path, failed: dict[str, str]) -> str:
    """All rounds of a workload."""
    texts = texts_of(workload, tokenizer)
    (folder / "texts.json").write_text(json.dumps(texts))
    taking_part = [server for server in servers if workload not in OWN or isinstance(server, Predictd)]
    if workload != "e":
        taking_part = [server for server in taking_part if server.name != "predictd-cache"]
    files = {server.name: requests_file(server, workload, texts, folder) for server in taking_part}
    order: list[Server | None] = [*taking_part, None]
    rounds, chance = [], random.Random(SEED)
    directory = str(REPOSITORY / "models" / MODELS[workload] / "1") if workload in MODELS else str(version)
    for number in range(arguments.rounds):
        chance.shuffle(order)
        one: dict[str, dict] = {}
        for server in order:
            if server is None:
                one["limit"] = benchmark("limit", directory, str(folder / "texts.json"), str(arguments.seconds))
                continue
            one[server.name] = measure(server, files[server.name], arguments, LEAVING.get(workload, 0))
            if isinstance(server, Predictd) and server.name == "predictd":
                server.resume()
                one[server.name]["padding"] = server.padding(MODELS.get(workload, arguments.model))
                server.pause()
        rounds.append(one)
        with (results / f"{arguments.model}.jsonl").open("a") as file:
            file.write(json.dumps({"workload": workload, "round": number, "measured": one}) + "\n")
        shown = ", ".join(f"{name} {one[name]['texts_per_s']:.0f}/s {one[name]['cpu_s_per_1000']:.2f}" for name in one)
        print(f"{workload} {number + 1}/{arguments.rounds}: {shown}", flush=True)
    return table(workload, rounds, failed if workload not in OWN else {})


if __name__ == "__main__":
    main()
