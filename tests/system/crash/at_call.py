#!/usr/bin/env python3
"""Kills a process at its K-th system call of some kinds, counted over all of its threads from now on.

    python3 tests/system/crash/at_call.py --pid 123 --kill-at 7 --calls openat,pwrite64,fdatasync --below /data

`strace --inject=...:when=K` counts the calls of each thread by itself, and a server's threads share the work: no K is
the seventh call of the server. This counts them in the order in which they happen. A call counts if it is about a
file below one of the directories, or about a socket; the process dies before the call is made. K = 0 kills nothing.

Needs the right to trace the process: that of root, mostly. Prints "attached", and at the end of the process one line
of JSON: the calls that were counted, and whether it was killed.
"""

import argparse
import ctypes
import json
import os
import platform
import signal
import sys
from pathlib import Path

PTRACE_SYSCALL, PTRACE_SEIZE, PTRACE_INTERRUPT, PTRACE_GET_SYSCALL_INFO = 24, 0x4206, 0x4207, 0x420E
# Calls are told from signals; threads that begin are traced; if this program ends, so does the process.
OPTIONS = 0x1 | 0x8 | 0x100000
EVENT_STOP = 128
CALL = signal.SIGTRAP | 0x80
ENTRY = 1
# Of wait: every child, also threads.
ALL = 0x40000000

# Where a call names what it is about: "fd" or "path" of one argument, or "at": a directory and a path.
X86_64 = {
    1: ("write", "fd", 0), 18: ("pwrite64", "fd", 0), 20: ("writev", "fd", 0), 44: ("sendto", "fd", 0),
    46: ("sendmsg", "fd", 0), 74: ("fsync", "fd", 0), 75: ("fdatasync", "fd", 0), 76: ("truncate", "path", 0),
    77: ("ftruncate", "fd", 0), 82: ("rename", "path", 0), 83: ("mkdir", "path", 0), 84: ("rmdir", "path", 0),
    86: ("link", "path", 0), 87: ("unlink", "path", 0), 90: ("chmod", "path", 0), 91: ("fchmod", "fd", 0),
    93: ("fchown", "fd", 0), 257: ("openat", "at", 0), 258: ("mkdirat", "at", 0), 263: ("unlinkat", "at", 0),
    264: ("renameat", "at", 0), 265: ("linkat", "at", 0), 268: ("fchmodat", "at", 0), 280: ("utimensat", "at", 0),
    285: ("fallocate", "fd", 0), 296: ("pwritev", "fd", 0), 307: ("sendmmsg", "fd", 0), 316: ("renameat2", "at", 0),
    326: ("copy_file_range", "fd", 2),
}
KINDS = sorted(name for name, *_ in X86_64.values())

libc = ctypes.CDLL(None, use_errno=True)
libc.ptrace.restype = ctypes.c_long
libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]


class CallInfo(ctypes.Structure):
    """What the kernel tells of a call (`struct ptrace_syscall_info`)."""

    _fields_ = [("op", ctypes.c_uint8), ("pad", ctypes.c_uint8 * 3), ("arch", ctypes.c_uint32),
                ("instruction", ctypes.c_uint64), ("stack", ctypes.c_uint64), ("number", ctypes.c_uint64),
                ("arguments", ctypes.c_uint64 * 6), ("rest", ctypes.c_uint64 * 4)]


def ptrace(request: int, thread: int, address: int = 0, data=0) -> bool:
    """False if the thread is gone."""
    return libc.ptrace(request, thread, address, data) >= 0


def threads(pid: int) -> set[int]:
    """The threads of a process."""
    try:
        return {int(name) for name in os.listdir(f"/proc/{pid}/task")}
    except FileNotFoundError:
        return set()


def text_at(pid: int, address: int) -> str:
    """A path in the memory of the process."""
    try:
        with open(f"/proc/{pid}/mem", "rb", buffering=0) as memory:
            memory.seek(address)
            return memory.read(4096).split(b"\0")[0].decode(errors="replace")
    except OSError:
        return ""


def opened(pid: int, descriptor: int) -> str:
    """What a descriptor is open on."""
    try:
        return os.readlink(f"/proc/{pid}/fd/{descriptor}")
    except OSError:
        return ""


class Watch:
    """The calls of a process, counted."""

    def __init__(self, pid: int, kinds: set[str], below: list[str], kill_at: int) -> None:
        self.pid, self.kinds, self.below, self.kill_at = pid, kinds, below, kill_at
        self.counted: list[str] = []
        self.killed = False

    def attach(self) -> None:
        """Traces all threads, also those that begin meanwhile."""
        seized: set[int] = set()
        while new := threads(self.pid) - seized:
            for thread in new:
                if ptrace(PTRACE_SEIZE, thread, 0, OPTIONS):
                    ptrace(PTRACE_INTERRUPT, thread)
            seized |= new

    def target(self, how: str, first: int, arguments) -> str:
        """The file or the socket that a call is about."""
        if how == "fd":
            return opened(self.pid, arguments[first])
        path = text_at(self.pid, arguments[first + (how == "at")])
        if path.startswith("/") or how == "path":
            return path
        directory = ctypes.c_int(arguments[first] & 0xFFFFFFFF).value
        return os.path.join(opened(self.pid, directory), path) if directory >= 0 else path

    def see(self, thread: int) -> None:
        """Counts a call that begins, and kills the process if it is the one."""
        info = CallInfo()
        ptrace(PTRACE_GET_SYSCALL_INFO, thread, ctypes.sizeof(info), ctypes.byref(info))
        known = X86_64.get(info.number)
        if info.op != ENTRY or known is None or known[0] not in self.kinds:
            return
        name, how, first = known
        target = self.target(how, first, info.arguments)
        below = next((directory for directory in self.below if target.startswith(directory)), None)
        if below is None and not target.startswith("socket:"):
            return
        self.counted.append(f"{name} {target[len(below):].lstrip('/') if below else 'socket'}")
        if len(self.counted) == self.kill_at:
            self.killed = True
            os.kill(self.pid, signal.SIGKILL)

    def run(self) -> None:
        """Until the process has ended."""
        while True:
            try:
                thread, status = os.waitpid(-1, ALL)
            except ChildProcessError:
                return
            if not os.WIFSTOPPED(status):
                if thread == self.pid:
                    return
                continue
            stop, event = os.WSTOPSIG(status), status >> 16
            if stop == CALL and not self.killed:
                self.see(thread)
            passed_on = 0 if event or stop in (CALL, signal.SIGTRAP) else stop
            ptrace(PTRACE_SYSCALL, thread, 0, passed_on)


def main() -> None:
    """Attaches, and waits for the end of the process."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pid", type=int, required=True)
    parser.add_argument("--kill-at", type=int, default=0, metavar="K")
    parser.add_argument("--calls", default=",".join(KINDS))
    parser.add_argument("--below", action="append", default=[], metavar="DIR")
    options = parser.parse_args()
    kinds = set(options.calls.split(","))
    if platform.machine() != "x86_64" or kinds - set(KINDS):
        sys.exit(f"only on x86_64, of: {' '.join(KINDS)}")
    watch = Watch(options.pid, kinds, [str(Path(place).absolute()) for place in options.below], options.kill_at)
    watch.attach()
    print("attached", flush=True)
    watch.run()
    print(json.dumps({"killed": watch.killed, "calls": watch.counted}), flush=True)


if __name__ == "__main__":
    main()
