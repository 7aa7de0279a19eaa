#!/usr/bin/env python3
"""A server that follows an alias of a real MLflow, and one whose password is wrong.

    PYTHON tests/system/mlflow/follow.py --predictd target/debug/predictd

PYTHON has what tests/system/mlflow/requirements.txt says. `python -m tools log-mlflow` logs the shipped MiniLM several times,
the alias is moved while requests are sent, versions that do not work are refused, MLflow goes away, the server starts
without it. No request may fail. It takes three minutes.
"""

import argparse
import collections
import dataclasses
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path

from server import ADMIN, PASSWORD, QUIET, Tracking

ROOT = Path(__file__).resolve().parents[3]
SHIPPED, OTHER = ROOT / "models/banking77-minilm/1", "banking77-tfidf"
# As people name models there, and how the same model is named here.
NAME, LOCAL, ALIAS = "Bank intents", "intents", "champion"
PATIENCE = 120
ASKING = 4
READER = ("reader", "reader-pass-12")
WRONG = "not-the-password-7"
TEXT = "Where is my new card?"


def check(holds: object, what: str) -> None:
    """Ends the script where something is not as it must be."""
    if not holds:
        raise AssertionError(what)


def until(what: str, found) -> object:
    """What is found at last. Ends the script where nothing is."""
    end = time.monotonic() + PATIENCE
    while not (value := found()):
        check(time.monotonic() < end, f"not within {PATIENCE} seconds: {what}")
        time.sleep(0.2)
    return value


def asked(url: str, body: dict | None = None) -> tuple[int, dict]:
    """Status and JSON of an answer."""
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"content-type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        return error.code, json.loads(error.read() or b"{}")


class Mlflow:
    """What its users do with MLflow."""

    def __init__(self, tracking: Tracking) -> None:
        os.environ.update({"MLFLOW_TRACKING_URI": tracking.url, "MLFLOW_TRACKING_USERNAME": ADMIN,
                           "MLFLOW_TRACKING_PASSWORD": PASSWORD, "MLFLOW_LOGGING_LEVEL": "ERROR",
                           "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false", **QUIET})
        # Loaded with its variables set.
        import mlflow
        mlflow.set_tracking_uri(tracking.url)
        self.tracking, self.library, self.client = tracking, mlflow, mlflow.MlflowClient()

    def log(self, folder: Path) -> "Logged":
        """Logs and registers a model directory with the tool."""
        command = [sys.executable, "-m", "tools", "log-mlflow", str(folder), "--experiment", "intents",
                   "--register", NAME, "--metric", "accuracy=0.93", "--param", f"directory={folder.name}"]
        environment = os.environ | {"PYTHONPATH": str(ROOT / "models")}
        done = subprocess.run(command, env=environment, capture_output=True, text=True)
        check(done.returncode == 0, f"log-mlflow ended with {done.returncode}: {done.stdout}{done.stderr}")
        report = dict(line.split(None, 1) for line in done.stdout.splitlines())
        return Logged(re.search(r"version (\d+)", report["registered"])[1], report["run"], report["model"])

    def point(self, version: str) -> None:
        """Moves the alias."""
        self.client.set_registered_model_alias(NAME, ALIAS, version)

    def tags(self, version: str) -> dict[str, str]:
        """What the server said of the version there."""
        tags = self.client.get_model_version(NAME, version).tags
        return {name.removeprefix("predictd."): text for name, text in tags.items() if name.startswith("predictd.")}

    def log_plain(self, folder: Path) -> str:
        """Logs as MLflow alone does: the graph written anew, with its weights in a file of a made-up name."""
        import onnx
        names = ("config.json", "tokenizer.json", "tokenizer_config.json", "golden.json")
        self.library.set_experiment("intents")
        made = self.library.onnx.log_model(onnx.load(folder / "model.onnx"), name="plain",
                                           extra_files=[str(folder / name) for name in names])
        (weights,) = self.tracking.artifacts.rglob("*.data")
        check(weights.stat().st_size > 1_000_000, f"{weights} is small")
        return made.model_uri

    def log_pickle(self) -> None:
        """A scikit-learn pipeline in scikit-learn's own form."""
        from sklearn.feature_extraction.text import TfidfVectorizer
        from sklearn.linear_model import LogisticRegression
        from sklearn.pipeline import make_pipeline
        texts, labels = ["lost card", "refund"], ["card", "refund"]
        pipeline = make_pipeline(TfidfVectorizer(), LogisticRegression()).fit(texts, labels)
        self.library.set_experiment("intents")
        for form in ("skops", "pickle"):
            self.library.sklearn.log_model(pipeline, name="pipeline", serialization_format=form,
                                           registered_model_name="pipeline")


