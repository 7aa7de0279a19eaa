#!/usr/bin/env python3
"""The image, and what runs in it: nothing but what is needed, for any user, in little memory, without any right.

    python3 tests/system/docker/hardened.py

Needs root, a Docker engine, the image predictd:latest and a build of the tests. The integration tests that start the
binary are run with the image's own binary in a container with the same limits. Takes about four minutes.
"""

import hashlib
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import locale_graph
from engine import IMAGE, LONGEST, ROOT, asked, check, docker, inspect, logs, until

USERS = ["10001:10001", "54321:54321", "0:0"]
LIMITS = ["--read-only", "--cap-drop", "ALL", "--security-opt", "no-new-privileges", "--memory", "512m", "--memory-swap", "512m",
          "--cpus", "1", "--pids-limit", "512"]
QUESTION = {"text": "My new card has not come yet, where is it?"}
# What the tests themselves need beside what Debian's smallest image has: `kill`, and the library's own needs.
TESTS_IMAGE = "predictd-tests"
TESTS_DOCKERFILE = "FROM debian:bookworm-slim\nRUN apt-get update && apt-get install -y --no-install-recommends procps libstdc++6 && rm -rf /var/lib/apt/lists/*\n"
# Tests that start the binary; the others hold servers in the memory of the test itself.
MODULES = ["cli::health", "cli::serve_options", "cli::watch", "engine::overload::watchdog", "ops::lifecycle", "ops::log_injection",
           "ops::logging", "ops::metrics", "ops::secret_leaks", "ops::server_process", "ops::traces", "registry::database_backup",
           "registry::mlflow", "registry::model_versions", "registry::replicas", "registry::store", "transport::fd_limit",
           "transport::non_http_traffic"]
# And why these cannot be run so.
EXCEPT = {"cli::watch::watch_every_channel_gets_each_change_once": "runs a program that it writes, where nothing written may be run",
          "registry::store::load_beyond_memory_limit_is_refused": "writes 384 MiB, which are memory here"}
# A graph that asks for the locale that scikit-learn's exports name unless they are told otherwise.
LOCALE = "en_US.UTF-8"


def image_facts() -> None:
    image = json.loads(docker("image", "inspect", IMAGE))[0]
    config = image["Config"]
    check(config["User"] == "10001:10001" and config["Entrypoint"] == ["predictd"] and config["Cmd"] == ["serve"], f"{config}")
    check(config["Healthcheck"]["Test"] == ["CMD", "predictd", "health"] and config["StopSignal"] == "SIGTERM", f"{config}")
    check(config["Labels"]["org.opencontainers.image.licenses"] == "Apache-2.0", f"{config}")
    for program in ["sh", "bash", "curl", "apt-get", "python3"]:
        tried = subprocess.run(["docker", "run", "--rm", "--entrypoint", program, IMAGE], stderr=subprocess.PIPE, text=True)
        check(tried.returncode == 127 and "not found" in tried.stderr, f"{program}: {tried}")
    with tempfile.TemporaryDirectory() as folder:
        taken_out(Path(folder))
        files = Path(folder) / "predictd"
        materials(json.loads((files / "sbom.cdx.json").read_text()), files)
    print(f"image: {image['Size'] / 1e6:.1f} MB, no shell, SBOM with the digests of what is in it")


def taken_out(folder: Path) -> None:
    """Copies /opt/predictd of the image there."""
    container = docker("create", IMAGE)
    try:
        docker("cp", f"{container}:/opt/predictd", str(folder))
    finally:
        docker("rm", "-v", container)


def materials(sbom: dict, files: Path) -> None:
    """Row P2: the SBOM names ONNX Runtime and the libraries of the system, with what they really are."""
    named = {component["name"]: component for component in sbom["components"]}
    library, = (files / "lib").glob("libonnxruntime.so.*")
    digest = hashlib.sha256(library.read_bytes()).hexdigest()
    hashes = [entry["content"] for component in sbom["components"] for entry in component.get("hashes", [])]
    check(digest in hashes, f"{library.name} is not in the SBOM with its SHA-256 {digest}")
    for name in ["axum", "tokenizers", "ort", "libc6", "libstdc++6", "ca-certificates"]:
        check(name in named, f"{name} is not in the SBOM")
    check(any("onig" in name for name in named), "oniguruma is not in the SBOM")


