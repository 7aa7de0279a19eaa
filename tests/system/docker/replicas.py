#!/usr/bin/env python3
"""Three replicas behind nginx under load: changes are seen by all, all are replaced, one is killed. No request may fail.

    python3 tests/system/docker/replicas.py [--requests 100000]

Needs root, a Docker engine and the image predictd:latest. Takes about four minutes.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from urllib.parse import urlsplit

from engine import PATIENCE, Project, asked, check, docker, free_port, inspect, run, until
from load import Load

FILES = ["docker-compose.yml", "deploy/compose/replicas.yml"]
# Where POSTGRES_PASSWORD_FILE is not known: an image made of Debian's package.
STAND_IN = "tests-stand-in.yml"
MODEL = "banking77-tfidf"
CLIENTS = 24
MOST_ROLLS = 20
# A little less than what nginx.conf allows an address.
ALLOWED = 950
# Longest that a change may take to be seen by the other replicas.
SEEN_WITHIN = 2.0


def prepare(project: Project) -> None:
    secrets = project.folder / "secrets"
    secrets.mkdir(mode=0o700)
    password = os.urandom(32).hex()
    (secrets / "database-password").write_text(password + "\n")
    image = "postgres:17"
    entry = ["docker", "run", "--rm", "--entrypoint", "grep", image, "-q", "PASSWORD_FILE", "/usr/local/bin/docker-entrypoint.sh"]
    if subprocess.run(entry, stderr=subprocess.DEVNULL).returncode != 0:
        environment = {"services": {"postgres": {"environment": {"POSTGRES_PASSWORD": password}}}}
        (project.folder / STAND_IN).write_text(json.dumps(environment))
        project.options += ["-f", STAND_IN]


def address(container: str) -> str:
    networks = inspect(container, ".NetworkSettings.Networks")
    return f"http://{next(network['IPAddress'] for network in networks.values())}:8000"


def version(url: str) -> str:
    status, answer = asked(f"{url}/predict", {"text": f"Where is my card? {time.monotonic()}", "model": MODEL})
    check(status == 200, f"{status} {answer}")
    return answer["model"]["version"]


def changes_are_seen(project: Project, replicas: list[str]) -> float:
    """A version is registered, activated and rolled back through one replica; how long the others took at most."""
    first, *others = replicas
    project.exec(first, "predictd", "models", "register", MODEL, "2", f"/models/{MODEL}/1")
    slowest = 0.0
    for change, wanted in [(("activate", MODEL, "2"), "2"), (("rollback", MODEL), "1"), (("activate", MODEL, "2"), "2")]:
        project.exec(first, "predictd", "models", *change)
        made = time.monotonic()
        for other in others:
            until(f"{wanted} answers", lambda: version(address(other)) == wanted)
            slowest = max(slowest, time.monotonic() - made)
    return slowest


def arm(url: str) -> str | None:
    status, answer = asked(f"{url}/predict", {"text": "Where is my card?", "model": MODEL, "user_id": "u"})
    check(status == 200, f"{status} {answer}")
    return answer["experiment"]["arm"] if "experiment" in answer else None


def experiments_are_seen(project: Project, replicas: list[str]) -> float:
    """An experiment is started, changed, paused and ended through one replica; how long the others took at most."""
    first, *others = replicas
    experiments = ("predictd", "experiments")
    project.exec(first, *experiments, "create", "ab", "--on", MODEL, "--arm", "old=1:100", "--arm", "new=2:0")
    slowest = 0.0
    for change, wanted in [(("start", "ab"), "old"), (("weights", "ab", "old=0", "new=100"), "new"),
                           (("pause", "ab"), None), (("start", "ab"), "new"), (("end", "ab"), None)]:
        project.exec(first, *experiments, *change)
        made = time.monotonic()
        for other in others:
            until(f"users are in {wanted}", lambda: arm(address(other)) == wanted)
            slowest = max(slowest, time.monotonic() - made)
    return slowest


def roll(project: Project) -> None:
    """All replicas are replaced with the shipped script."""
    command = ["sh", "deploy/compose/roll", "-p", project.name, *project.options]
    run(command, cwd=project.folder)


def kill_one(project: Project, port: int) -> tuple[Load, float]:
    """One replica is killed with kill -9 under load, and is started again by the engine."""
    victim = project.containers("predictd")[0]
    started, before = inspect(victim, ".State.StartedAt"), address(victim)
    with Load(port, CLIENTS, ALLOWED) as load:
        until("there is load", lambda: load.total > 2_000)
        # As the kernel would: a `docker kill` counts as stopped by hand, and is not started again.
        os.kill(inspect(victim, ".State.Pid"), signal.SIGKILL)
        killed = time.monotonic()
        until("it is started again", lambda: inspect(victim, ".State.StartedAt") != started)
        until("it is ready again", lambda: asked(f"{address(victim)}/readyz")[0] == 200)
        back = time.monotonic() - killed
        if address(victim) != before:
            # It came back under another address: an nginx before 1.27.3 looks for it when it is told to.
            project.compose("exec", "-T", "nginx", "nginx", "-s", "reload")
        # It gets requests again.
        until("nginx asks it again", lambda: requests(victim) > 200)
    check(inspect(victim, ".RestartCount") >= 1, "it was not the engine that started it")
    return load, back


def requests(container: str) -> int:
    text = asked(f"{address(container)}/metrics")[1].get("text", "")
    lines = [line for line in text.splitlines() if line.startswith('predictd_http_requests_started_total{route="/predict"}')]
    return int(lines[0].rsplit(" ", 1)[1]) if lines else 0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--requests", type=int, default=100_000, help="at least so many during the replacement (default: %(default)s)")
    wanted = parser.parse_args().requests
    port = free_port()
    with Project("replicas", FILES, HTTP_PORT=str(port), HTTP_ADDRESS="127.0.0.1") as project:
        prepare(project)
        project.compose("up", "-d", "--scale", "predictd=3")
        replicas = project.healthy("predictd", 3)
        until("nginx answers", lambda: asked(f"http://127.0.0.1:{port}/readyz")[0] == 200)
        seen = changes_are_seen(project, replicas)
        print(f"replicas: a change made through one was seen by the others within {seen:.2f} s")
        check(seen <= SEEN_WITHIN, f"a change was seen only after {seen:.1f} s")
        seen = experiments_are_seen(project, replicas)
        print(f"replicas: a change of an experiment made through one was seen by the others within {seen:.2f} s")
        check(seen <= SEEN_WITHIN, f"a change of an experiment was seen only after {seen:.1f} s")

        # Asked directly: nginx lets an address ask 1,000 times a second. All replicas share the same cores.
        with Load(8000, CLIENTS, host=urlsplit(address(replicas[0])).hostname) as measured:
            time.sleep(3)
        check(not measured.failed, f"without any change: {measured.failed[:5]}")
        capacity, rolls = measured.total / measured.seconds, 0
        rate = min(0.7 * capacity, ALLOWED)
        with Load(port, CLIENTS, rate) as load:
            while rolls == 0 or load.total < wanted:
                check(load.runs and rolls < MOST_ROLLS, f"{load.total} requests after {rolls} times")
                roll(project)
                rolls += 1
        # nginx is reloaded once before, and twice for each replica: then every client's connection may just be closing.
        check(load.stale <= CLIENTS * rolls * 7, load.told())
        new = project.healthy("predictd", 3)
        check(not set(new) & set(replicas), "a replica was not replaced")
        print(f"replicas: all three replaced {rolls} times at {rate:.0f} of {capacity:.0f} requests/s: {load.told()}")
        check(load.total >= wanted and not load.failed, f"{load.failed[:5]}")
        check([version(address(replica)) for replica in new] == ["2"] * 3, "the new replicas serve another version")

        load, back = kill_one(project, port)
        print(f"replicas: one of three killed with kill -9: {load.told()}; ready again after {back:.1f} s")
        check(not load.failed, f"{load.failed[:5]}")


if __name__ == "__main__":
    sys.exit(main())