@dataclasses.dataclass
class Logged:
    """A version that the tool registered."""

    version: str
    run: str
    uri: str


class Predictd:
    """A server that follows the alias."""

    def __init__(self, binary: Path, work: Path, models: Path, url: str, user: tuple[str, str] | None = None) -> None:
        self.binary, self.work, self.models, self.url, self.user = binary, work, models, url, user
        self.log = work / "predictd.log"
        work.mkdir(parents=True, exist_ok=True)

    def __enter__(self) -> "Predictd":
        command = [self.binary, "serve", "--models", self.models, "--data-dir", self.work / "data",
                   "--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0", "--cache-bytes", "0",
                   "--log-format", "json", "--mlflow", self.url,
                   "--follow", f"{LOCAL}=models:/{NAME}@{ALIAS}", "--follow-interval", "1s"]
        environment = {name: value for name, value in os.environ.items() if not name.startswith("MLFLOW_")}
        if self.user:
            environment |= dict(zip(("MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD"), self.user))
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(list(map(str, command)), cwd=ROOT, stderr=log,
                                            env=environment | {"ORT_DISABLE_TELEMETRY": "1"})
        listening = r'"message":"listening","address":"([^"]*)","admin":"([^"]*)"'
        found = until("the server listens",
                      lambda: re.search(listening, self.said()) or self.process.poll() is not None)
        check(found is not True, f"the server ended: {self.said()}")
        self.address, self.admin = found[1], f"http://{found[2]}"
        return self

    def __exit__(self, kind: type | None, *_: object) -> None:
        self.process.terminate()
        try:
            self.process.wait(30)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        if kind:
            print(f"the server's log:\n{self.said()[-6000:]}", file=sys.stderr)

    def said(self) -> str:
        """Its log."""
        return self.log.read_text(encoding="utf-8", errors="replace")

    def ask(self, model: str = LOCAL) -> tuple[int, str | None]:
        """The status of an answer, and the version that gave it."""
        status, answer = asked(f"http://{self.address}/predict", {"text": TEXT, "model": model})
        return status, answer.get("model", {}).get("version") if status == 200 else None

    def active(self, model: str = LOCAL) -> str | None:
        """The version that is recorded as the active one."""
        status, answer = asked(f"{self.admin}/admin/models/{urllib.parse.quote(model)}")
        return answer.get("active") if status == 200 else None

    def switched(self, version: str) -> None:
        """Waits until a version answers."""
        until(f"version {version} is active", lambda: self.active() == version)
        # It is recorded a moment before it answers.
        until(f"version {version} answers", lambda: self.ask() == (200, version))

    def register(self, name: str, version: str, uri: str) -> subprocess.CompletedProcess:
        """`predictd models register`."""
        command = [self.binary, "models", "register", name, version, uri, "--admin-url", self.admin]
        return subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=PATIENCE)


class Asking:
    """Threads that ask all the time."""

    def __init__(self, server: Predictd) -> None:
        self.server, self.stopped = server, threading.Event()
        # When each was sent and answered, and what came.
        self.answers: list[tuple[float, float, int, str | None]] = []
        self.threads = [threading.Thread(target=self.go, daemon=True) for _ in range(ASKING)]

    def __enter__(self) -> "Asking":
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stopped.set()
        for thread in self.threads:
            thread.join()

    def go(self) -> None:
        """One question after another."""
        while not self.stopped.is_set():
            begun = time.monotonic()
            try:
                status, version = self.server.ask()
            except OSError as error:
                status, version = 0, repr(error)
            self.answers.append((begun, time.monotonic(), status, version))

    def since(self, moment: float) -> collections.Counter:
        """What came of the requests that were sent after a moment."""
        sent = [answer for answer in list(self.answers) if answer[0] > moment]
        return collections.Counter((status, version) for _, _, status, version in sent)

    def only(self, version: str, seconds: float) -> int:
        """Watches that this version answers all that is asked from now on. Returns how much that was."""
        begun = time.monotonic()
        time.sleep(seconds)
        found = self.since(begun)
        check(set(found) == {(200, version)}, f"{dict(found)} where only version {version} should answer")
        return found.total()


