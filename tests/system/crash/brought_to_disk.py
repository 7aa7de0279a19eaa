#!/usr/bin/env python3
"""What an acknowledged change has written is on the disk by then: a loss of power would lose nothing of it.

    python3 tests/system/crash/brought_to_disk.py --predictd target/debug/predictd

The calls of a server are recorded while its registry is changed (needs strace). When an answer of success is sent, every
byte that was written below the data directory must have been brought to the disk by fsync or fdatasync of its file, and
every name that was given by fsync of its directory. SQLite's -shm is memory; a file that was deleted needs nothing.
"""

import argparse
import re
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import orders
import tiny_model
from served import ROOT, Server

CALLS = "write,writev,sendto,pwrite64,ftruncate,fsync,fdatasync,rename,renameat,renameat2,link,linkat,mkdir,mkdirat,unlink,unlinkat"
LINE = re.compile(r"^(?P<pid>\d+) +(?P<call>\w+)\((?P<arguments>.*)\) += (?P<result>-?\d+)")
BEGUN = re.compile(r"^(?P<pid>\d+) +(?P<begun>.*) <unfinished \.\.\.>$")
ENDED = re.compile(r"^(?P<pid>\d+) +<\.\.\. \w+ resumed>(?P<rest>.*)$")
PATH = re.compile(r"<(/[^>]*)>")
QUOTED = re.compile(r'"(/[^"]*)"')


def calls(trace: str):
    """Every call that ended well, in the order in which they ended."""
    begun = {}
    for line in trace.splitlines():
        if found := BEGUN.match(line):
            begun[found["pid"]] = f"{found['pid']} {found['begun']}"
            continue
        if found := ENDED.match(line):
            line = begun.pop(found["pid"], "") + found["rest"]
        if (found := LINE.match(line)) and int(found["result"]) >= 0:
            yield found["call"], found["arguments"]


class Disk:
    """What is not on the disk yet."""

    def __init__(self, data: Path) -> None:
        self.data, self.written, self.named = f"{data.resolve()}/", set(), set()
        self.answers, self.missing = 0, []

    def see(self, call: str, arguments: str) -> None:
        """Follows one call."""
        # The directory itself has names in it, too.
        paths = [path for path in PATH.findall(arguments) + QUOTED.findall(arguments) if f"{path}/".startswith(self.data)]
        if call in ("write", "writev", "sendto") and "HTTP/1.1 200" in arguments:
            self.answers += 1
            self.missing += [(self.answers, path) for path in sorted(self.written | self.named)]
        elif not paths or paths[-1].endswith("-shm"):
            return
        elif call in ("fsync", "fdatasync"):
            self.written.discard(paths[0])
            self.named.discard(paths[0])
        elif call.startswith("unlink"):
            self.written.discard(paths[-1])
        elif call.startswith("rename"):
            old, new = paths[-2:]
            # Its bytes go with it.
            moved = {path for path in self.written if path == old or path.startswith(f"{old}/")}
            self.written = (self.written - moved) | {new + path.removeprefix(old) for path in moved}
            self.named = {new + path.removeprefix(old) if path.startswith(old) else path for path in self.named}
            self.named.add(str(Path(new).parent))
        elif call.startswith(("mkdir", "link")):
            self.named.add(str(Path(paths[-1]).parent))
        else:
            self.written.add(paths[0])


def main() -> None:
    """Changes a registry, and looks at what its server did."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--predictd", type=Path, default=ROOT / "target/debug/predictd")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        work = Path(place).resolve()
        models, others = work / "models", work / "others"
        tiny_model.write(models / "m" / "1", "1")
        tiny_model.write(others / "2", "2")
        server = Server(options.predictd.resolve(), models, work / "data").start()
        trace = work / "trace"
        strace = subprocess.Popen(["strace", "-f", "-y", "-qq", "-s", "64", "-e", f"trace={CALLS}", "-o", trace, "-p", str(server.process.pid)])
        time.sleep(1)
        wire = server.to_admin()
        orders.upload(wire, others / "2")
        answers = [orders.register("2", others / "2").send(wire)]
        for make in (lambda r: orders.activate("2", r), lambda r: orders.roll_back(r), lambda r: orders.measure("2", {"f1": 0.5}, r)):
            answers.append(make(answers[-1].json()["revision"]).send(wire))
        time.sleep(0.5)
        strace.send_signal(signal.SIGINT)
        strace.wait()
        server.stop()
        if not all(answer.ok for answer in answers):
            sys.exit(f"the changes were not made: {answers}")
        disk, seen = Disk(work / "data"), 0
        for call, arguments in calls(trace.read_text(encoding="utf-8", errors="replace")):
            seen += 1
            disk.see(call, arguments)
        print(f"{seen} calls, {disk.answers} answers of success; not on the disk by then: {disk.missing or 'nothing'}")
        if disk.answers < len(answers) or disk.missing:
            sys.exit(1)


if __name__ == "__main__":
    main()
