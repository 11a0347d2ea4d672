"""Whose a file is that several processes may write: which process of which machine, and whether that one is gone.

One folder may be shared by machines whose processes have equal numbers. A process is therefore named
`MACHINE-PROCESS-START`: a digest of host name, boot and process namespace (two containers of one host differ in it);
its number; and when it started, in ticks since the boot: a number is given again.
"""

from __future__ import annotations

import functools
import hashlib
import os
import socket
from pathlib import Path


def this_process() -> str:
    """The name of the calling process."""
    return _name(os.getpid())


@functools.cache  # by the number: a forked child has another
def _name(pid: int) -> str:
    _, start = _status(pid) or ("", "0")
    return f"{_machine()}-{pid}-{start}"


def gone(owner: str) -> bool:
    """Whether the process of that name has certainly ended. False of one of another machine, of which nothing is known.

    One that has ended and waits to be collected, which can take long, is gone.
    """
    machine, _, process = owner.partition("-")
    pid, _, start = process.partition("-")
    if machine != _machine() or not pid.isdecimal():
        return False
    try:
        os.kill(int(pid), 0)
    except ProcessLookupError:
        return True
    except PermissionError:  # another user's
        pass
    status = _status(int(pid))
    return status is not None and (status[0] in "ZX" or status[1] != start)


def elsewhere(owner: str) -> bool:
    """Whether the process is, or may be, one of another machine."""
    return owner.partition("-")[0] != _machine()


def _status(pid: int) -> tuple[str, str] | None:
    """State and start of a process (proc_pid_stat(5)); None where the system does not say."""
    try:
        text = Path(f"/proc/{pid}/stat").read_bytes()
    except OSError:
        return None
    fields = text[text.rindex(b")") + 2 :].split()  # the name in parentheses may hold anything
    return fields[0].decode(), fields[19].decode()


@functools.cache
def _machine() -> str:
    parts = [socket.gethostname()]
    try:
        parts.append(Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip())
        parts.append(str(Path("/proc/self/ns/pid").stat().st_ino))
    except OSError:  # not told here
        pass
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:8]
