"""GeLoRA: which hidden states it measures, and the ranks that follow from their dimensions."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from rankopt.allocators.gelora import GeLoRA, rises
from rankopt.core.budget import Budget
from rankopt.core.pattern import Shape
from rankopt.importance.intrinsic import two_nn
from rankopt.lowrank.layers import pattern_of


def test_the_hidden_states_are_those_that_enter_a_block(lab: Any) -> None:
    """The model's own hidden states, up to the number of tokens asked for."""
    training = lab.Training(GeLoRA(batches=2, tokens=150), Budget(mean_rank=2)).prepare()
    states: list[list[torch.Tensor]] = [[], []]
    for batch, _ in zip(lab.batches(), range(2), strict=False):
        with torch.no_grad():
            hidden = lab.base_model()(input_ids=batch["input_ids"], output_hidden_states=True).hidden_states
        for block in (0, 1):
            states[block].append(hidden[block].flatten(0, 1))
    expected = [two_nn(torch.cat(parts)[:150]) for parts in states]
    found = training.state["measured"]["intrinsic dimension"]
    assert list(found) == [f"bert.encoder.layer.{block}.attention.self.query" for block in (0, 1)]
    assert list(found.values()) == pytest.approx(expected, rel=1e-4)


def test_ranks_follow_the_rises(lab: Any) -> None:
    training = lab.Training(GeLoRA(batches=2), Budget(mean_rank=2)).prepare()
    dimensions = dict(enumerate(training.state["measured"]["intrinsic dimension"].values()))
    weights = {name: rises(dimensions)[int(name.split(".")[3])] for name in training.layers}
    shapes = dict.fromkeys(training.layers, Shape(1, 1))
    assert pattern_of(training.layers) == Budget(ranks=10).share(weights, shapes, 4)


def test_falls_count_as_no_rise() -> None:
    """A block's rank is at least that of one component, as is the last block's."""
    assert rises({3: 5.0, 0: 2.0, 1: 6.5}) == {0: 5.5, 1: 1.0, 3: 1.0}
    assert rises({}) == {}