def refuses_without_permission() -> None:
    tried = subprocess.run(["docker", "run", "--rm", IMAGE], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    check(tried.returncode == 64 and "--allow-anonymous" in tried.stdout, f"{tried}")


def serves(user: str) -> None:
    """As a container by itself, with the least that it can have."""
    options = ["--user", user, *LIMITS, "-e", "PREDICTD_ALLOW_ANONYMOUS=true", "-v", "/data"]
    container = docker("run", "-d", *options, IMAGE)
    try:
        until(f"healthy as {user}", lambda: inspect(container, ".State.Health.Status") == "healthy")
        address = f"http://{inspect(container, '.NetworkSettings.IPAddress')}:8000"
        status, answer = asked(f"{address}/predict", QUESTION)
        check(status == 200 and answer["prediction"] == "card_arrival", f"{user}: {status} {answer}")
        texts = [f"{QUESTION['text']} {number}" for number in range(256)]
        status, answer = asked(f"{address}/batch_predict", texts)
        check(status == 200 and len(answer["results"]) == 256, f"{user}: {status}")
        # What it writes is written, also through the admin listener in the container.
        docker("exec", container, "predictd", "models", "register", "banking77-tfidf", "2", "/models/banking77-tfidf/1")
        docker("exec", container, "predictd", "models", "activate", "banking77-tfidf", "2")
        check(asked(f"{address}/predict", {**QUESTION, "model": "banking77-tfidf"})[1]["model"]["version"] == "2", user)
        docker("stop", "--time", "40", container)
        state = inspect(container, ".State")
        check(state["ExitCode"] == 0 and not state["OOMKilled"], f"{user}: {state}: {logs(container)[-2000:]}")
    finally:
        docker("rm", "-f", "-v", container)


def has_the_locale() -> None:
    """A graph that asks for a locale loads where that is; one that asks for one that nobody has does not."""
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)
        for locale, code in [(LOCALE, 0), ("C.UTF-8", 0), ("xx_XX.UTF-8", 1)]:
            locale_graph.write(Path(folder) / locale, locale)
            ended = subprocess.run(["docker", "run", "--rm", "-v", f"{folder}:/m:ro", IMAGE, "check", f"/m/{locale}"],
                                   stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
            check(ended.returncode == code, f"{locale}: {ended}")


def test_binary() -> str:
    command = ["cargo", "test", "--locked", "--no-run", "--test", "it", "--message-format", "json"]
    printed = subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True).stdout
    messages = [json.loads(line) for line in printed.splitlines()]
    return next(message["executable"] for message in messages if message.get("executable") and message["target"]["name"] == "it")


def passes_its_tests() -> None:
    """Every test by itself, as nextest runs them."""
    binary = test_binary()
    listed = subprocess.run([binary, "--list"], cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True).stdout.splitlines()
    tests = [line.removesuffix(": test") for line in listed if line.endswith(": test")]
    chosen = [test for test in tests if any(test.startswith(f"{module}::") for module in MODULES) and test not in EXCEPT]
    # Another user than the owner runs them.
    check(os.stat(binary).st_mode & 0o005 == 0o005 and os.stat(ROOT / "Cargo.toml").st_mode & 0o004, f"{ROOT} can be read by its owner alone")
    check(len(chosen) > 90 and all(name in tests for name in EXCEPT), f"{len(chosen)} tests")
    docker("build", "-q", "-t", TESTS_IMAGE, "-", input=TESTS_DOCKERFILE)
    with tempfile.TemporaryDirectory() as folder:
        # Where the tests look for the binary and for ONNX Runtime lie the image's.
        taken_out(Path(folder))
        own = Path(folder) / "predictd"
        each = Path(folder) / "each"
        each.write_text('failed=0\nfor test in "$@"; do\n  "$PROGRAM" --exact "$test" >/tmp/out 2>&1 || { failed=1; echo "FAILED $test"; tail -n 40 /tmp/out; }\ndone\nexit $failed\n')
        os.chmod(folder, 0o755)
        options = ["--rm", "--user", USERS[1], *LIMITS, "--network", "none", "--tmpfs", "/tmp:rw,nosuid,nodev,noexec,size=200m,mode=1777",
                   "-v", f"{ROOT}:{ROOT}:ro", "-v", f"{own / 'predictd'}:{ROOT}/target/debug/predictd:ro",
                   "-v", f"{own / 'lib'}:{ROOT}/target/onnxruntime:ro", "-v", f"{each}:/each:ro",
                   "-w", str(ROOT), "-e", f"PROGRAM={binary}"]
        if ROOT.is_relative_to("/root"):
            # In the image that is closed to others.
            options += ["--tmpfs", "/root:mode=755"]
        command = ["docker", "run", *options, TESTS_IMAGE, "sh", "/each", *chosen]
        ended = subprocess.run(command, timeout=LONGEST, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    check(ended.returncode == 0, ended.stdout)
    print(f"image: {len(chosen)} of {len(tests)} integration tests, those that start the binary, pass as user {USERS[1]}, read-only, without a capability, with 512 MiB and one core")


def main() -> None:
    image_facts()
    refuses_without_permission()
    for user in USERS:
        serves(user)
    print(f"image: serves, registers and ends with 0 as {', '.join(USERS)}, read-only, without a capability, with 512 MiB and one core")
    has_the_locale()
    passes_its_tests()


if __name__ == "__main__":
    sys.exit(main())
