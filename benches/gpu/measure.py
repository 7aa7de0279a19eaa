#!/usr/bin/env python3
"""Measures predictd on a GPU: same answers as a CPU, throughput, latency, and how much of the GPU that is.

    measure.py --predictd PROGRAM --onnxruntime DIR --models DIR --fp32 NAME --fp16 NAME --texts test.csv --results DIR

No network is needed. `DIR` of --onnxruntime has the GPU build (`make onnxruntime-cuda`); CUDA's libraries are the
system's, or those of --cuda-libraries. The models: `make float-twin`, then `half.py` beside this file. With --generator
the program of benches/serving sends the load. PyTorch is measured where it is installed. What could not be measured is
named, and the exit code is 1 if something promised was measured and is not so, or if a step failed.

Results are written after every step. Where the time for one command is bounded, do one after the other: --only server,
--only bench, --only binding, --only torch, with the same --results.

--smoke --device cpu goes through everything in a minute, to show that this program works. Its figures mean nothing.
"""

import argparse
import http.client
import importlib.util
import json
import os
import re
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import load
import report
import texts as made
from server import NotStarted, Server

LENGTHS, CLIENTS = (16, 128, 512), (1, 32, 256)
STEPS = ("server", "bench", "binding", "torch")
# By how much scores may differ from those of a CPU.
TOLERANCE = {"fp32": 1e-3, "fp16": 1e-2}
# Texts of requests of several.
BATCH = 256
PEER_PATIENCE = 120


class Watch(threading.Thread):
    """Looks at the metrics of the server's GPUs while something is measured."""

    def __init__(self, server: Server, device: str):
        super().__init__(daemon=True)
        self.server, self.seen, self.over = server, [], threading.Event()
        # Others of the machine may be busy with something else. `cuda` is the first.
        self.gpus = set((device.partition(":")[2] or "0").split(","))

    def run(self) -> None:
        while not self.over.wait(0.25):
            found = self.server.metrics()
            own = {series: value for series, value in found.items() if any(f'gpu="{number}"' in series for number in self.gpus)}
            pick = {name: [value for series, value in own.items() if series.startswith(f"predictd_gpu_{name}") and (name != "memory_bytes" or 'state="used"' in series)]
                    for name in ("utilisation_ratio", "power_watts", "memory_bytes")}
            self.seen.append({name: statistics.fmean(values) for name, values in pick.items() if values})

    def __enter__(self) -> "Watch":
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.over.set()
        self.join()

    def means(self) -> dict | None:
        """The mean of each; nothing where there is no GPU."""
        names = {name for one in self.seen for name in one}
        return {name: statistics.fmean(one[name] for one in self.seen if name in one) for name in sorted(names)} or None


def timings(server: Server, some: list[str]) -> dict:
    """What one client's texts take beside tokenising and their run, by the server's own clock: medians in ms."""
    over, total = [], []
    for text in some:
        _, _, headers = server.ask("POST", "/predict", {"text": text}, {"Server-Timing": "*"})
        header = {name.lower(): value for name, value in headers.items()}["server-timing"]
        parts = {name: float(number) for name, number in re.findall(r"([a-z]+);[^,]*?dur=([0-9.]+)", header)}
        total.append(parts["total"])
        over.append(parts["total"] - parts.get("tokenize", 0.0) - parts.get("inference", 0.0))
    return {"total_ms": statistics.median(total), "http_and_queue_ms": statistics.median(over)}


def parity(expected: list[dict], found: list[dict], tolerance: float) -> dict:
    """How two devices' answers to the same texts compare."""
    labels = sum(a["prediction"] == b["prediction"] for a, b in zip(expected, found))
    def scores(answer: dict) -> list[float]:
        values = answer["probabilities"]
        return list(values.values()) if isinstance(values, dict) else values
    most = max(abs(x - y) for a, b in zip(expected, found) for x, y in zip(scores(a), scores(b)))
    same = labels == len(expected) == len(found)
    return {"texts": len(expected), "same_labels": labels, "largest_difference": most, "tolerance": tolerance, "holds": same and most <= tolerance}


