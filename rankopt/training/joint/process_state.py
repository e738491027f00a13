"""The process-wide state that every training treats as its own: random generators and accelerate's singletons."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
from accelerate.state import AcceleratorState, GradientState, PartialState
from torch import Tensor

from rankopt.training.device import choose_device, random_module

SINGLETONS = (PartialState, AcceleratorState, GradientState)


class RandomStates:
    """The states of torch's generators, by device type, as they were when this was made.

    Example:
        >>> import torch
        >>> saved, first = RandomStates(), torch.rand(3)
        >>> with saved.drawing("cpu"):
        ...     again = torch.rand(3)
        >>> torch.equal(first, again)
        True
    """

    def __init__(self) -> None:
        self.states = {kind: _get(kind) for kind in {"cpu", choose_device()}}

    def restore(self) -> None:
        """Set the process's generators to these states."""
        for device, state in self.states.items():
            _set(device, state)

    @contextmanager
    def drawing(self, device: str) -> Iterator[None]:
        """Draw from this state within the context, and advance it; the process's own generator does not move."""
        outside = _get(device)
        _set(device, self.states[device])
        try:
            yield
        finally:
            self.states[device] = _get(device)
            _set(device, outside)


class ProcessState:
    """A snapshot of the process-wide state, taken when this is made."""

    def __init__(self) -> None:
        self.torch = RandomStates()
        self.numpy, self.python = np.random.get_state(), random.getstate()
        self.singletons = [dict(kind._shared_state) for kind in SINGLETONS]

    def restore(self) -> None:
        """Make the process as it was."""
        self.torch.restore()
        np.random.set_state(self.numpy)
        random.setstate(self.python)
        for kind, content in zip(SINGLETONS, self.singletons, strict=True):
            kind._shared_state.clear()
            kind._shared_state.update(content)


def _get(device: str) -> Tensor:
    state: Tensor = random_module(device).get_rng_state()
    return state


def _set(device: str, state: Tensor) -> None:
    random_module(device).set_rng_state(state)
