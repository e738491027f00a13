"""A Python process that imports this rankopt: for what must hold in a fresh one."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import rankopt


def start(code: str, **environment: str) -> subprocess.Popen[str]:
    """Start a process with this code; its output is text."""
    root = str(Path(rankopt.__file__).parents[1])
    environment = {**os.environ, "PYTHONPATH": root, "HF_HUB_OFFLINE": "1", **environment}
    return subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, env=environment)


def python(code: str, **environment: str) -> str:
    """The output of a process with this code."""
    process = start(code, **environment)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 0
    return output