def flops_of_a_token(folder: Path, length: int) -> float:
    """Of the matrix products of a BERT: layers, and attention, which grows with the length."""
    config = json.loads((folder / "config.json").read_text())
    width, inner, layers = config["hidden_size"], config["intermediate_size"], config["num_hidden_layers"]
    return layers * (2 * (4 * width * width + 2 * width * inner) + 4 * length * width)


class Measurement:
    """All of it, and what was left out."""

    def __init__(self, options: argparse.Namespace, place: Path):
        self.options, self.place = options, place
        self.lengths = (16,) if options.smoke else LENGTHS
        self.clients = (1, 4) if options.smoke else CLIENTS
        self.found: dict = {"device": options.device, "machine": report.machine(options), "smoke": options.smoke}
        if options.only and options.results and (options.results / "gpu.json").exists():
            # Steps that were done before stay.
            self.found = json.loads((options.results / "gpu.json").read_text()) | self.found
        self.skipped: list[str] = []
        self.failed: list[str] = []

    def skip(self, what: str) -> None:
        """Says loudly that something is not measured."""
        print(f"!! SKIPPED: {what}", file=sys.stderr)
        self.skipped.append(what)

    def step(self, what: str, do) -> None:
        """Does something, and keeps what there is. What fails takes nothing else with it."""
        try:
            do()
        except (NotStarted, RuntimeError, OSError, ValueError, KeyError, http.client.HTTPException, subprocess.SubprocessError) as error:
            self.skip(f"{what}: {type(error).__name__}: {error}")
            self.failed.append(what)
        self.ceiling()
        self.found["promises"], self.found["skipped"] = report.promises(self.found), self.skipped
        if self.options.results:
            self.options.results.mkdir(parents=True, exist_ok=True)
            (self.options.results / "gpu.json").write_text(json.dumps(self.found, indent=1) + "\n")
            (self.options.results / "gpu.md").write_text(report.table(self.found))

    def server(self, model: str, device: str) -> Server:
        """A server with this model on this device."""
        chosen = ["--device", device]
        if self.options.cuda_libraries and device != "cpu":
            chosen += ["--cuda-libraries", str(self.options.cuda_libraries)]
        models = self.place / model
        if not models.exists():
            models.mkdir()
            (models / model).symlink_to(self.options.models / model)
        return Server(self.options.predictd, self.options.onnxruntime, models, model, chosen)

    def run(self) -> None:
        """Measures everything, a model at a time."""
        questions = made.of_file(self.options.texts)
        questions = questions[:200] if self.options.smoke else questions
        with self.server(self.options.fp32, "cpu") as server:
            expected = server.answers(questions)
            words = made.of_one_token(server, questions)
        self.kinds = {str(length): made.of_length(words, length, 64 if self.options.smoke else 4096) for length in self.lengths}
        steps = self.options.only or STEPS
        for precision, model in (("fp32", self.options.fp32), ("fp16", self.options.fp16)):
            if not model:
                self.skip(f"{precision}: no model is named")
                continue
            found = self.found.setdefault(precision, {"model": model, "facts": None, "parity": None, "one_client": None, "load": [], "bench": None, "binding": None})
            if "server" in steps:
                found.update(facts=None, parity=None, one_client=None, load=[])
                self.step(f"{model} on {self.options.device}", lambda: self.of_model(found, precision, questions, expected))
            if "bench" in steps:
                found["bench"] = None
                self.step(f"bare ONNX Runtime with {model}", lambda: found.update(bench=self.bench(model)))
            if "binding" in steps:
                found["binding"] = None
                self.step(f"bound tensors and CUDA graphs with {model}", lambda: found.update(binding=self.binding(model)))
        if "torch" in steps:
            self.found = {name: value for name, value in self.found.items() if name not in ("torch", "fastapi")}
            self.step("PyTorch", self.torch)

    def of_model(self, found: dict, precision: str, questions: list[str], expected: list[dict]) -> None:
        """One model on the device."""
        with self.server(found["model"], self.options.device) as server:
            facts = server.facts()
            found["facts"] = {name: facts.get(name) for name in ("device", "fallback", "on_gpu")}
            found["parity"] = parity(expected, server.answers(questions), TOLERANCE[precision])
            found["one_client"] = timings(server, questions[:20 if self.options.smoke else 200])
            cases = [({"tokens": int(length), "clients": clients}, some, 0) for length, some in self.kinds.items() for clients in self.clients]
            cases += [({"tokens": int(length), "clients": 4, "batch": BATCH}, some, BATCH) for length, some in self.kinds.items()]
            cases.append(({"tokens": "questions", "clients": self.clients[-1]}, questions, 0))
            for case, some, batch in cases:
                what = f"{server.model}: {case}"
                self.step(what, lambda: found["load"].append(self.load(server, case, some, batch)))

    def load(self, server: Server, case: dict, some: list[str], batch: int) -> dict:
        """One load, with the GPU looked at meanwhile."""
        file = made.requests(some, self.place / "requests.jsonl", batch)
        watch = Watch(server, self.options.device)
        found = load.measure(self.options.generator, server.address, file, case["clients"], self.options.seconds, watch)
        found = case | found | {"gpu": watch.means()}
        print(f"{server.model}: {case} {found['texts_per_s']:.0f} texts/s, p50 {found['p50_ms']:.2f} ms, p99 {found['p99_ms']:.2f} ms", flush=True)
        return found

    def bench(self, model: str) -> dict | None:
        """The server against ONNX Runtime alone, in one process: `predictd bench`."""
        lines = self.place / "questions.txt"
        lines.write_text("\n".join(text.replace("\n", " ") for text in made.of_file(self.options.texts)[:2_000]))
        command = [str(self.options.predictd), "bench", model, "--models", str(self.place / model), "--onnxruntime", str(self.options.onnxruntime),
                   "--device", self.options.device, "--texts", str(lines), "--clients", str(self.clients[-1]), "--json", "--latency-target", "1s",
                   "--seconds", "0.2" if self.options.smoke else str(min(10.0, self.options.seconds * 2))]
        environment = {name: value for name, value in os.environ.items() if not name.startswith("PREDICTD_")} | {"PREDICTD_MARKUP": "allow"}
        if self.options.cuda_libraries:
            environment["PREDICTD_CUDA_LIBRARIES"] = str(self.options.cuda_libraries)
        done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment, cwd=self.place)
        if done.returncode != 0:
            raise RuntimeError(f"predictd bench ended with {done.returncode}: {done.stderr.strip()[-300:]}")
        found = json.loads(done.stdout.strip().splitlines()[-1])
        return {"share": found["share"], "limit_texts_per_s": found["limit"]["texts_per_second"], "server_texts_per_s": found["best"]["texts_per_second"], "options": found["options"]}

    def binding(self, model: str) -> list[dict] | None:
        """Whether bound tensors and CUDA graphs would pay."""
        if not all(importlib.util.find_spec(name) for name in ("onnxruntime", "numpy")):
            self.skip(f"bound tensors and CUDA graphs with {model}: onnxruntime is not installed in Python")
            return None
        limits = ["--seconds", "0.3", "--shapes", "2"] if self.options.smoke else ["--seconds", str(self.options.seconds)]
        command = [sys.executable, str(Path(__file__).with_name("binding.py")), str(self.options.models / model / "1" / "model.onnx")]
        done = subprocess.run([*command, "--device", self.options.device, *limits], capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise RuntimeError(done.stderr.strip()[-300:])
        return json.loads(done.stdout.strip().splitlines()[-1])

    def torch(self) -> None:
        """PyTorch on the same texts, offline and behind FastAPI."""
        program = [sys.executable, str(Path(__file__).with_name("torch_side.py")), str(self.options.models / self.options.fp32 / "1"), "--device", self.options.device]
        if not all(importlib.util.find_spec(name) for name in ("torch", "transformers", "tokenizers")):
            self.skip("PyTorch, and the ceiling of matrix products: torch, transformers and tokenizers are not installed")
            return
        kinds = self.place / "kinds.json"
        kinds.write_text(json.dumps(self.kinds))
        size = ["--size", "256"] if self.options.smoke else []
        done = subprocess.run([*program, "--texts", str(kinds), "--seconds", str(self.options.seconds), *size], capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise RuntimeError(done.stderr.strip()[-300:])
        self.found["torch"] = json.loads(done.stdout.strip().splitlines()[-1])
        if not all(importlib.util.find_spec(name) for name in ("fastapi", "uvicorn")):
            self.skip("PyTorch behind FastAPI: fastapi and uvicorn are not installed")
            return
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        peer = subprocess.Popen([*program, "--serve", str(port)])
        try:
            until(lambda: socket.create_connection(("127.0.0.1", port), 1).close(), PEER_PATIENCE)
            self.found["fastapi"] = []
            for length, some in self.kinds.items():
                for clients in self.clients:
                    file = made.requests(some, self.place / "requests.jsonl")
                    one = load.measure(self.options.generator, f"127.0.0.1:{port}", file, clients, self.options.seconds)
                    self.found["fastapi"].append({"tokens": int(length), "clients": clients} | one)
        finally:
            peer.kill()
            peer.wait()

    def ceiling(self) -> None:
        """Tokens a second over those that the matrix products alone would allow, measured in this run."""
        tflops = self.found.get("torch", {}).get("tflops")
        if not tflops:
            return
        for precision in ("fp32", "fp16"):
            for case in self.found.get(precision, {}).get("load", []):
                if isinstance(case["tokens"], int) and precision in tflops:
                    most = tflops[precision] * 1e12 / flops_of_a_token(self.options.models / self.options.fp32 / "1", case["tokens"])
                    case["tokens_per_s"] = case["texts_per_s"] * case["tokens"]
                    case["of_ceiling"] = case["tokens_per_s"] / most


def until(check, seconds: float) -> None:
    """Waits until something does not fail any more."""
    end = time.monotonic() + seconds
    while True:
        try:
            return check()
        except OSError:
            if time.monotonic() > end:
                raise
            time.sleep(0.2)


def main() -> None:
    """Checks the options, measures, writes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--predictd", type=Path, required=True)
    parser.add_argument("--onnxruntime", type=Path, required=True, help="directory of the library")
    parser.add_argument("--cuda-libraries", type=Path, help="directory of CUDA's libraries or of NVIDIA's wheels")
    parser.add_argument("--models", type=Path, required=True, help="directory of models")
    parser.add_argument("--fp32", required=True, metavar="NAME")
    parser.add_argument("--fp16", metavar="NAME")
    parser.add_argument("--texts", type=Path, required=True, help="CSV with a column text, or a text a line")
    parser.add_argument("--device", default="cuda:0")
    parser.add_argument("--generator", type=Path, help="the program of benches/serving, target/release/deps/serving-*")
    parser.add_argument("--seconds", type=float, default=5.0, help="of each measurement")
    parser.add_argument("--results", type=Path, help="folder for gpu.json and gpu.md [default: none is written]")
    parser.add_argument("--smoke", action="store_true", help="a minute, for this program's own sake")
    parser.add_argument("--only", type=lambda typed: typed.split(","), help=f"steps to do, of {','.join(STEPS)} [default: all]")
    options = parser.parse_args()
    if unknown := set(options.only or ()) - set(STEPS):
        parser.error(f"--only: {', '.join(sorted(unknown))} is none of {', '.join(STEPS)}")
    for name in ("predictd", "onnxruntime", "cuda_libraries", "models", "texts", "generator"):
        path = getattr(options, name)
        setattr(options, name, path and path.resolve())
    if options.smoke:
        options.seconds = min(options.seconds, 0.5)
    with tempfile.TemporaryDirectory(prefix="predictd-gpu-") as place:
        measurement = Measurement(options, Path(place))
        measurement.run()
    found = measurement.found
    print(report.table(found))
    broken = [promise["what"] for promise in found["promises"] if not promise["holds"]]
    if measurement.failed:
        sys.exit("failed: " + "; ".join(measurement.failed))
    if broken and not options.smoke:
        sys.exit("not so: " + "; ".join(broken))


if __name__ == "__main__":
    main()