def copies(work: Path) -> dict[str, Path]:
    """Directories of one model that differ."""
    made = {}
    for name in ("one", "two", "cut", "wrong"):
        made[name] = work / name
        shutil.copytree(SHIPPED, made[name])
        manifest = made[name] / "model.toml"
        text = manifest.read_text(encoding="utf-8")
        text = re.sub(r'^description = "[^"]*"', f'description = "{name}"', text, flags=re.M)
        # Those that do not work shall be found out by what they do.
        manifest.write_text(text if name in ("one", "two") else text.split("[sha256]")[0], encoding="utf-8")
    golden = json.loads((made["wrong"] / "golden.json").read_text(encoding="utf-8"))
    for example in golden["examples"]:
        example["label"], example["scores"] = "card_swallowed", {"card_swallowed": 0.99}
    (made["wrong"] / "golden.json").write_text(json.dumps(golden), encoding="utf-8")
    return made


def cut_in_half(mlflow: Mlflow, logged: Logged) -> None:
    """What a store with half a graph in it has. The tool logs no such thing."""
    (graph,) = mlflow.tracking.artifacts.rglob(f"{logged.uri.removeprefix('models:/')}/artifacts/model.onnx")
    os.truncate(graph, graph.stat().st_size // 2)


def refused(mlflow: Mlflow, server: Predictd, asking: Asking, bad: str, good: str, what: str) -> None:
    """The alias moves to a version that does not work, and nothing else happens."""
    mlflow.point(bad)
    until(f"version {bad} is refused", lambda: mlflow.tags(bad).get("state") == "refused")
    reason = mlflow.tags(bad).get("reason", "")
    check(len(reason) > 15, f"no reason: {mlflow.tags(bad)}")
    check(server.active() == good, f"{server.active()} is active")
    count = asking.only(good, 2)
    print(f"{what}: version {bad} refused, version {good} answered {count} more; the reason there: {reason}")


def follow(binary: Path, work: Path, mlflow: Mlflow, directories: dict[str, Path]) -> None:
    """The alias moves, under load."""
    one, two, cut, wrong = (mlflow.log(directories[name]) for name in ("one", "two", "cut", "wrong"))
    cut_in_half(mlflow, cut)
    mlflow.log_pickle()
    print(f"logged to MLflow {mlflow.library.__version__}: versions {one.version} to {wrong.version} of {NAME!r}")
    models = work / "models"
    shutil.copytree(ROOT / "models" / OTHER, models / OTHER)
    mlflow.point(one.version)
    server = Predictd(binary, work, models, mlflow.tracking.url)
    with server:
        server.switched(one.version)
        until("the version is tagged", lambda: mlflow.tags(one.version).get("state") == "active")
        check(server.ask(OTHER)[0] == 200, "the other model does not answer")
        versions = asked(f"{server.admin}/admin/models/{LOCAL}")[1]["versions"]
        print(f"followed: {json.dumps(versions)[:300]}")
        with Asking(server) as asking:
            asking.only(one.version, 2)
            moved = time.monotonic()
            mlflow.point(two.version)
            server.switched(two.version)
            took = time.monotonic() - moved
            asking.only(two.version, 2)
            first = min(end for _, end, _, version in list(asking.answers) if version == two.version)
            check(set(asking.since(first)) == {(200, two.version)}, f"{asking.since(first)} after the first of two")
            print(f"moved: switched after {took:.1f} s; answers: {dict(asking.since(0))}")
            until("both are tagged", lambda: mlflow.tags(two.version).get("state") == "active")
            refused(mlflow, server, asking, cut.version, two.version, "half a graph")
            refused(mlflow, server, asking, wrong.version, two.version, "wrong golden answers")
            mlflow.point(one.version)
            server.switched(one.version)
            asking.only(one.version, 2)
            mlflow.point(two.version)
            server.switched(two.version)
            asking.only(two.version, 1)
            print("moved back and forth again")
            by_hand(server, mlflow, one, two)
            mlflow.tracking.stop()
            print(f"MLflow is gone: {asking.only(two.version, 4)} answered")
        unexpected = [answer for answer in asking.answers if answer[2:] not in ((200, one.version), (200, two.version))]
        check(not unexpected, f"{len(unexpected)} failed: {unexpected[:3]}")
        print(f"{len(asking.answers)} requests, none failed: {dict(asking.since(0))}")
    with server:
        until("it answers", lambda: server.ask() == (200, two.version))
        print(f"started without MLflow: version {two.version} answers")
        mlflow.tracking.start()
        mlflow.point(one.version)
        server.switched(one.version)
        print("MLflow is back, and the alias is followed again")


def by_hand(server: Predictd, mlflow: Mlflow, one: Logged, two: Logged) -> None:
    """`predictd models register` from MLflow: each way to say which, and what it must not take."""
    ways = {"by-id": one.uri, "by-run": f"runs:/{two.run}/model", "by-version": f"models:/{NAME}/{one.version}",
            "by-alias": f"models:/{NAME}@{ALIAS}", "plain": mlflow.log_plain(SHIPPED)}
    for name, uri in ways.items():
        done = server.register(name, "1", uri)
        check(done.returncode == 0, f"{uri}: {done.stderr}")
        status, shown = asked(f"{server.admin}/admin/models/{name}")
        known = [version["version"] for version in shown.get("versions", [])]
        check((status, known) == (200, ["1"]), f"{uri}: {status} {shown}")
    print(f"registered by hand: {', '.join(ways.values())}")
    wanted = {"models:/pipeline/1": "from-sklearn", "models:/pipeline/2": "from-sklearn", "models:/Nobody/1": "",
              f"models:/{NAME}/77": "", f"models:/{NAME}@nobody": "", f"runs:/{'0' * 32}/model": "",
              f"runs:/{one.run}/elsewhere": "", f"models:/m-{'0' * 32}": "", "models:/a/b/c": "", "s3://bucket/x": ""}
    for uri, word in wanted.items():
        done = server.register("refused", "1", uri)
        said = done.stderr.strip()
        check(done.returncode == 1 and len(said) > 15 and word in said and "panicked" not in said,
              f"{uri}: status {done.returncode}, {done.stdout}{done.stderr}")
        print(f"refused: {uri}: {said}")
    check(asked(f"{server.admin}/admin/models/refused")[0] == 404, "something of it was registered")


def with_passwords(binary: Path, work: Path, mlflow: Mlflow, directory: Path) -> None:
    """MLflow asks who one is."""
    mlflow.tracking.add_user(*READER)
    logged = mlflow.log(directory)
    mlflow.point(logged.version)
    empty = work / "empty"
    empty.mkdir(parents=True)
    for what, user in (("a wrong password", (ADMIN, WRONG)), ("no password", None)):
        with Predictd(binary, work / what.replace(" ", "-"), empty, mlflow.tracking.url, user) as server:
            line = until("its log says why", lambda: re.search(r'.*"level":"ERROR".*', server.said()))
            check(re.search(r"401|credential|password|UNAUTHORI[SZ]ED", line[0], re.I), f"it says {line[0]}")
            time.sleep(3)
            check(server.process.poll() is None, f"the server ended: {server.said()}")
            check(server.ask()[0] != 200 and server.active() is None, "something answers")
            check(WRONG not in server.said(), "the password is in the log")
            print(f"{what}: {json.loads(line[0]).get('error') or line[0]}")
    check("state" not in mlflow.tags(logged.version), "tagged by nobody")
    with Predictd(binary, work / "reader", empty, mlflow.tracking.url, READER) as server:
        server.switched(logged.version)
        check("state" not in mlflow.tags(logged.version), "a reader cannot set tags")
        print("a user who may only read: followed, but no tags")
    with Predictd(binary, work / "admin", empty, mlflow.tracking.url, (ADMIN, PASSWORD)) as server:
        server.switched(logged.version)
        until("the version is tagged", lambda: mlflow.tags(logged.version).get("state") == "active")
        check(PASSWORD not in server.said(), "the password is in the log")
        print("the right password: followed and tagged")


def main() -> None:
    """All of it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--predictd", type=Path, default=ROOT / "target/debug/predictd")
    binary = parser.parse_args().predictd.resolve()
    with tempfile.TemporaryDirectory() as place:
        work = Path(place)
        directories = copies(work / "directories")
        try:
            with Tracking(work / "mlflow") as tracking:
                follow(binary, work / "open", Mlflow(tracking), directories)
            with Tracking(work / "mlflow-auth", auth=True) as tracking:
                with_passwords(binary, work / "auth", Mlflow(tracking), directories["one"])
        except AssertionError as error:
            sys.exit(f"FAILED: {error}")
    print("all as it should be")


if __name__ == "__main__":
    main()
