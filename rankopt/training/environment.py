"""What a result depends on besides its spec: package versions, code revision, device."""

from __future__ import annotations

import platform
import subprocess
from functools import cache
from importlib import metadata
from pathlib import Path

import torch

from rankopt.training.device import device_name

PACKAGES = ("rankopt", "torch", "transformers", "datasets", "accelerate", "peft", "optuna", "numpy")


@cache
def environment(device: str) -> dict[str, str]:
    """Package versions, code revision, number of threads, and the name of the device of a type."""
    versions = {name: metadata.version(name) for name in PACKAGES}
    return versions | {
        "python": platform.python_version(),
        "platform": f"{platform.system()} {platform.machine()}",
        "device": device_name(device),
        "threads": str(torch.get_num_threads()),
        "code": code_revision(),
    }


def code_revision() -> str:
    """The git commit of the checkout, with "+" for uncommitted changes; "release" outside a checkout."""
    root = Path(__file__).resolve().parents[2]
    if not (root / ".git").exists():
        return "release"
    try:
        commit = _git(root, "rev-parse", "--short=12", "HEAD")
        return commit + ("+" if _git(root, "status", "--porcelain", "--", "rankopt") else "")
    except (OSError, subprocess.SubprocessError):
        return "unknown"


def _git(root: Path, *words: str) -> str:
    done = subprocess.run(["git", "-C", str(root), *words], capture_output=True, text=True, check=True, timeout=10)
    return done.stdout.strip()
