"""Clients that each send their next request when they have their answer.

The program of benches/serving is used where it is there: a GPU answers faster than clients in Python can ask. Else
processes of this one do, and the result says how busy they were: near 1, they were measured and not the server.
"""

import contextlib
import http.client
import json
import multiprocessing
import os
import statistics
import subprocess
import time
from pathlib import Path

WARM_UP = 1.0


def percentile(sorted_values: list[float], share: float) -> float:
    """The value that this share of them does not exceed."""
    return sorted_values[min(len(sorted_values) - 1, int(share * len(sorted_values)))] if sorted_values else float("nan")


def client(address: str, lines: list[dict], until: float, first: int, step: int, sink) -> None:
    """One client; its latencies, texts and failures go into the pipe."""
    connection = http.client.HTTPConnection(address, timeout=120)
    latencies, texts, failures, at = [], 0, 0, first
    while time.perf_counter() < until:
        request = lines[at % len(lines)]
        at += step
        start = time.perf_counter()
        try:
            connection.request("POST", request["path"], request["body"], {"Content-Type": "application/json"})
            answer = connection.getresponse()
            answer.read()
            good = answer.status == 200
        except (OSError, http.client.HTTPException):
            connection.close()
            good = False
        if good:
            latencies.append(time.perf_counter() - start)
            texts += request["texts"]
        else:
            failures += 1
    sink.send((latencies, texts, failures, time.process_time()))


def in_python(address: str, requests: Path, clients: int, seconds: float) -> dict:
    """The load, by processes of this program."""
    lines = [json.loads(line) for line in requests.read_text(encoding="utf-8").splitlines()]
    context = multiprocessing.get_context("fork")
    start, pipes, processes = time.perf_counter(), [], []
    for number in range(clients):
        ours, theirs = context.Pipe(False)
        process = context.Process(target=client, args=(address, lines, start + seconds, number, clients, theirs))
        process.start()
        pipes.append(ours)
        processes.append(process)
    found = [pipe.recv() for pipe in pipes]
    took = time.perf_counter() - start
    for process in processes:
        process.join()
    latencies = sorted(latency for one in found for latency in one[0])
    texts, failures, cpu = (sum(one[place] for one in found) for place in (1, 2, 3))
    return {"texts_per_s": texts / took, "p50_ms": percentile(latencies, 0.5) * 1e3, "p99_ms": percentile(latencies, 0.99) * 1e3,
            "mean_ms": statistics.fmean(latencies) * 1e3 if latencies else None, "texts": texts, "failures": failures,
            "generator": "python", "generator_busy": cpu / took / min(clients, os.cpu_count() or 1)}


def by_program(program: Path, address: str, requests: Path, clients: int, seconds: float) -> dict:
    """The load, by `closed_loop` of benches/serving."""
    command = [str(program), "--bench", "closed_loop", address, str(requests), str(clients), str(seconds)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=os.environ | {"ORT_DISABLE_TELEMETRY": "1"})
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(command)} failed: {done.stderr[-300:]}")
    found = json.loads(done.stdout.strip().splitlines()[-1])
    wanted = ("texts_per_s", "p50_ms", "p99_ms", "texts", "failures")
    busy = found["generator_cpu_s"] / found["seconds"] / (os.cpu_count() or 1)
    return {name: found[name] for name in wanted} | {"generator": "closed_loop", "generator_busy": busy}


def measure(program: Path | None, address: str, requests: Path, clients: int, seconds: float, watch=contextlib.nullcontext()) -> dict:
    """Warms up, then measures, within `watch`."""
    def run(time_of_it: float) -> dict:
        if program is None:
            return in_python(address, requests, clients, time_of_it)
        return by_program(program, address, requests, clients, time_of_it)
    run(min(WARM_UP, seconds))
    with watch:
        return run(seconds)
