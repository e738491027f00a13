"""Process-wide state is saved and restored."""

from __future__ import annotations

import random

import numpy as np
import torch
from accelerate.state import GradientState

from rankopt.training.joint.process_state import ProcessState, RandomStates


def test_a_snapshot_is_restored() -> None:
    """Generators of torch, numpy and Python, and accelerate's singletons, return to the snapshot."""
    GradientState._shared_state["mine"] = 1
    try:
        saved = ProcessState()
        first = torch.rand(3).tolist(), np.random.rand(), random.random()
        GradientState._shared_state["mine"] = 2
        saved.restore()
        assert (torch.rand(3).tolist(), np.random.rand(), random.random()) == first
        assert GradientState._shared_state["mine"] == 1
    finally:
        del GradientState._shared_state["mine"]


def test_drawing_advances_the_saved_state_only() -> None:
    """Two contexts draw consecutive numbers, and the process's generator stays."""
    torch.manual_seed(5)
    expected = torch.rand(4).tolist()
    torch.manual_seed(5)
    states, outside = RandomStates(), torch.get_rng_state()
    found: list[float] = []
    for _ in range(2):
        with states.drawing("cpu"):
            found += torch.rand(2).tolist()
    assert found == expected
    assert torch.equal(torch.get_rng_state(), outside)
