"""When a training outside a study begins and ends; `tests/api/test_adapted_model.py` has the mistakes of a loop."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from own_training import classified, encoder, stacked

from rankopt.allocators.base import Allocator, Probe, State
from rankopt.api.adapt import adapt
from rankopt.lowrank.layers import Layers, pattern_of

SHORT = {"warmup": 0.1, "final": 0.3}


def training(allocator: str = "adalora", **options: Any) -> Any:
    return adapt(encoder(), allocator, mean_rank=2, max_rank=4, **options).training


def test_the_allocator_starts_when_the_steps_are_known() -> None:
    """The schedule is that of the real number of steps; factors and masks are those of the first start."""
    found = training()
    before = {name: (layer.A.clone(), layer.m.clone(), layer.initial) for name, layer in found.layers.items()}
    assert found.hooks.state["schedule"]["steps"] == 10**6
    found.begin(20)
    assert found.hooks.state["schedule"]["steps"] == 20
    assert found.hooks.ranks[0]["step"] == 0
    for name, (A, m, initial) in before.items():
        layer = found.layers[name]
        assert torch.equal(layer.A, A)
        assert torch.equal(layer.m, m)
        assert layer.initial == initial


@pytest.mark.parametrize("allocator", ["prilora", "increlora"])
def test_starting_twice_watches_once(allocator: str) -> None:
    """Statistics of a layer's passes are collected once, although the allocator starts twice."""
    found = training(allocator)
    found.begin(20)
    assert {len(layer._forward_hooks) for layer in found.layers.values()} == {1}


def test_a_resumed_training_looks_at_no_data() -> None:
    """The checkpoint has what the allocator saw."""
    found = training("gora")
    assert found.needs_batches
    found.begin(6, resumed=True)
    assert found.hooks.ranks == []


def test_batches_are_moved_to_the_model(monkeypatch: Any) -> None:
    """Nested batches too, and the loss is the caller's."""
    from rankopt.allocators import ALLOCATORS

    seen: list[Any] = []

    def prepare(self: Allocator, state: State, layers: Layers, probe: Probe) -> None:
        seen.extend(probe.gradients(5))

    monkeypatch.setattr(ALLOCATORS["gora"], "prepare", prepare)
    found = training("gora")
    batch = {"inputs": stacked(classified()), "name": "a"}
    found.keep_batches([batch], lambda net, given: net(**given["inputs"]).loss * len(given["name"]))
    found.begin(6)
    assert len(seen) == 1, "an allocator that asks for more batches reads those that there are"
    assert set(seen[0]) == set(found.layers)


def test_finish_is_done_once() -> None:
    """The final pattern is in the layers' masks, and a second call changes nothing."""
    found = training(**SHORT)
    found.begin(6)
    found.finish()
    pattern = pattern_of(found.layers)
    found.finish()
    assert pattern_of(found.layers) == pattern
    assert pattern.total == 24
    found.check_complete()
