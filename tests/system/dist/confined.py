#!/usr/bin/env python3
"""Runs a command under what a unit file forbids, where systemd itself does not run: in a container, for one.

    confined.py UNIT WRITABLE-DIRECTORY COMMAND...      # as root
    confined.py UNIT WRITABLE-DIRECTORY --probe         # prints what is allowed of a few things

Done as systemd does it: SystemCallFilter (a filter of libseccomp with the sets that `systemd-analyze` prints),
RestrictAddressFamilies, MemoryDenyWriteExecute (by the kernel's own switch, as systemd does since 253), NoNewPrivileges,
CapabilityBoundingSet, ProtectSystem=strict (all is read-only but one directory), LimitNOFILE, LimitCORE, UMask, a user without
rights. Not done: the other Protect…, Private… and Restrict… lines.
"""

import ctypes
import errno
import json
import mmap
import os
import re
import resource
import socket
import subprocess
import sys
from pathlib import Path

NOBODY = 65534
CLONE_NEWNS = 0x20000
PR_CAPBSET_DROP, PR_SET_NO_NEW_PRIVS, PR_SET_MDWE = 24, 38, 65
ALLOW, FAIL = 0x7FFF0000, 0x00050000 | errno.EPERM
EQUAL = 4

libc = ctypes.CDLL(None, use_errno=True)


class Comparison(ctypes.Structure):
    _fields_ = [("argument", ctypes.c_uint), ("operator", ctypes.c_int), ("value", ctypes.c_uint64), ("second", ctypes.c_uint64)]


def sure(result: int, what: str) -> None:
    if result < 0:
        sys.exit(f"confined.py: {what}: {os.strerror(ctypes.get_errno() or -result)}")


def values(unit: str, name: str) -> list[str]:
    return re.findall(rf"^{name}=(.*)$", unit, re.M)


def system_calls(lines: list[str]) -> set[str]:
    """The calls that are allowed: the first line names sets that are, one with ~ takes away."""
    printed = subprocess.run(["systemd-analyze", "syscall-filter", "--no-pager"], capture_output=True, text=True, check=True).stdout
    sets: dict[str, list[str]] = {}
    for line in re.sub(r"\x1b\[[0-9;]*m", "", printed).splitlines():
        if line.startswith("@"):
            members = sets.setdefault(line.strip(), [])
        elif line.startswith("    ") and not line.strip().startswith("#"):
            members.append(line.strip())
        elif not line.strip().startswith("#") and line.strip():
            members = []

    def spread(name: str) -> set[str]:
        return set().union(*map(spread, sets[name])) if name.startswith("@") else {name}

    allowed: set[str] = set()
    for line in lines:
        names = set().union(*map(spread, line.removeprefix("~").split()))
        allowed = allowed - names if line.startswith("~") else allowed | names
    # systemd always allows what it needs itself to start the program.
    return allowed | spread("@default") | {"execve"}


def filter_calls(allowed: set[str], families: list[int]) -> None:
    seccomp = ctypes.CDLL("libseccomp.so.2", use_errno=True)
    seccomp.seccomp_init.restype = ctypes.c_void_p
    context = ctypes.c_void_p(seccomp.seccomp_init(FAIL))
    for name in sorted(allowed - {"socket"}):
        number = seccomp.seccomp_syscall_resolve_name(name.encode())
        # Those of other processors have no number here.
        if number >= 0:
            sure(seccomp.seccomp_rule_add_array(context, ALLOW, number, 0, None), name)
    for family in families:
        same = Comparison(0, EQUAL, family, 0)
        number = seccomp.seccomp_syscall_resolve_name(b"socket")
        sure(seccomp.seccomp_rule_add_array(context, ALLOW, number, 1, ctypes.byref(same)), "socket")
    sure(seccomp.seccomp_load(context), "the filter of system calls")


def make_read_only(writable: Path) -> None:
    sure(libc.unshare(CLONE_NEWNS), "a mount namespace")
    subprocess.run(["mount", "--make-rprivate", "/"], check=True)
    subprocess.run(["mount", "--bind", str(writable), str(writable)], check=True)
    points = [line.split()[1] for line in Path("/proc/self/mounts").read_text().splitlines()]
    for point in dict.fromkeys(points):
        if point != str(writable) and not point.startswith(("/proc", "/sys", "/dev")):
            subprocess.run(["mount", "-o", "remount,bind,ro", point], check=True)


def give_up_rights(unit: str) -> None:
    (files,), (core,) = values(unit, "LimitNOFILE"), values(unit, "LimitCORE")
    # A container may allow less, even to root.
    files = min(int(files), resource.getrlimit(resource.RLIMIT_NOFILE)[1])
    resource.setrlimit(resource.RLIMIT_NOFILE, (files, files))
    resource.setrlimit(resource.RLIMIT_CORE, (int(core), int(core)))
    os.umask(int(values(unit, "UMask")[0], 8))
    for capability in range(int(Path("/proc/sys/kernel/cap_last_cap").read_text()) + 1):
        sure(libc.prctl(PR_CAPBSET_DROP, capability, 0, 0, 0), "the bounding set")
    os.setgroups([])
    os.setresgid(NOBODY, NOBODY, NOBODY)
    os.setresuid(NOBODY, NOBODY, NOBODY)
    sure(libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "NoNewPrivileges")


def probe(elsewhere: Path) -> dict[str, bool]:
    """What can be done; the first two must be, the others must not."""
    def can(action) -> bool:
        try:
            action()
        except OSError:
            return False
        return True

    return {
        "write in its directory": can(lambda: Path("probe").write_text("x")),
        "use TCP": can(lambda: socket.socket().close()),
        "write elsewhere": can(lambda: (elsewhere / "probe").write_text("x")),
        "send packets": can(lambda: socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM).close()),
        "write memory and run it": can(lambda: mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC).close()),
        "take a smaller priority": can(lambda: os.nice(1)),
        "take its threads elsewhere": can(lambda: os.sched_setaffinity(0, os.sched_getaffinity(0))),
        "give a file away": can(lambda: os.chown("probe", NOBODY, NOBODY)),
    }


def main() -> None:
    unit, writable, command = Path(sys.argv[1]).read_text(), Path(sys.argv[2]).resolve(), sys.argv[3:]
    allowed = system_calls(values(unit, "SystemCallFilter"))
    families = [int(getattr(socket, name)) for name in " ".join(values(unit, "RestrictAddressFamilies")).split()]
    os.chown(writable, NOBODY, NOBODY)
    make_read_only(writable)
    os.chdir(writable)
    give_up_rights(unit)
    if "yes" in values(unit, "MemoryDenyWriteExecute"):
        sure(libc.prctl(PR_SET_MDWE, 1, 0, 0, 0), "MemoryDenyWriteExecute")
    filter_calls(allowed, families)
    if command == ["--probe"]:
        # In this process: another program might fail for another reason.
        print(json.dumps(probe(Path("/tmp"))))
        return
    os.execv(command[0], command)


if __name__ == "__main__":
    main()
