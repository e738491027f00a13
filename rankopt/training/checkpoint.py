"""Atomic checkpoints: a folder counts once its seal, a list of file hashes, is written."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import nn

from rankopt.lowrank.layers import Layers
from rankopt.tuners.base import head_modules

ADAPTER = "adapter.pt"
SEAL = "seal.json"
STEP = re.compile(r"checkpoint-\d+")


class Network(Protocol):
    """An adapted model: the net, its adapted layers, and the names of the modules trained in full."""

    @property
    def net(self) -> nn.Module: ...
    @property
    def layers(self) -> Layers: ...
    @property
    def head(self) -> tuple[str, ...]: ...


class CorruptCheckpointError(OSError):
    """A sealed checkpoint has changed on disk. Nothing was deleted."""


def seal(folder: Path) -> None:
    """Mark a checkpoint as complete: write the SHA-256 of each of its files, atomically."""
    hashes = {path.name: _sha256(path) for path in sorted(folder.iterdir()) if path.is_file() and path.name != SEAL}
    draft = folder / (SEAL + ".draft")
    draft.write_text(json.dumps(hashes), encoding="utf-8")
    draft.replace(folder / SEAL)


def latest(folder: Path) -> Path | None:
    """The newest sealed checkpoint of a trial. Unsealed ones, left by a crash while writing, are deleted.

    Raises:
        CorruptCheckpointError: a sealed checkpoint has a missing or altered file.
    """
    # other folders, such as a copy that somebody made, are not ours to read or to delete
    found = sorted((path for path in folder.glob("checkpoint-*") if STEP.fullmatch(path.name)), key=step_of)
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
        bad += [SEAL] * (ADAPTER not in hashes)
    except (json.JSONDecodeError, UnicodeDecodeError, AttributeError):
        bad = [SEAL]
    if bad:
        earlier = f"step {step_of(complete[-2])}" if len(complete) > 1 else "the start"
        raise CorruptCheckpointError(
            f"checkpoint {path} is corrupt: {bad[0]} is missing or differs from its hash; delete this folder and run "
            f"again: the trial continues from {earlier}"
        )
    return path


def step_of(checkpoint: Path) -> int:
    """The number of optimiser steps before a checkpoint.

    Example:
        >>> step_of(Path("checkpoints/checkpoint-40"))
        40
    """
    return int(checkpoint.name.rpartition("-")[2])


def save_network(adapted: Network, folder: Path, **others: Any) -> None:
    """Write what training changes (factors, gates, masks, head) beside the Trainer's own files.

    Args:
        adapted: the model.
        folder: created when absent.
        others: plain data and tensors to save with it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    layers = {
        name: {
            "A": layer.A.detach(),
            "B": layer.B.detach(),
            "g": layer.g.detach(),
            "m": layer.m,
            "initial": layer.initial,
        }
        for name, layer in adapted.layers.items()
    }
    head = {part: module.state_dict() for part, module in head_modules(adapted.net, adapted.head).items()}
    torch.save({"layers": layers, "head": head, **others}, folder / ADAPTER)


def load_network(adapted: Network, folder: Path) -> dict[str, Any]:
    """Restore the model that `save_network` wrote, and return everything that was saved; no code in it is executed."""
    device = next(adapted.net.parameters()).device
    content: dict[str, Any] = torch.load(folder / ADAPTER, map_location=device, weights_only=True)
    restore_layers(adapted.layers, content["layers"])
    heads = head_modules(adapted.net, adapted.head)
    for part, state in content["head"].items():
        heads[part].load_state_dict(state)
    return content


@torch.no_grad()
def restore_layers(layers: Layers, saved: dict[str, dict[str, Any]]) -> None:
    """Restore saved factors, gates, masks and initial ranks."""
    for name, layer in layers.items():
        layer.A.copy_(saved[name]["A"])
        layer.B.copy_(saved[name]["B"])
        layer.g.copy_(saved[name]["g"])
        layer.mask(saved[name]["m"])
        layer.initial = saved[name].get("initial", layer.initial)  # absent in checkpoints of earlier versions


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
