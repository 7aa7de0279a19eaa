#!/usr/bin/env python3
"""What nginx costs: the same requests to the server and through nginx, in turns.

    python3 benches/nginx.py [--model banking77-tfidf] [--clients 1,8] [--rounds 5] [--seconds 2]

Clients keep their connections. Each round measures both; a ratio is one of a round, and the median of all is shown.
CPU time is that of the processes themselves, from /proc. The only number of nginx.conf that is changed is the rate.
"""

import argparse
import os
import statistics
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.append(str(ROOT / "tests/system/nginx"))
RELEASE = ROOT / "target/release/predictd"
if RELEASE.exists():
    os.environ.setdefault("PREDICTD_PROGRAM", str(RELEASE))
import wire  # noqa: E402
from instance import Nginx, version  # noqa: E402
from predictd import BINARY, Predictd  # noqa: E402

TICKS = os.sysconf("SC_CLK_TCK")


@dataclass
class Measured:
    """One target in one round."""

    latencies: list[float]
    seconds: float
    server: float
    nginx: float

    def figures(self) -> list[float]:
        """Requests a second; p50 and p99 in milliseconds; CPU milliseconds a request: nginx's and the server's."""
        ordered, count = sorted(self.latencies), len(self.latencies)
        return [count / self.seconds, ordered[count // 2] * 1e3, ordered[count * 99 // 100] * 1e3,
                self.nginx / count * 1e3, self.server / count * 1e3]


def cpu(pids: list[int]) -> float:
    """Seconds that these processes have used."""
    total = 0
    for pid in pids:
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
        total += int(fields[11]) + int(fields[12])
    return total / TICKS


def workers(master: int) -> list[int]:
    """The processes of nginx."""
    return [master, *map(int, Path(f"/proc/{master}/task/{master}/children").read_text(encoding="utf-8").split())]


def client(address: str, number: int, model: str, until: float, latencies: list[float]) -> None:
    """One connection, one request after another, each of a text of its own."""
    asked = 0
    with wire.connect(address) as stream:
        while time.monotonic() < until:
            asked += 1
            body = f'{{"text":"Where is my card number {number} {asked}?","model":"{model}"}}'
            request = wire.post("/predict", body).replace(b"Connection: close\r\n", b"")
            begun, received = time.perf_counter(), b""
            stream.sendall(request)
            while not wire.is_whole(received, False):
                received += wire.receive(stream) or sys.exit("a connection ended")
            latencies.append(time.perf_counter() - begun)
            if not received.startswith(b"HTTP/1.1 200 "):
                sys.exit(f"not answered: {received[:300]!r}")


def measure(address: str, options: argparse.Namespace, clients: int, server: int, nginx: list[int]) -> Measured:
    """All clients at one target."""
    latencies: list[float] = []
    before, begun = (cpu([server]), cpu(nginx)), time.monotonic()
    end = begun + options.seconds
    threads = [threading.Thread(target=client, args=(address, number, options.model, end, latencies))
               for number in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return Measured(latencies, time.monotonic() - begun, cpu([server]) - before[0], cpu(nginx) - before[1])


def main() -> None:
    """Prints a table for each number of clients."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="banking77-tfidf")
    parser.add_argument("--clients", default="1,8")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=2)
    options = parser.parse_args()
    changes = {"nginx.conf": [("rate=1000r/s", "rate=1000000r/s")]}
    name = ".".join(map(str, version()))
    print(f"{BINARY.relative_to(ROOT)}, nginx {name}, {options.model}, load average {os.getloadavg()[0]:.1f}")
    with Predictd(models=ROOT / "models") as server, Nginx([server.address], changes=changes) as nginx:
        pid, pids = server.process.pid, workers(nginx.process.pid)
        for clients in map(int, options.clients.split(",")):
            measure(nginx.address, options, clients, pid, pids)
            rounds = []
            for number in range(options.rounds):
                order = [server.address, nginx.address][::1 if number % 2 else -1]
                taken = {address: measure(address, options, clients, pid, pids).figures() for address in order}
                rounds.append((taken[server.address], taken[nginx.address]))
            title = f"{clients} clients, {options.rounds} rounds of {options.seconds:g} s"
            print(f"\n{title:32} {'direct':>9} {'nginx':>9} {'ratio (of all rounds)':>25}")
            labels = ("requests/s", "p50, ms", "p99, ms", "CPU of nginx, ms a request",
                      "CPU of the server, ms a request")
            for index, label in enumerate(labels):
                direct, through = ([taken[which][index] for taken in rounds] for which in (0, 1))
                line = f"{label:32} {statistics.median(direct):9.3f} {statistics.median(through):9.3f}"
                if all(direct):
                    ratios = sorted(b / a for a, b in zip(direct, through))
                    line += f" {statistics.median(ratios):8.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f})"
                print(line)


if __name__ == "__main__":
    main()
