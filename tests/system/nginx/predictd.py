"""A server with a model that loads in milliseconds, to be put behind nginx.

`PREDICTD` in the environment names another binary than `target/debug/predictd`.
"""

import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import wire

ROOT = Path(__file__).resolve().parents[3]
sys.path.append(str(ROOT / "tests/system/crash"))
import served  # noqa: E402
import tiny_model  # noqa: E402

BINARY = Path(os.environ.get("PREDICTD_PROGRAM", ROOT / "target/debug/predictd")).resolve()


class Predictd(served.Server):
    """One server. Its model answers `v1`; `models` is a directory of others."""

    def __init__(self, *options: str, models: Path | None = None) -> None:
        self.place = Path(tempfile.mkdtemp(prefix="predictd-test-"))
        super().__init__(BINARY, models or self.place / "models", self.place / "data", options)
        tiny_model.write(self.place / "models/m/1", "1")

    def __enter__(self) -> "Predictd":
        try:
            self.start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()
        shutil.rmtree(self.place)

    def key(self, scopes: str) -> str:
        """A new key with these scopes, as a header."""
        command = [BINARY, "keys", "new", "--name", scopes.replace(",", "-"), "--scopes", scopes,
                   "--keys", self.data / "keys.toml"]
        self.data.mkdir(exist_ok=True)
        made = subprocess.run(command, capture_output=True, text=True, check=True)
        return f"Authorization: Bearer {made.stdout.strip()}\r\n"

    def counted(self, metric: str) -> dict[str, int]:
        """A metric by its labels, as the admin listener has it."""
        text = wire.ask(self.admin, wire.get("/metrics")).body.decode()
        found = re.findall(rf"^{metric}(?:{{(.*)}})? (\d+)$", text, re.M)
        return {labels: int(count) for labels, count in found}

    def reached(self, route: str | None = None) -> int:
        """Requests that reached the server, without those that count them."""
        started = self.counted("predictd_http_requests_started_total")
        return sum(count for labels, count in started.items()
                   if labels != 'route="/metrics"' and route in (None, re.sub(r'.*"(.*)"', r"\1", labels)))
