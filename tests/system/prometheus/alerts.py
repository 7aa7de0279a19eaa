#!/usr/bin/env python3
"""A real Prometheus with the shipped rules scrapes a loaded server: the right alerts fire and clear.

    python3 tests/system/prometheus/alerts.py --predictd target/debug/predictd

Needs the programs `prometheus` and `promtool`. All queries of the dashboard are asked too. Takes about three minutes.
`--picture FILE` draws what the dashboard showed of it (needs matplotlib).
"""

import argparse
import json
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path

import hanging
import picture

# The model whose worker can be made to hang.
HANGING = "hanging"
ROOT = Path(__file__).resolve().parents[3]
# Exit status where there is no Prometheus.
NO_PROMETHEUS = 3
PATIENCE = 180
# More tokens than a run of the model takes in a moment.
LONG = "Where is my card and when does it come to me? " * 60


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def asked(url: str, body: dict | None = None, timeout: float = 70) -> dict:
    """The JSON answer."""
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=timeout) as answer:
        return json.load(answer)


def until(what: str, holds) -> None:
    """Waits for something that must happen."""
    end = time.monotonic() + PATIENCE
    while not holds():
        if time.monotonic() > end:
            sys.exit(f"not within {PATIENCE} seconds: {what}")
        time.sleep(1)
    print(f"{what}")


class Scene:
    """A server, and a Prometheus that watches it."""

    def __init__(self, predictd: Path, work: Path) -> None:
        self.log = work / "log"
        models = work / "models"
        hanging.write(models / HANGING / "1")
        for name in ("banking77-minilm", "banking77-tfidf"):
            (models / name).symlink_to(ROOT / "models" / name)
        command = [predictd, "serve", "--models", models, "--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0",
                   "--data-dir", work / "data", "--cache-bytes", "0", "--workers", "1", "--timeout", "60s", "--max-queue-wait", "60s",
                   "--on-overflow", "truncate", "--log-format", "json", "--default-model", "banking77-minilm"]
        with self.log.open("wb") as log:
            self.server = subprocess.Popen(list(map(str, command)), stderr=log, cwd=ROOT)
        self.address, self.admin = self.addresses()
        port = free_port()
        self.prometheus_url = f"http://127.0.0.1:{port}"
        shutil.copy(ROOT / "deploy/prometheus/alerts.yml", work)
        config = (ROOT / "deploy/prometheus/prometheus.yml").read_text(encoding="utf-8")
        config = config.replace("localhost:8001", self.admin)
        # Nobody is told here, and there is no watcher.
        config = re.sub(r"\nalerting:\n(?:  .*\n)+", "\n", config)
        config = re.sub(r"  - job_name: predictd-watch\n(?:    .*\n)+", "", config)
        (work / "prometheus.yml").write_text(config, encoding="utf-8")
        subprocess.run(["promtool", "check", "config", work / "prometheus.yml"], check=True, capture_output=True)
        options = [f"--config.file={work}/prometheus.yml", f"--storage.tsdb.path={work}/series",
                   f"--web.listen-address=127.0.0.1:{port}"]
        self.prometheus = subprocess.Popen(["prometheus", *options], stderr=subprocess.DEVNULL)

    def addresses(self) -> tuple[str, str]:
        """Where the server listens, once its models are loaded."""
        for _ in range(600):
            said = self.log.read_text(encoding="utf-8")
            found = re.search(r'"message":"listening","address":"([^"]*)","admin":"([^"]*)"', said)
            if found and said.count('"model version loaded"') == 3:
                return found[1], found[2]
            time.sleep(0.1)
        sys.exit(said)

    def query(self, expression: str) -> list:
        """The result of a query now."""
        answer = asked(f"{self.prometheus_url}/api/v1/query?{urllib.parse.urlencode({'query': expression})}")
        if answer["status"] != "success":
            sys.exit(f"{expression}: {answer}")
        return answer["data"]["result"]

    def firing(self, model: str | None = None) -> set[str]:
        """The names of the alerts that fire, for one model or for anything."""
        try:
            alerts = asked(f"{self.prometheus_url}/api/v1/alerts")["data"]["alerts"]
        except (OSError, ValueError):
            return {"Prometheus does not answer"}
        fire = [alert["labels"] for alert in alerts if alert["state"] == "firing"]
        return {labels["alertname"] for labels in fire if model in (None, labels.get("model"))}

    def stop(self) -> None:
        """Ends both."""
        self.server.send_signal(signal.SIGCONT)
        for process in (self.server, self.prometheus):
            process.kill()
            process.wait()


