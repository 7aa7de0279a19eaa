#!/usr/bin/env python3
"""`docker-compose up` with nothing edited: a service on port 80, its limits, its data, and what monitors it.

    python3 tests/system/docker/single.py

Needs root, a Docker engine and the image predictd:latest. Takes about two minutes.
"""

import http.client
import json
import os
import ssl
import sys

from engine import ROOT, Project, asked, check, docker, free_port, inspect, logs, run, until

QUESTION = {"text": "My new card has not come yet, where is it?"}
ANSWER = "card_arrival"


def answers(url: str) -> None:
    status, answer = asked(f"{url}/predict", QUESTION)
    check(status == 200 and answer["prediction"] == ANSWER, f"{status} {answer}")
    status, answer = asked(f"{url}/batch_predict", [QUESTION["text"]] * 3)
    check(status == 200 and len(answer["results"]) == 3, f"{status} {answer}")
    check(asked(f"{url}/health")[1]["status"] == "healthy", "health through nginx")


def hidden(url: str) -> None:
    """What only operators see is not to be had through nginx."""
    for path in ["/metrics", "/admin/models", "/admin/log", "/", "//metrics", "/%6detrics", "/models/../metrics"]:
        status, problem = asked(url + path)
        check(status == 404 and problem.get("type") == "/docs#not-found", f"{path}: {status} {problem}")


def all_hardened(project: Project) -> None:
    """No container can gain rights, or fill memory, process table and disk."""
    for service in ["nginx", "prometheus", "alertmanager", "watch"]:
        container, = project.containers(service)
        host = inspect(container, ".HostConfig")
        check(host["ReadonlyRootfs"] and host["CapDrop"] == ["ALL"] and "no-new-privileges:true" in host["SecurityOpt"], f"{service}: {host}")
        check(host["Memory"] and host["PidsLimit"] and host["LogConfig"]["Config"]["max-size"], f"{service}: {host}")


def hardened(container: str) -> None:
    host = inspect(container, ".HostConfig")
    check(host["ReadonlyRootfs"] and host["CapDrop"] == ["ALL"] and not host["CapAdd"], f"{host}")
    check("no-new-privileges:true" in host["SecurityOpt"] and host["Memory"] == 1 << 30, f"{host}")
    check(host["RestartPolicy"]["Name"] == "unless-stopped", f"{host}")
    models = [mount for mount in inspect(container, ".Mounts") if mount["Destination"] == "/models"]
    check(models and not models[0]["RW"], f"{models}")
    pid = inspect(container, ".State.Pid")
    status = dict(line.split(":\t", 1) for line in open(f"/proc/{pid}/status").read().splitlines() if ":\t" in line)
    check(status["CapEff"] == status["CapPrm"] == "0" * 16 and status["NoNewPrivs"] == "1", f"{status}")
    check(status["Uid"].split("\t")[0] == "10001", f"{status}")
    ports = inspect(container, ".NetworkSettings.Ports")
    check(not any(ports.values()), f"the server itself is published: {ports}")


def keeps_its_data(project: Project, url: str) -> None:
    """A version that was registered is there after the container was replaced."""
    container, = project.containers("predictd")
    said = project.exec(container, "predictd", "models", "register", "banking77-tfidf", "2", "/models/banking77-tfidf/1")
    project.exec(container, "predictd", "models", "activate", "banking77-tfidf", "2")
    check(said, "register says nothing")
    before = asked(f"{url}/predict", {**QUESTION, "model": "banking77-tfidf"})[1]
    check(before["model"]["version"] == "2", f"{before}")
    project.compose("up", "-d", "--force-recreate", "predictd")
    new, = project.healthy("predictd", 1)
    check(new != container, "the container was not replaced")
    # An old nginx looks for the new one when it is told to.
    project.compose("exec", "-T", "nginx", "nginx", "-s", "reload")
    until("the new container answers", lambda: asked(f"{url}/readyz")[0] == 200)
    after = asked(f"{url}/predict", {**QUESTION, "model": "banking77-tfidf"})[1]
    check(after["model"]["version"] == "2" and after["confidence"] == before["confidence"], f"{after}")


def takes_keys(project: Project, url: str) -> None:
    """Keys instead of anonymous callers, as the comment in docker-compose.yml says."""
    container, = project.containers("predictd")
    key = project.exec(container, "predictd", "keys", "new", "--name", "website", "--scopes", "predict")
    settings = project.folder / ".env"
    settings.write_text(settings.read_text() + "PREDICTD_ALLOW_ANONYMOUS=false\n")
    project.compose("up", "-d", "predictd")
    project.healthy("predictd", 1)
    project.compose("exec", "-T", "nginx", "nginx", "-s", "reload")
    until("the server answers", lambda: asked(f"{url}/readyz")[0] == 200)
    check(asked(f"{url}/predict", QUESTION)[0] == 401, "a caller without a key")
    status, answer = asked(f"{url}/predict", QUESTION, {"Authorization": f"Bearer {key}"})
    check(status == 200 and answer["prediction"] == ANSWER, f"{status} {answer}")
    settings.write_text(settings.read_text().replace("PREDICTD_ALLOW_ANONYMOUS=false\n", ""))
    project.compose("up", "-d", "predictd")
    project.healthy("predictd", 1)
    project.compose("exec", "-T", "nginx", "nginx", "-s", "reload")


