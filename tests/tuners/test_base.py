"""The protocol's defaults."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from rankopt.tuners.base import Attached, head_modules


class Nothing(Attached):
    def save(self, folder: Path) -> None:
        raise NotImplementedError


def test_a_tuner_without_hooks_has_neither_penalty_nor_state() -> None:
    one = Nothing(net=nn.Identity(), parameters={"w": nn.Parameter(torch.zeros(2, 3))})
    one.after_step(1)
    one.restore(one.state())
    assert (one.stored(), one.penalty(), one.state()) == (6, None, {})
    with pytest.raises(ValueError, match="Nothing cannot be merged"):
        one.merge()


def test_the_head_is_found_inside_a_wrapper() -> None:
    net = nn.ModuleDict({"plain": nn.Linear(1, 1), "wrapped": nn.Module()})
    trained = nn.Linear(1, 1)
    net["wrapped"].modules_to_save = nn.ModuleDict({"default": trained})
    assert head_modules(net, ("plain", "wrapped")) == {"plain": net["plain"], "wrapped": trained}
