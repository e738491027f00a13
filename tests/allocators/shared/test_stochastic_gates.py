"""Stochastic gates: how they start and draw, and what is left when they are fixed. Their step is tested in test_l0."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from rankopt.allocators.l0 import L0
from rankopt.allocators.shared.hard_concrete import mean_gate, open_probability
from rankopt.core.budget import Budget


def test_gates_start_open_with_the_given_probability(lab: Any) -> None:
    training = lab.Training(L0(open=0.7), Budget(mean_rank=2))
    for values in training.state["log_alpha"].values():
        assert open_probability(values).tolist() == pytest.approx([0.7] * 3)


def test_the_most_probable_gates_are_kept_without_their_noise(lab: Any) -> None:
    training = lab.Training(L0(final=2), Budget(mean_rank=2), steps=10).advance(8)
    p = {
        (name, i): float(open_probability(value))
        for name, values in training.state["log_alpha"].items()
        for i, value in enumerate(values)
    }
    best = set(sorted(p, key=lambda key: (-p[key], key))[:10])
    for name, layer in training.layers.items():
        assert layer.m.tolist() == [(name, i) in best for i in range(4)]
        torch.testing.assert_close(layer.g[:3].detach(), mean_gate(training.state["log_alpha"][name]))


def test_draws_depend_on_seed_step_and_layer(lab: Any) -> None:
    one = lab.Training(L0(), Budget(mean_rank=2))
    draws = []
    for step in (1, 2):
        one.allocator.before_step(one.state, one.layers, step)
        draws += [noise.tolist() for noise in one.state["noise"].values()]
    assert len({tuple(draw) for draw in draws}) == len(draws)