def is_monitored(project: Project, prometheus: int) -> None:
    """Prometheus reaches the server and the watcher, and has the rules."""
    project.compose("--profile", "monitoring", "up", "-d", "prometheus", "alertmanager", "watch")

    def up() -> bool:
        found = asked(f"http://127.0.0.1:{prometheus}/api/v1/query?query=up")[1].get("data", {}).get("result", [])
        return {result["metric"]["job"]: result["value"][1] for result in found} == {"predictd": "1", "predictd-watch": "1"}

    until("Prometheus scrapes the server and the watcher", up)
    groups = asked(f"http://127.0.0.1:{prometheus}/api/v1/rules")[1]["data"]["groups"]
    rules = [rule for group in groups for rule in group["rules"]]
    check(len(rules) > 20 and all(rule["health"] != "err" for rule in rules), f"{rules}")
    until("Prometheus knows its Alertmanager", lambda: asked(f"http://127.0.0.1:{prometheus}/api/v1/alertmanagers")[1]["data"]["activeAlertmanagers"])
    watcher, = project.containers("watch")
    line = until("the watcher checks", lambda: logs(watcher)).splitlines()[-1]
    check(json.loads(line)["healthy"], line)


def speaks_https(project: Project, port: int) -> None:
    """With a certificate and the second file: HTTPS, and port 80 leads there."""
    certificates = project.folder / "certificates"
    certificates.mkdir()
    run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "1", "-subj", "/CN=localhost",
         "-addext", "subjectAltName=DNS:localhost", "-keyout", "tls.key", "-out", "tls.crt"], cwd=certificates)
    # As somebody makes it who is not root.
    for name in ["tls.key", "tls.crt"]:
        os.chown(certificates / name, 1000, 1000)
    (certificates / "tls.key").chmod(0o600)
    project.options += ["-f", "docker-compose.yml", "-f", "deploy/compose/https.yml"]
    project.compose("up", "-d", "nginx")
    trusted = ssl.create_default_context(cafile=certificates / "tls.crt")

    def answer() -> str:
        try:
            connection = http.client.HTTPSConnection("localhost", port, context=trusted)
            connection.request("POST", "/predict", json.dumps(QUESTION), {"Content-Type": "application/json"})
            return json.load(connection.getresponse()).get("prediction", "")
        except OSError:
            return ""

    until("HTTPS answers", lambda: answer() == ANSWER)
    plain = http.client.HTTPConnection("localhost", 80)
    plain.request("POST", "/predict", json.dumps(QUESTION), {"Content-Type": "application/json"})
    redirect = plain.getresponse()
    watcher, = project.containers("watch")

    def checks() -> list[dict]:
        """Its checks: it also tells of changes and deliveries."""
        return [line for line in map(json.loads, logs(watcher).splitlines()) if "healthy" in line]

    seen = len(checks())
    until("the watcher checks again", lambda: len(checks()) > seen + 1)
    check(checks()[-1]["healthy"], f"the watcher is led astray by HTTPS: {checks()[-1]}")
    check((redirect.status, redirect.headers["Location"]) == (308, f"https://localhost:{port}/predict"), f"{redirect.status} {redirect.headers}")


def ends_well(project: Project) -> None:
    """As PID 1 it takes SIGTERM, and no process is left."""
    container, = project.containers("predictd")
    docker("stop", "--time", "40", container)
    state = inspect(container, ".State")
    check(state["ExitCode"] == 0 and not state["OOMKilled"], f"{state}")
    check("server stopped" in logs(container), "it does not say that it stopped")


def asks_for_a_gpu() -> None:
    """deploy/compose/gpu.yml: a container is made that gets a GPU where the engine has one. It is not started."""
    files = ["docker-compose.yml", "deploy/compose/gpu.yml"]
    with Project("gpu", files, PREDICTD_GPU_IMAGE="predictd:latest", PREDICTD_GPU_MODELS_DIR="./models") as project:
        # As a user has them, for a server on cores.
        with (project.folder / ".env").open("a") as settings:
            settings.write((ROOT / ".env.example").read_text())
        project.compose("up", "--no-start", "predictd")
        container, = project.compose("ps", "-a", "-q", "predictd").split()
        host, given = inspect(container, ".HostConfig"), inspect(container, ".Config.Env")
        wanted = [(one["Driver"], one["Count"], one["Capabilities"]) for one in host["DeviceRequests"] or []]
        check(wanted == [("nvidia", 1, [["gpu"]])], f"{host['DeviceRequests']}")
        check("PREDICTD_DEVICE=cuda" in given and host["Memory"] == 4 << 30 and host["CapDrop"] == ["ALL"], f"{given} {host}")


def main() -> None:
    prometheus, https = free_port(), free_port()
    settings = {"PROMETHEUS_IMAGE": "prom/prometheus:latest", "ALERTMANAGER_IMAGE": "prom/alertmanager:latest",
                "PROMETHEUS_PORT": str(prometheus), "ALERTMANAGER_PORT": str(free_port()), "HTTPS_PORT": str(https)}
    with Project("single", **settings) as project:
        project.compose("up", "-d")
        project.healthy("predictd", 1)
        url = "http://localhost"
        until("nginx answers on port 80", lambda: asked(f"{url}/readyz")[0] == 200)
        answers(url)
        hidden(url)
        hardened(project.containers("predictd")[0])
        keeps_its_data(project, url)
        is_monitored(project, prometheus)
        all_hardened(project)
        takes_keys(project, url)
        speaks_https(project, https)
        ends_well(project)
    asks_for_a_gpu()
    print("compose: one service behind nginx on port 80: answers, hides metrics and admin, keeps its data, takes keys, is monitored, speaks HTTPS, ends with 0")


if __name__ == "__main__":
    sys.exit(main())
