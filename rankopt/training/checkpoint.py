"""Checkpoints that are whole or absent: a folder counts once its seal, a list of file hashes, is written."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import torch

ADAPTER = "adapter.pt"
SEAL = "seal.json"


class CorruptCheckpointError(OSError):
    """A complete checkpoint has changed on disk; nothing was deleted."""


def seal(folder: Path) -> None:
    """Declare a checkpoint complete: write the SHA-256 of each of its files, atomically."""
    hashes = {path.name: _sha256(path) for path in sorted(folder.iterdir()) if path.is_file() and path.name != SEAL}
    draft = folder / (SEAL + ".draft")
    draft.write_text(json.dumps(hashes), encoding="utf-8")
    draft.replace(folder / SEAL)


def latest(folder: Path) -> Path | None:
    """The newest complete checkpoint of a trial; unsealed ones (a kill while writing) are deleted.

    Raises:
        CorruptCheckpointError: a sealed checkpoint has a missing or altered file; says which, and what to do.
    """
    found = sorted(folder.glob("checkpoint-*"), key=step_of)
    for path in found:
        if not (path / SEAL).exists():
            shutil.rmtree(path)
    complete = [path for path in found if path.exists()]
    if not complete:
        return None
    path = complete[-1]
    try:
        hashes = json.loads((path / SEAL).read_text(encoding="utf-8"))
        bad = [name for name, digest in hashes.items() if not (path / name).is_file() or _sha256(path / name) != digest]
    except (json.JSONDecodeError, UnicodeDecodeError, AttributeError):
        bad = [SEAL]
    if bad:
        earlier = f"step {step_of(complete[-2])}" if len(complete) > 1 else "its beginning"
        raise CorruptCheckpointError(
            f"checkpoint {path} is corrupt: {bad[0]} is missing or differs from its hash; delete that folder and run "
            f"again, and the trial continues from {earlier}"
        )
    return path


def step_of(checkpoint: Path) -> int:
    """The optimiser steps that a checkpoint has behind it.

    Example:
        >>> step_of(Path("checkpoints/checkpoint-40"))
        40
    """
    return int(checkpoint.name.rpartition("-")[2])


def save_adapter(folder: Path, content: dict[str, Any]) -> None:
    """Write tensors and plain data beside the Trainer's own files."""
    folder.mkdir(parents=True, exist_ok=True)
    torch.save(content, folder / ADAPTER)


def load_adapter(folder: Path, device: torch.device | str = "cpu") -> dict[str, Any]:
    """Read what `save_adapter` wrote, tensors onto `device`; nothing in it is executed."""
    content: dict[str, Any] = torch.load(folder / ADAPTER, map_location=device, weights_only=True)
    return content


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
