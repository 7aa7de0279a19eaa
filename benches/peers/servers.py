"""The servers that are compared: how each is started, asked and read."""

import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from dataclasses import dataclass, field
from pathlib import Path

HERE = Path(__file__).resolve().parent
REPOSITORY = HERE.parent.parent
PEERS = REPOSITORY / "target" / "peers"
TICKS = os.sysconf("SC_CLK_TCK")


@dataclass
class Server:
    """A server that can be started, paused while others are measured, and asked for one text."""

    name: str
    command: list[str]
    port: int
    environment: dict[str, str] = field(default_factory=dict)
    folder: Path = HERE
    path: str = "/predict"
    process: subprocess.Popen | None = None

    def body(self, text: str) -> dict:
        """What is sent for one text."""
        return {"text": text}

    def answer(self, body: dict) -> tuple[str, float]:
        """The label and its score."""
        return body["label"], body["score"]

    @property
    def address(self) -> str:
        """Where it listens."""
        return f"127.0.0.1:{self.port}"

    def ask(self, text: str) -> tuple[str, float]:
        """One text's answer."""
        request = urllib.request.Request(
            f"http://{self.address}{self.path}", json.dumps(self.body(text)).encode(),
            {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=60) as response:
            return self.answer(json.load(response))

    def start(self, log: Path) -> None:
        """Starts it in a session of its own and waits until it answers."""
        with open(log, "ab") as output:
            self.process = subprocess.Popen(
                self.command, cwd=self.folder, env=os.environ | self.environment, stdin=subprocess.DEVNULL,
                stdout=output, stderr=output, start_new_session=True)
        end = time.monotonic() + 120
        while True:
            try:
                self.ask("Are you there?")
                return
            except (OSError, urllib.error.URLError) as error:
                if self.process.poll() is not None or time.monotonic() > end:
                    raise RuntimeError(f"{self.name} does not answer ({error}): see {log}") from error
                time.sleep(0.1)

    def signal(self, number: int) -> None:
        """Sends a signal to all of its processes."""
        for process in self.processes():
            try:
                os.kill(process, number)
            except ProcessLookupError:
                pass

    def pause(self) -> None:
        """Takes it off the processor while another is measured."""
        self.signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Lets it go on."""
        self.signal(signal.SIGCONT)

    def stop(self) -> None:
        """Ends all of its processes."""
        if self.process is not None:
            self.resume()
            self.signal(signal.SIGKILL)
            self.process.wait()

    def own(self) -> list[list[str]]:
        """The `stat` of its processes: the one that was started and all that come from it."""
        left, own = stats(), []
        found = [stat for stat in left if int(stat[0]) == self.process.pid]
        while found:
            own += found
            parents = {stat[0] for stat in found}
            found = [stat for stat in left if stat[3] in parents]
        return own

    def processes(self) -> list[int]:
        """Their numbers."""
        return [int(stat[0]) for stat in self.own()]

    def cpu(self) -> float:
        """Seconds of processor time that its processes, and those that have ended, have used."""
        return sum(int(value) for stat in self.own() for value in stat[13:17]) / TICKS

    def resident(self) -> float:
        """Resident memory of its processes in MB; what they share counts once for each."""
        return sum(int(stat[23]) for stat in self.own()) * os.sysconf("SC_PAGE_SIZE") / 1e6


def stats() -> list[list[str]]:
    """The fields of proc(5) `stat` of every process."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            text = path.read_text()
        except OSError:
            continue
        number, rest = text.split(" ", 1)[0], text.rsplit(")", 1)[1].split()
        found.append([number, "", *rest])
    return found


class Predictd(Server):
    """This repository's server."""

    def __init__(self, name: str, port: int, models: Path, model: str, options: list[str]) -> None:
        data = REPOSITORY / "target" / "peers" / f"data-{port}"
        command = [
            str(REPOSITORY / "target/release/predictd"), "--listen", f"127.0.0.1:{port}", "--admin-listen",
            f"127.0.0.1:{port + 1}", "--models", str(models), "--default-model", model, "--data-dir", str(data),
            "--log-format", "json", "--memory-limit", "0", *options]
        super().__init__(name, command, port, folder=REPOSITORY)

    def answer(self, body: dict) -> tuple[str, float]:
        return body["prediction"], body["confidence"]

    def padding(self, model: str) -> float:
        """The share of padding among all tokens that were run."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port + 1}/metrics", timeout=60) as response:
            lines = response.read().decode().splitlines()
        of = {kind: sum(float(line.rsplit(" ", 1)[1]) for line in lines
                        if line.startswith("predictd_batch_tokens_total{") and f'model="{model}"' in line
                        and f'kind="{kind}"' in line) for kind in ("text", "padding")}
        return of["padding"] / max(sum(of.values()), 1)


class MlServer(Server):
    """MLServer speaks the V2 inference protocol."""

    def body(self, text: str) -> dict:
        tensor = {"name": "text", "shape": [1, 1], "datatype": "BYTES", "data": [text]}
        return {"inputs": [tensor | {"parameters": {"content_type": "str"}}]}

    def answer(self, body: dict) -> tuple[str, float]:
        values = {output["name"]: output["data"][0] for output in body["outputs"]}
        return values["label"], float(values["score"])


class BentoMl(Server):
    """BentoML's batching takes lists."""

    def body(self, text: str) -> dict:
        return {"texts": [text]}

    def answer(self, body: list) -> tuple[str, float]:
        return body[0]["label"], body[0]["score"]


def mlserver_folder(port: int, workers: int) -> Path:
    """MLServer reads its settings from a folder."""
    folder = PEERS / f"mlserver-{port}"
    folder.mkdir(parents=True, exist_ok=True)
    settings = {"host": "127.0.0.1", "http_port": port, "grpc_port": port + 1, "metrics_port": port + 2,
                "parallel_workers": workers, "debug": False, "use_structured_logging": False}
    model = {"name": "model", "implementation": "mlserver_runtime.Classifier", "max_batch_size": 32,
             "max_batch_time": 0.005}
    (folder / "settings.json").write_text(json.dumps(settings))
    (folder / "model-settings.json").write_text(json.dumps(model))
    return folder


def peers(model: Path, port: int) -> list[Server]:
    """The Python servers, each as its documentation starts it, with what suits two cores."""
    def environment(threads: int, workers: int = 1) -> dict[str, str]:
        return {"PEER_MODEL": str(model), "PEER_THREADS": str(threads), "PEER_WORKERS": str(workers),
                "PYTHONPATH": str(HERE), "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false",
                "BENTOML_DO_NOT_TRACK": "true", "DO_NOT_TRACK": "1"}

    def uvicorn(at: int, workers: int) -> list[str]:
        return [str(PEERS / "fastapi/bin/uvicorn"), "fastapi_server:app", "--host", "127.0.0.1", "--port", str(at),
                "--workers", str(workers), "--log-level", "warning", "--no-access-log"]

    gunicorn = [str(PEERS / "flask/bin/gunicorn"), "flask_server:app", "--bind", f"127.0.0.1:{port + 20}",
                "--workers", "2", "--worker-class", "gthread", "--threads", "16", "--log-level", "warning"]
    return [
        Server("fastapi-1x2", uvicorn(port, 1), port, environment(2)),
        Server("fastapi-2x1", uvicorn(port + 10, 2), port + 10, environment(1)),
        Server("flask-2x1", gunicorn, port + 20, environment(1)),
        Server("litserve", [str(PEERS / "litserve/bin/python"), "litserve_server.py"], port + 30,
               environment(1, 2) | {"PEER_PORT": str(port + 30)}),
        MlServer("mlserver", [str(PEERS / "mlserver/bin/mlserver"), "start", "."], port + 40, environment(1, 2),
                 folder=mlserver_folder(port + 40, 2), path="/v2/models/model/infer"),
        BentoMl("bentoml", [str(PEERS / "bentoml/bin/bentoml"), "serve", "bentoml_service:Classifier", "--host",
                            "127.0.0.1", "--port", str(port + 50)], port + 50, environment(1, 2)),
    ]


def variants(models: Path, model: str, port: int) -> list[Predictd]:
    """This server, as it is, with its cache, and without shared runs."""
    def variant(name: str, at: int, *options: str) -> Predictd:
        return Predictd(name, port + at, models, model, list(options))

    return [
        variant("predictd", 0, "--cache-bytes", "0"),
        variant("predictd-cache", 10),
        variant("predictd-single", 20, "--cache-bytes", "0", "--scheduler", "single"),
    ]


if __name__ == "__main__":
    sys.exit("This is a part of compare.py.")
