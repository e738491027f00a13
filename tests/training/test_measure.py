"""Costs on this machine: plausible, and without an effect on the model."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from rankopt.lowrank.layers import pattern_of
from rankopt.training.measure import peak_memory, speed, stored_bytes
from rankopt.training.prepare import prepare


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_the_peak_of_a_block_counts_what_it_frees() -> None:
    """And not what an earlier block allocated."""
    with peak_memory() as large:
        np.ones(25_000_000).sum()  # 200 MB
    with peak_memory() as small:
        pass
    assert large.host is not None
    assert small.host is not None
    assert large.host - small.host > 150e6
    assert (large.device is not None) == torch.cuda.is_available()


def test_the_peak_of_a_block_that_fails() -> None:
    with pytest.raises(ZeroDivisionError), peak_memory() as memory:
        _ = 1 / 0
    assert (memory.host is not None) == (sys.platform == "linux")


def test_speed_leaves_the_model_as_it_is(tiny_spec: Callable[..., Any]) -> None:
    prepared = prepare(tiny_spec())
    before = pattern_of(prepared.adapted.layers)
    assert before.total
    found = speed(prepared.adapted, prepared.task.problem, prepared.data.held_out["search"], 16, "fp32")
    assert pattern_of(prepared.adapted.layers) == before
    assert set(found) == {
        "latency_seconds", "merged_latency_seconds", "example_seconds", "merged_example_seconds",
    }  # fmt: skip
    assert all(0 < seconds < 10 for seconds in found.values())
    assert found["example_seconds"] < found["latency_seconds"]


def test_stored_bytes(tmp_path: Path) -> None:
    (tmp_path / "adapter_model.safetensors").write_bytes(b"1234")
    (tmp_path / "config.json").write_bytes(b"{}")
    assert stored_bytes(tmp_path) == 4
