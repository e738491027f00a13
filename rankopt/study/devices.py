"""The devices that workers train on, found without torch: one GPU per worker process, in turn."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Mapping, Sequence

DEVICES = ("auto", "cuda", "mps", "cpu")
"""What may be asked for; "auto" is the first of the others that torch can use."""
VISIBLE = "CUDA_VISIBLE_DEVICES"
UUID = re.compile(r"\(UUID: ((?:GPU|MIG)-[^)\s]+)\)")


def gpus(environment: Mapping[str, str] = os.environ) -> list[str]:
    """Names of the NVIDIA GPUs of this machine, each valid as `CUDA_VISIBLE_DEVICES`; empty where there is no driver.

    The user's own `CUDA_VISIBLE_DEVICES` wins; like CUDA, it is read up to the first entry that is negative. A GPU that
    is split (MIG) counts as its parts.
    """
    if VISIBLE in environment:
        names: list[str] = []
        for name in (part.strip() for part in environment[VISIBLE].split(",")):
            if not name or name.startswith("-") or name == "NoDevFiles":
                break
            names.append(name)
        return names
    if not (tool := shutil.which("nvidia-smi")):
        return []
    try:
        listing = subprocess.run([tool, "-L"], capture_output=True, text=True, timeout=20, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return []
    return listed_gpus(listing)


def listed_gpus(listing: str) -> list[str]:
    """The identifiers in the output of `nvidia-smi -L`; a GPU that is split gives those of its parts.

    Example:
        >>> listed_gpus("GPU 0: NVIDIA H200 (UUID: GPU-8f1c)\\nGPU 1: NVIDIA H200 (UUID: GPU-77ab)")
        ['GPU-8f1c', 'GPU-77ab']
    """
    found: list[str] = []
    for name in UUID.findall(listing):
        if name.startswith("MIG") and found and found[-1].startswith("GPU"):
            found.pop()  # the whole GPU, which cannot be used while it is split
        found.append(name)
    return found


def share(choice: str, gpus: Sequence[str], worker: int) -> dict[str, str]:
    """The environment variables that give a worker process its GPU: every GPU has a worker before one has two.

    Example:
        >>> [share("auto", ["2", "5"], worker)["CUDA_VISIBLE_DEVICES"] for worker in range(3)]
        ['2', '5', '2']
    """
    if choice == "cpu":
        return {VISIBLE: ""}
    return {VISIBLE: gpus[worker % len(gpus)]} if choice in ("auto", "cuda") and len(gpus) > 1 else {}


def described(device: str, workers: int, gpus: int) -> str:
    """Which devices the workers use, in a few words.

    Example:
        >>> described("cuda", 4, 8), described("mps", 1, 0)
        ('4 workers on 4 GPUs', '1 worker on mps')
    """
    used = min(workers, max(gpus, 1))
    place = f"{used} GPU{'s' * (used > 1)}" if device == "cuda" else device
    return f"{workers} worker{'s' * (workers > 1)} on {place}"
