"""Runs the commands of README.md on a server started as README.md says, and compares the answers."""

import json
import os
import re
import signal
import socket
import subprocess
import tempfile
import time
import unittest
import urllib.error
import urllib.request
from pathlib import Path

ROOT = Path(__file__).parent.parent
# Other processors round int8 products a little differently.
TOLERANCE = 0.02
# Different in every answer.
UNIQUE = {"prediction_id", "instance"}


def commands():
    """Each `$ command` of a console block with the lines that follow it."""
    for block in re.findall(r"```console\n(.*?)```", (ROOT / "README.md").read_text(), re.S):
        for part in re.split(r"^\$ ", block, flags=re.M)[1:]:
            command, _, expected = part.partition("\n")
            yield re.sub(r"\s+# .*", "", command), expected.strip()


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Readme(unittest.TestCase):
    def assert_same(self, expected, found, where="answer"):
        if isinstance(expected, dict):
            self.assertEqual(expected.keys(), found.keys(), where)
            for key in expected.keys() - UNIQUE:
                self.assert_same(expected[key], found[key], f"{where}.{key}")
        elif isinstance(expected, list):
            self.assertEqual(len(expected), len(found), where)
            for index, pair in enumerate(zip(expected, found)):
                self.assert_same(*pair, f"{where}[{index}]")
        elif isinstance(expected, float):
            self.assertAlmostEqual(expected, found, delta=TOLERANCE, msg=where)
        else:
            self.assertEqual(expected, found, where)

    def test_commands(self):
        listed = list(commands())
        runs = [command for command, _ in listed if command.startswith("make run")]
        curls = [(command, expected) for command, expected in listed if command.startswith("curl")]
        keys = [command for command, _ in listed if " keys new " in command]
        benches = [command for command, _ in listed if " bench" in command]
        checks = [command for command, _ in listed if " check " in command]
        # `make test` is what runs this test.
        self.assertEqual(len(listed), len(runs) + len(curls) + len(keys) + len(benches) + len(checks) + 1)
        self.assertEqual((len(benches), len(checks)), (1, 1))
        self.assertEqual(len(keys), 1)
        self.assertTrue(runs and curls)
        port = free_port()
        with tempfile.TemporaryDirectory() as data, open(Path(data) / "log", "w+") as log:
            environment = os.environ | {"PREDICTD_LISTEN": f"127.0.0.1:{port}", "PREDICTD_ADMIN_LISTEN": "127.0.0.1:0", "PREDICTD_DATA_DIR": data, "PROFILE": "dev"}
            server = subprocess.Popen(runs[0], shell=True, cwd=ROOT, env=environment, stderr=log, start_new_session=True)
            try:
                self.wait_ready(server, port, log)
                # What comes with the repository is nothing to warn of.
                log.seek(0)
                self.assertNotIn("WARN", log.read())
                for command, expected in listed:
                    with self.subTest(command):
                        if command.startswith("curl"):
                            here = command.replace("localhost:8000", f"127.0.0.1:{port}").replace("curl ", "curl -sS ", 1)
                            self.assert_same(json.loads(expected), json.loads(self.output(here, environment)))
                        elif command in keys:
                            here = command.replace("target/release/", "target/debug/")
                            self.assertRegex(self.output(here, environment), r"^pd_[\w-]{43}\n$")
                            self.wait_locked(port)
                        elif command in checks:
                            here = command.replace("target/release/", "target/debug/")
                            self.assert_same_lines(expected, self.output(here, environment))
                        elif command in benches:
                            here = command.replace("target/release/", "target/debug/") + " --seconds 0.05"
                            # The other model is measured in a moment.
                            here = here.replace("banking77-minilm", "banking77-tfidf")
                            self.assert_same_lines(expected, self.output(here, environment))
            finally:
                os.killpg(server.pid, signal.SIGINT)
                server.wait(30)

    def assert_same_lines(self, expected, found):
        # Every figure depends on the machine and the moment; what a line is about shows at its beginning.
        expected, found = ([re.sub(r"[\d.,]+", "#", " ".join(line.split())) for line in text.strip().splitlines()] for text in (expected, found))
        self.assertEqual({line[:8] for line in expected} - {line[:8] for line in found}, set(), found)
        self.assertEqual(found[-1], expected[-1])

    def output(self, command, environment):
        done = subprocess.run(command, shell=True, check=True, capture_output=True, text=True, cwd=ROOT, env=environment)
        return done.stdout

    def wait_locked(self, port):
        # The server looks at its key file every second.
        while True:
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/models").close()
            except urllib.error.HTTPError as error:
                self.assertEqual(error.code, 401)
                error.close()
                return
            time.sleep(0.1)

    def wait_ready(self, server, port, log):
        # `make run` builds first: minutes on a fresh clone.
        for _ in range(15 * 60 * 5):
            try:
                # The commands ask both models, and the server is ready as soon as the default one is.
                with urllib.request.urlopen(f"http://127.0.0.1:{port}/health") as health:
                    if all(model["state"] == "ready" for model in json.load(health)["models"]):
                        return
            except (urllib.error.URLError, ConnectionError):
                if server.poll() is not None:
                    log.seek(0)
                    self.fail(f"make run ended: {log.read()}")
            time.sleep(0.2)
        self.fail("the server was not ready within 15 minutes")


if __name__ == "__main__":
    unittest.main()
