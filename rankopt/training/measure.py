"""What a model costs on this machine: the peak memory of a training, and the speed of its forward passes."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch

from rankopt.core.pattern import RankPattern
from rankopt.lowrank.layers import apply_pattern, pattern_of
from rankopt.tasks.encode import Encoded
from rankopt.tasks.problems import Problem
from rankopt.training.device import autocast
from rankopt.training.model import Adapted

SINGLES = 4
"""Examples of different lengths whose passes are timed one by one."""
REPEATS = 3
"""Timed passes of a whole batch; the median counts."""
LONG = 1.0
"""Seconds after which a pass is not repeated."""
STATUS, RESET = Path("/proc/self/status"), Path("/proc/self/clear_refs")
"""Linux: the process's peak resident memory, and the file that resets it."""


@dataclass
class Memory:
    """Peak memory in bytes; None where it is unknown.

    Attributes:
        host: resident memory of the process.
        device: tensors on the GPU.
    """

    host: int | None = None
    device: int | None = None


@contextmanager
def peak_memory() -> Iterator[Memory]:
    """Measure the peak memory of the process during a block, also where the block fails."""
    found = Memory()
    with suppress(OSError):
        RESET.write_text("5")
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    try:
        yield found
    finally:
        with suppress(OSError):
            if peak := re.search(r"VmHWM:\s+(\d+) kB", STATUS.read_text()):
                found.host = int(peak[1]) * 1024
        if torch.cuda.is_available():
            found.device = torch.cuda.max_memory_allocated()


def speed(adapted: Adapted, problem: Problem, data: Encoded, batch_size: int, precision: str) -> dict[str, float]:
    """Wall-clock seconds per example of forward passes, with the adapters attached and merged.

    A merged model does the operations of its base model, so it is timed as the model at rank 0. A quantised model
    cannot be merged.

    Args:
        adapted: the trained model; its pattern is unchanged afterwards.
        problem: makes the batches.
        data: encoded examples.
        batch_size: of the batch.
        precision: of the training.
    Returns:
        `latency_seconds` of an example alone (median over lengths), `example_seconds` in a batch of examples of middle
        length, and both with `merged_`.
    """
    pattern = pattern_of(adapted.layers)
    by_length = np.argsort(data.lengths, kind="stable")
    singles = by_length[np.linspace(0, len(by_length) - 1, min(SINGLES, len(by_length))).round().astype(int)]
    start = max(0, (len(by_length) - batch_size) // 2)
    middle = by_length[start : start + batch_size]
    found: dict[str, float] = {}
    cases = {"": pattern, "merged_": RankPattern(dict.fromkeys(pattern, 0))}
    if any(layer.quantization for layer in adapted.layers.values()):
        del cases["merged_"]
    for prefix, kept in cases.items():
        apply_pattern(adapted.layers, kept)
        found[f"{prefix}latency_seconds"] = median(_seconds(adapted, problem, data, [i], precision, 1) for i in singles)
        found[f"{prefix}example_seconds"] = _seconds(adapted, problem, data, middle, precision, REPEATS) / len(middle)
    apply_pattern(adapted.layers, pattern)
    return found


@torch.no_grad()
def _seconds(adapted: Adapted, problem: Problem, data: Encoded, indices: Any, precision: str, repeats: int) -> float:
    """The median time of a pass."""
    net = adapted.net.eval()
    device = next(net.parameters()).device
    batch = problem.collate([data[int(index)] for index in indices], adapted.tokenizer, adapted.net.config)
    inputs = {name: value.to(device) for name, value in batch.items() if name != "labels"}

    def timed() -> float:
        began = time.perf_counter()
        with autocast(device.type, precision):
            net(**inputs)
        if device.type == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter() - began

    times = [timed()]  # the first pass allocates memory, so it counts only where it is slow
    while len(times) <= repeats and sum(times) < LONG:
        times.append(timed())
    return median(times[1:] or times)


def stored_bytes(folder: Path) -> int:
    """Size of the weights of an adapter on disk, in bytes, head included."""
    return sum(file.stat().st_size for file in folder.rglob("*.safetensors"))
