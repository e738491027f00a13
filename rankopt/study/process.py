"""Which process runs an attempt, and whether it still exists."""

from __future__ import annotations

import os
import socket
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

import psutil

PROC = Path("/proc")


def this_process() -> dict[str, Any]:
    """What an attempt records about its worker: the machine, the process id and when the process started.

    `boot` names the running system and its process namespace, "" where the system tells neither.
    """
    return {"host": socket.gethostname(), "boot": _boot(), "pid": os.getpid(), "started": _started(os.getpid())}


def is_gone(process: dict[str, Any]) -> bool:
    """Whether a recorded process ran on this machine and no longer exists."""
    if process["host"] != socket.gethostname() or process.get("boot") != _boot():
        return False
    return bool(_started(process["pid"]) != process["started"])


@cache
def _boot() -> str:
    """Identity of the running system, unlike the host name never shared with a clone or a second container."""
    with suppress(OSError):
        boot = (PROC / "sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return f"{boot} {os.readlink(PROC / 'self/ns/pid')}"
    return ""


def _started(pid: int) -> float | None:
    """When a process started; None when there is no such process, or only its exit code is left.

    In clock ticks since boot where /proc has them, because a time of day moves when the system's clock is set.
    """
    try:
        # the second field is the program's name in parentheses, which may contain anything
        state, *fields = (PROC / str(pid) / "stat").read_text(errors="replace").rpartition(")")[2].split()
        return None if state in "ZX" else float(fields[18])
    except FileNotFoundError:
        if (PROC / "self/stat").exists():
            return None
    except OSError:
        return None
    with suppress(psutil.NoSuchProcess):
        process = psutil.Process(pid)
        return None if process.status() == psutil.STATUS_ZOMBIE else round(process.create_time())
    return None