def load(scene: Scene, stop: threading.Event) -> None:
    """Asks one short question after another."""
    while not stop.is_set():
        try:
            asked(f"http://{scene.address}/predict", {"text": "Where is my new card?", "model": "banking77-tfidf"})
            asked(f"http://{scene.address}/predict", {"text": "Where is my new card?"})
        except (OSError, urllib.error.HTTPError):
            time.sleep(0.2)
        time.sleep(0.02)


def check_dashboard(scene: Scene) -> None:
    """Every query is one, and those that need no GPU and no fault have an answer."""
    dashboard = json.loads((ROOT / "deploy/grafana/predictd.json").read_text(encoding="utf-8"))
    empty, asked_for = [], 0
    for panel in dashboard["panels"]:
        for target in panel["targets"]:
            expression = target["expr"].replace("$__rate_interval", "1m").replace("$instance", ".*")
            asked_for += 1
            if not scene.query(expression):
                empty.append(panel["title"])
    print(f"{asked_for} queries of the dashboard; without an answer here: {', '.join(sorted(set(empty)))}")
    allowed = {"GPU", "GPU power and temperature", "Panics, lost log lines, slow clients", "Refused", "Errors by kind", "Cache",
               "Drift: distance over threshold", "Accuracy by feedback", "Feedback",
               "Experiments: requests by arm", "Experiments: accuracy by arm"}
    unexpected = set(empty) - allowed
    if unexpected:
        sys.exit(f"these panels are empty under load: {unexpected}")


def main() -> None:
    """Loads, hangs, stops."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--predictd", type=Path, default=ROOT / "target/debug/predictd")
    parser.add_argument("--picture", type=Path)
    options = parser.parse_args()
    if not shutil.which("prometheus") or not shutil.which("promtool"):
        print("there is no Prometheus on this machine", file=sys.stderr)
        sys.exit(NO_PROMETHEUS)
    with tempfile.TemporaryDirectory() as place:
        scene, stop = Scene(options.predictd.resolve(), Path(place)), threading.Event()
        try:
            begun = time.time()
            until("Prometheus scrapes the server", lambda: not scene.firing() and scene.query('up{job="predictd"} == 1'))
            threading.Thread(target=load, args=(scene, stop), daemon=True).start()
            # A series begins with its first event, and a rate needs two scrapes of it.
            counted = "sum(rate(predictd_http_request_duration_seconds_count{route='/predict', status='200'}[1m])) > 5"
            until("requests are counted", lambda: scene.query(counted))
            check_dashboard(scene)
            if scene.firing():
                sys.exit(f"alerts fire for a healthy server: {scene.firing()}")
            # A worker that hangs, the one for short texts and the threads of connections too, and others who wait for them.
            stuck = [threading.Thread(target=quietly_ask, args=(scene, HANGING, ["hang"]), daemon=True) for _ in range(8)]
            # Far more work than the only worker does while the alert waits.
            texts = [f"{LONG} {number}" for number in range(400)]
            fill = [threading.Thread(target=quietly_ask, args=(scene, "banking77-minilm", texts), daemon=True) for _ in range(2)]
            for thread in stuck + fill:
                thread.start()
            for model, what in ((HANGING, "a worker that hangs"), ("banking77-minilm", "a queue that does not move")):
                until(f"{what}: PredictdQueueOld fires", lambda model=model: "PredictdQueueOld" in scene.firing(model))
            for thread in stuck + fill:
                thread.join()
            until("the queues are empty: it clears", lambda: "PredictdQueueOld" not in scene.firing())
            scene.server.send_signal(signal.SIGSTOP)
            until("the process hangs: PredictdDown fires", lambda: "PredictdDown" in scene.firing())
            scene.server.send_signal(signal.SIGCONT)
            until("it goes on: it clears", lambda: "PredictdDown" not in scene.firing())
            scene.server.terminate()
            until("it was stopped: PredictdDown fires", lambda: "PredictdDown" in scene.firing())
            if options.picture:
                picture.draw(scene.prometheus_url, begun, time.time(), options.picture)
        finally:
            stop.set()
            scene.stop()


def quietly_ask(scene: Scene, model: str, texts: list[str]) -> None:
    """A batch whose answer, if it comes in time at all, is nobody's concern."""
    try:
        asked(f"http://{scene.address}/batch_predict", {"texts": texts, "model": model})
    except (OSError, urllib.error.HTTPError) as error:
        print(f"a batch ended with {error}")


if __name__ == "__main__":
    main()
